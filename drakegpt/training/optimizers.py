"""What turns gradients into new weights.

    adamw  Loshchilov and Hutter 2019, with the original's betas, on all weights
    muon   Jordan et al. 2024 on the matrices inside the blocks, AdamW on the rest

Both work on the flat weights, so that a step is a handful of operations, and
take the learning rate from a tensor, so that a step can be recorded.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from drakegpt.config import TrainConfig
from drakegpt.models.layers import LanguageModel
from drakegpt.training.flat_params import FlatParameters

BETAS, EPSILON = (0.9, 0.95), 1e-8


class Optimizer:
    """Takes a step for all weights of a model; `weights` holds them and their gradient."""

    def __init__(self, config: TrainConfig, model: LanguageModel) -> None:
        """The parameters of `model`, which is on its device already, move into one vector."""
        matrices = _matrices(model) if config.optimizer == "muon" else []
        others = [p for p in _decayed(config, model) if not any(p is m for m in matrices)]
        order = _by_shape(matrices)
        by_shape = [matrices[index] for index in order]
        self.weights = FlatParameters(model, [*by_shape, *others])
        self._rate = torch.zeros((), device=self.weights.values.device)
        self._muon_rate = torch.zeros_like(self._rate)
        self._muon_ratio = config.muon_lr / config.max_lr
        self._muon = Muon(
            *self.weights.part(0, len(matrices)),
            [matrix.shape for matrix in by_shape],
            self._muon_rate,
            config.muon_momentum,
            config.weight_decay,
        )
        momenta = self._muon.momenta()
        self._momenta = [momenta[order.index(index)] for index in range(len(order))]  # the model's
        decayed = [*matrices, *others]
        parts = [self.weights.part(len(matrices), len(decayed)), self.weights.part(len(decayed))]
        self._adamw = [AdamW(*part, self._rate) for part in parts if part[0].numel()]
        self._decayed = self._adamw[: bool(others)]
        self.weight_decay = config.weight_decay

    @property
    def weight_decay(self) -> float:
        """Pull towards zero, of those weights that are pulled."""
        return self._muon.weight_decay

    @weight_decay.setter
    def weight_decay(self, decay: float) -> None:
        self._muon.weight_decay = decay
        for part in self._decayed:
            part.weight_decay = decay

    def set_learning_rate(self, rate: float) -> None:
        """Let the next steps use this rate; Muon's follows in proportion."""
        self._rate.fill_(rate)
        self._muon_rate.fill_(rate * self._muon_ratio)

    def step(self) -> None:
        """Change the weights by the gradient that lies in `weights.gradient`."""
        for part in self._adamw:
            part.step()
        if self._momenta:
            self._muon.step()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on but weights, gradient and learning rate."""
        moments = [
            {name: value.clone() for name, value in part.state.items()} for part in self._adamw
        ]
        return {"adamw": moments, "muon": [momentum.clone() for momentum in self._momenta]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; raises `ValueError` if it does not fit."""
        saved = state["adamw"]
        moments = [saved] if isinstance(saved, dict) else saved  # one part, in older states
        shapes = [momentum.shape for momentum in self._momenta]
        if [momentum.shape for momentum in state["muon"]] != shapes or [
            _shapes(values) for values in moments
        ] != [_shapes(part.state) for part in self._adamw]:
            raise ValueError("the optimizer's state belongs to another model or recipe")
        for part, values in zip(self._adamw, moments, strict=True):
            for name, value in values.items():
                part.state[name].copy_(value)
        for momentum, saved in zip(self._momenta, state["muon"], strict=True):
            momentum.copy_(saved)


