"""What turns gradients into new weights.

    adamw  Loshchilov and Hutter 2019, with the original's betas, on all weights
    muon   Jordan et al. 2024 on the matrices inside the blocks, AdamW on the rest

Both work on the flat weights, so that a step is a handful of operations, and
take the learning rate from a tensor, so that a step can be recorded.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from drakegpt.config import TrainConfig
from drakegpt.models.layers import LanguageModel
from drakegpt.training.weights import FlatWeights

BETAS = (0.9, 0.95)


class Optimizer:
    """Takes a step for all weights of a model; `weights` holds them and their gradient."""

    def __init__(self, config: TrainConfig, model: LanguageModel) -> None:
        """The parameters of `model`, which is on its device already, move into one vector."""
        stacks = _stacks(model) if config.optimizer == "muon" else []
        matrices = [parameter for stack in stacks for parameter in stack]
        self.weights = FlatWeights(model, matrices)
        self._rate = torch.zeros((), device=self.weights.values.device)
        self._muon_rate = torch.zeros_like(self._rate)
        self._muon_ratio = config.muon_lr / config.max_lr
        self._muon = Muon(self.weights, stacks, self._muon_rate, config.weight_decay)
        rest = self.weights.part(len(matrices))
        self._adamw = AdamW(
            [rest], lr=self._rate, betas=BETAS, weight_decay=config.weight_decay, fused=True
        )

    def set_learning_rate(self, rate: float) -> None:
        """Let the next steps use this rate; Muon's follows in proportion."""
        self._rate.fill_(rate)
        self._muon_rate.fill_(rate * self._muon_ratio)

    def step(self) -> None:
        """Change the weights by the gradient that lies in `weights.gradient`."""
        self._adamw.step()
        self._muon.step()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on but weights, gradient and learning rate."""
        moments = {
            name: value.clone()
            for state in self._adamw.state.values()
            for name, value in state.items()
        }
        return {"adamw": moments, "muon": [momentum.clone() for momentum in self._muon.momenta]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; raises `ValueError` if it does not fit."""
        (rest,) = self._adamw.param_groups[0]["params"]
        moments = {name: value.clone() for name, value in state["adamw"].items()}
        shapes = [momentum.shape for momentum in self._muon.momenta]
        if [momentum.shape for momentum in state["muon"]] != shapes or any(
            value.shape not in ((), rest.shape) for value in moments.values()
        ):
            raise ValueError("the optimizer's state belongs to another model or recipe")
        device = rest.device
        self._adamw.state[rest] = {name: value.to(device) for name, value in moments.items()}
        for momentum, saved in zip(self._muon.momenta, state["muon"], strict=True):
            momentum.copy_(saved)


class Muon:
    """Momentum, orthogonalised: every direction of a matrix moves equally far.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. PyTorch's own
    takes the matrices one by one and in bfloat16, which a CPU without such units
    is slow at; this one takes all matrices of a shape at once, in float32.
    """

    # Momentum, steps of the iteration and its coefficients, as published.
    MOMENTUM, STEPS, COEFFICIENTS = 0.95, 5, (3.4445, -4.7750, 2.0315)

    def __init__(
        self,
        weights: FlatWeights,
        stacks: list[list[nn.Parameter]],
        rate: Tensor,
        weight_decay: float,
    ) -> None:
        """`stacks`: the first parameters of `weights`, matrices grouped by their shape."""
        self._rate, self._weight_decay = rate, weight_decay
        self._matrices: list[tuple[Tensor, Tensor]] = []
        start = 0
        for stack in stacks:
            part = weights.part(start, start + len(stack))
            shape = (len(stack), *stack[0].shape)
            assert part.grad is not None
            self._matrices.append((part.detach().view(shape), part.grad.view(shape)))
            start += len(stack)
        self.momenta = [torch.zeros_like(values) for values, _ in self._matrices]

    @torch.no_grad()
    def step(self) -> None:
        """W -= rate * (sqrt(max(1, rows / columns)) * orthogonal(momentum) + decay * W)."""
        for (values, gradient), momentum in zip(self._matrices, self.momenta, strict=True):
            momentum.lerp_(gradient, 1 - self.MOMENTUM)
            update = self.orthogonal(gradient.lerp(momentum, self.MOMENTUM))
            rows, columns = values.shape[-2:]
            update *= max(1, rows / columns) ** 0.5
            if self._weight_decay:
                update.add_(values, alpha=self._weight_decay)
            values.sub_(update.mul_(self._rate))

    @classmethod
    def orthogonal(cls, matrices: Tensor) -> Tensor:
        """Singular values to about 1 by Newton and Schulz: (n, rows, columns), same shape."""
        a, b, c = cls.COEFFICIENTS
        tall = matrices.shape[-2] > matrices.shape[-1]
        x = matrices.transpose(1, 2) if tall else matrices
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
        for _ in range(cls.STEPS):
            gram = torch.bmm(x, x.transpose(1, 2))
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.transpose(1, 2) if tall else x


def _stacks(model: LanguageModel) -> list[list[nn.Parameter]]:
    """The matrices of all linear layers but the last, those of a shape together."""
    stacks: dict[torch.Size, list[nn.Parameter]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name != "head":
            stacks.setdefault(layer.weight.shape, []).append(layer.weight)
    return list(stacks.values())
