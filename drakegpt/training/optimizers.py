"""AdamW and Muon on flat parameters.

    adamw  Loshchilov and Hutter 2019, with the original's betas, for all parameters
    muon   Jordan et al. 2024 for hidden matrices, AdamW for all other parameters; if
           asked for, it updates queries, keys and values as three matrices

Both work on flat vectors, so that a step is a few operations, and read the learning
rate from a tensor, so that a step can be recorded.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from drakegpt.compute.device import choose_dtype
from drakegpt.config import TrainConfig
from drakegpt.models.bitlinear import count_parts
from drakegpt.models.layers import LanguageModel, hidden_layers
from drakegpt.training.flat_params import FlatParameters

BETA1, EPSILON = 0.9, 1e-8


class Optimizer:
    """Updates all parameters of a model; `weights` holds them and their gradient."""

    def __init__(self, config: TrainConfig, model: LanguageModel) -> None:
        """Move the parameters of `model`, already on its device, into one vector."""
        pieces = _find_muon_matrices(config, model) if config.optimizer == "muon" else []
        order = _sort_by_shape(pieces)
        matrices = [pieces[index].matrix for index in order]
        others = [p for p in _find_decayed(config, model) if not any(p is m for m in matrices)]
        self.weights = FlatParameters(model, [*matrices, *others])
        self._rate = torch.zeros((), device=self.weights.values.device)
        self._muon_rate = torch.zeros_like(self._rate)
        self._muon_ratio = config.muon_lr / config.max_lr
        self._muon = Muon(
            *self.weights.get_slice(0, len(matrices)),
            [shape for index in order for shape in pieces[index].shapes],
            self._muon_rate,
            config.muon_momentum,
        )
        if choose_dtype(config.dtype, self.weights.values.device) == torch.bfloat16:
            self._muon.dtype = torch.bfloat16
        momenta = self._muon.momentum.split([matrix.numel() for matrix in matrices])
        self._momenta = [  # in the model's order
            momenta[order.index(index)].view_as(piece.matrix) for index, piece in enumerate(pieces)
        ]
        decayed = len(matrices) + len(others)
        parts = [self.weights.get_slice(len(matrices), decayed), self.weights.get_slice(decayed)]
        beta2 = config.adam_beta2
        self._adamw = [AdamW(*part, self._rate, beta2) for part in parts if part[0].numel()]
        self._decayed = self._adamw[: bool(others)]
        self._decays = config.weight_decay, config.muon_weight_decay
        self.decay_factor = 1.0

    @property
    def decay_factor(self) -> float:
        """Factor of the weight decay of the parameters that it applies to."""
        return self._decay_factor

    @decay_factor.setter
    def decay_factor(self, factor: float) -> None:
        self._decay_factor = factor
        decay, self._muon.weight_decay = (factor * decay for decay in self._decays)
        for part in self._decayed:
            part.weight_decay = decay

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of AdamW; Muon's changes in proportion."""
        self._rate.fill_(rate)
        self._muon_rate.fill_(rate * self._muon_ratio)

    def step(self, share: int = 0, shares: int = 1) -> None:
        """Update the parameters by the gradient in `weights.gradient`.

        Threads that step side by side each take another of `shares`.
        """
        for part in self._adamw[share::shares]:
            part.step()
        if self._momenta:
            self._muon.step(share, shares)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer state, without parameters, gradient and learning rate."""
        moments = [
            {name: value.clone() for name, value in part.state.items()} for part in self._adamw
        ]
        return {"adamw": moments, "muon": [momentum.clone() for momentum in self._momenta]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises `ValueError` if it does not fit."""
        saved = state["adamw"]
        moments = [saved] if isinstance(saved, dict) else saved  # one part, in older states
        shapes = [momentum.shape for momentum in self._momenta]
        if [momentum.shape for momentum in state["muon"]] != shapes or [
            _get_shapes(values) for values in moments
        ] != [_get_shapes(part.state) for part in self._adamw]:
            raise ValueError("the optimizer's state belongs to another model or recipe")
        for part, values in zip(self._adamw, moments, strict=True):
            for name, value in values.items():
                part.state[name].copy_(value)
        for momentum, saved in zip(self._momenta, state["muon"], strict=True):
            momentum.copy_(saved)