class AdamW:
    """Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, on one vector of weights.

    The arithmetic is PyTorch's fused kernel; of `torch.optim.AdamW` around it
    nothing is needed here, and the compiler that it loads takes a second.
    """

    def __init__(self, weights: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """`weights` and `gradient`: (n,); `rate`: the learning rate, a scalar that may change."""
        self._weights, self._gradient, self._rate = weights, gradient, rate
        self.weight_decay = 0.0
        self.state = {
            "step": torch.zeros((), device=weights.device),
            "exp_avg": torch.zeros_like(weights),
            "exp_avg_sq": torch.zeros_like(weights),
        }

    @torch.no_grad()
    def step(self) -> None:
        """Change the weights by the gradient."""
        step, mean, square = self.state.values()
        adamw(
            [self._weights], [self._gradient], [mean], [square], [], [step],
            fused=True, capturable=self._rate.device.type == "cuda", amsgrad=False, maximize=False,
            lr=self._rate, beta1=BETAS[0], beta2=BETAS[1], eps=EPSILON,
            weight_decay=self.weight_decay,
        )  # fmt: skip


class Muon:
    """Momentum, orthogonalised: every direction of a matrix moves equally far.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. PyTorch's own
    multiplies in bfloat16, at which most CPUs are slow, and cannot be recorded;
    this one computes in float32 on a CPU, and in bfloat16 on a GPU. Matrices of
    one shape are multiplied together, as a stack: a model has few shapes.
    """

    # Steps of the iteration and its coefficients, as published.
    STEPS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)

    def __init__(
        self,
        matrices: Tensor,
        gradient: Tensor,
        shapes: list[torch.Size],
        rate: Tensor,
        momentum: float,
        weight_decay: float,
    ) -> None:
        """`matrices` and `gradient`: one vector each; equal `shapes` lie side by side."""
        self._values, self._gradient = matrices, gradient
        self._rate, self._momentum, self.weight_decay = rate, momentum, weight_decay
        self._all_momenta = torch.zeros_like(self._values)
        self._stacks = [(shapes.count(shape), *shape) for shape in dict.fromkeys(shapes)]

    def momenta(self) -> list[Tensor]:
        """The momentum of each matrix, (rows, columns), in the order given; views."""
        return [momentum for stack in self._stacked(self._all_momenta) for momentum in stack]

    @torch.no_grad()
    def step(self) -> None:
        """W -= rate * (sqrt(max(1, rows / columns)) * orthogonal(momentum) + decay * W)."""
        self._all_momenta.lerp_(self._gradient, 1 - self._momentum)
        update = self._gradient.lerp(self._all_momenta, self._momentum)
        for stack in self._stacked(update):
            stack.copy_(self.orthogonal(stack))
            rows, columns = stack.shape[1:]
            if rows > columns:
                stack *= (rows / columns) ** 0.5
        if self.weight_decay:
            update.add_(self._values, alpha=self.weight_decay)
        self._values.sub_(update.mul_(self._rate))

    def _stacked(self, vector: Tensor) -> Iterator[Tensor]:
        """The matrices in a vector as one view (n, rows, columns) for each shape."""
        parts = vector.split([math.prod(shape) for shape in self._stacks])
        return (part.view(shape) for part, shape in zip(parts, self._stacks, strict=True))

    @classmethod
    def orthogonal(cls, matrices: Tensor) -> Tensor:
        """Bring all singular values to about 1, after Newton and Schulz: (n, rows, columns)."""
        a, b, c = cls.COEFFICIENTS
        x = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp_min(1e-7)
        if x.device.type == "cuda":
            x = x.bfloat16()
        tall = x.shape[1] > x.shape[2]
        for _ in range(cls.STEPS):
            # The products of the shorter side, symmetric; nothing is ever transposed in memory.
            gram = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)
            factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            x = torch.baddbmm(x, *((x, factor) if tall else (factor, x)), beta=a)
        return x.to(matrices.dtype)


def _shapes(values: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in values.items()}


def _decayed(config: TrainConfig, model: LanguageModel) -> list[nn.Parameter]:
    """The weights that are pulled towards zero: all, or all but norms and biases."""
    everything = config.weight_decay_on == "all"
    return [p for p in model.parameters() if everything or p.ndim > 1]


def _matrices(model: LanguageModel) -> list[nn.Parameter]:
    """The weights of all linear layers but the last, which reads the scores off."""
    return [
        layer.get_parameter("weight")
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name != "head"
    ]


def _by_shape(matrices: list[nn.Parameter]) -> list[int]:
    """Their indices, those of equal shapes side by side, shapes as they first appear."""
    shapes = [matrix.shape for matrix in matrices]
    return sorted(range(len(shapes)), key=lambda index: shapes.index(shapes[index]))