class AdamW:
    """Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, on one vector of weights.

    The arithmetic is PyTorch's fused kernel. `torch.optim.AdamW` would load the compiler,
    which takes a second.
    """

    def __init__(self, weights: Tensor, gradient: Tensor, rate: Tensor, beta2: float) -> None:
        """`weights` and `gradient`: (n,); `rate`: the learning rate, a scalar that may change."""
        self._weights, self._gradient = weights, gradient
        self._rate, self._beta2 = rate, beta2
        self.weight_decay = 0.0
        self.state = {
            "step": torch.zeros((), device=weights.device),
            "exp_avg": torch.zeros_like(weights),
            "exp_avg_sq": torch.zeros_like(weights),
        }

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights by the gradient."""
        step, mean, square = self.state.values()
        adamw(
            [self._weights], [self._gradient], [mean], [square], [], [step],
            fused=True, capturable=self._rate.device.type == "cuda", amsgrad=False, maximize=False,
            lr=self._rate, beta1=BETA1, beta2=self._beta2, eps=EPSILON,
            weight_decay=self.weight_decay,
        )  # fmt: skip


class Muon:
    """Orthogonalized momentum: all directions of a matrix are updated equally far.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. PyTorch's
    implementation always multiplies in bfloat16, which is slow on most CPUs, and cannot
    be recorded; this one does on a GPU, and where the run computes in bfloat16. Matrices
    of equal shape are multiplied as one batch.
    """

    # Newton-Schulz steps and coefficients, as published.
    STEPS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)

    def __init__(
        self,
        matrices: Tensor,
        gradient: Tensor,
        shapes: list[torch.Size],
        rate: Tensor,
        momentum: float,
    ) -> None:
        """`matrices` and `gradient`: vectors; matrices of equal shape are adjacent."""
        self._values, self._gradient = matrices, gradient
        self._rate, self._momentum, self.weight_decay = rate, momentum, 0.0
        self.momentum = torch.zeros_like(self._values)
        self.dtype = torch.bfloat16 if matrices.is_cuda else torch.float32  # of the products
        self._stacks = [(shapes.count(shape), *shape) for shape in dict.fromkeys(shapes)]

    @torch.no_grad()
    def step(self, share: int = 0, shares: int = 1) -> None:
        """W -= rate * (sqrt(max(1, rows / columns)) * orthogonal(momentum) + decay * W).

        With several shares, only for its share of the matrices of each shape.
        """
        vectors = self._values, self._gradient, self.momentum
        for stacks in zip(*map(self._stacked, vectors), strict=True):
            values, gradient, momentum = (s.tensor_split(shares)[share] for s in stacks)
            if len(values):
                self._update(values, gradient, momentum)

    def _update(self, values: Tensor, gradient: Tensor, momentum: Tensor) -> None:
        """Update matrices of equal shape: (n, rows, columns) each."""
        momentum.lerp_(gradient, 1 - self._momentum)
        update = self.orthogonalize(gradient.lerp(momentum, self._momentum), self.dtype)
        rows, columns = values.shape[1:]
        if rows > columns:
            update *= (rows / columns) ** 0.5
        if self.weight_decay:
            update.add_(values, alpha=self.weight_decay)
        values.sub_(update.mul_(self._rate))

    def _stacked(self, vector: Tensor) -> Iterator[Tensor]:
        """Yield views of the matrices in a vector, (n, rows, columns) for each shape."""
        parts = vector.split([math.prod(shape) for shape in self._stacks])
        return (part.view(shape) for part, shape in zip(parts, self._stacks, strict=True))

    @classmethod
    def orthogonalize(cls, matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Bring all singular values to about 1 by Newton-Schulz iteration: (n, rows, columns).

        The products are of type `dtype`.
        """
        x = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp_min(1e-7)
        tall = x.shape[1] > x.shape[2]
        x = x.to(dtype).mT if tall else x.to(dtype)
        rows, columns = x.shape[1:]
        # Repeated on Gram matrices, errors of bfloat16 grow until they exceed the result.
        long = columns >= 2 * rows and dtype == torch.float32
        x = torch.bmm(cls._accumulate(torch.bmm(x, x.mT)), x) if long else cls._iterate(x)
        return (x.mT if tall else x).to(matrices.dtype)

    @classmethod
    def _iterate(cls, x: Tensor) -> Tensor:
        """Take all steps, x <- a x + b (x x') x + c (x x')² x, (n, rows, columns)."""
        a, b, c = cls.COEFFICIENTS
        for _ in range(cls.STEPS):
            gram = torch.bmm(x, x.mT)
            factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            x = torch.baddbmm(x, factor, x, beta=a)
        return x

    @classmethod
    def _accumulate(cls, gram: Tensor) -> Tensor:
        """Return the matrix by which all steps together multiply x, given x x': (n, rows, rows).

        A step multiplies x by the symmetric factor f = a I + b x x' + c (x x')², and so
        x x' by f on both sides. A long x itself is not needed until the end.
        """
        product = factor = cls._compute_factor(gram)
        for _ in range(cls.STEPS - 1):
            gram = torch.bmm(torch.bmm(factor, gram), factor)
            factor = cls._compute_factor(gram)
            product = torch.bmm(factor, product)
        return product

    @classmethod
    def _compute_factor(cls, gram: Tensor) -> Tensor:
        a, b, c = cls.COEFFICIENTS
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        return factor


def _get_shapes(values: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in values.items()}


def _find_decayed(config: TrainConfig, model: LanguageModel) -> list[nn.Parameter]:
    """Find the parameters with weight decay: all, or matrices only."""
    everything = config.weight_decay_on == "all"
    return [p for p in model.parameters() if everything or p.ndim > 1]


@dataclass(frozen=True)
class _MuonMatrix:
    """A matrix that Muon updates, as one or as several of its rows."""

    matrix: nn.Parameter
    shapes: list[torch.Size]


def _find_muon_matrices(config: TrainConfig, model: LanguageModel) -> list[_MuonMatrix]:
    """Find the weights that Muon updates: those of all hidden linear layers."""
    found = []
    for name, layer in hidden_layers(model):
        matrix = layer.get_parameter("weight")
        parts = count_parts(name) if config.muon_split_qkv else 1
        shape = torch.Size((matrix.shape[0] // parts, matrix.shape[1]))
        found.append(_MuonMatrix(matrix, [shape] * parts))
    return found


def _sort_by_shape(matrices: list[_MuonMatrix]) -> list[int]:
    """Return indices that make equal shapes adjacent, in order of first appearance."""
    shapes = [matrix.shapes[0] for matrix in matrices]
    return sorted(range(len(shapes)), key=lambda index: shapes.index(shapes[index]))
