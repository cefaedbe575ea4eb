"""All parameters of a model in one flat vector, and their gradient in another.

The model's parameters become views of the vector. What treats all parameters alike (an
optimizer's step, the norm of the gradient, its mean over processes) is then one
operation instead of dozens.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor, nn

from drakegpt.compute.kernels import use_triton_norms_
from drakegpt.models.layers import LanguageModel


class FlatParameters:
    """The parameters of a model as views of `values`, and their `gradient`, both (n,)."""

    def __init__(self, model: nn.Module, leading: Iterable[nn.Parameter] = ()) -> None:
        """Move the parameters of `model`: those in `leading` first, then the others."""
        leading = list(leading)
        known = {id(parameter) for parameter in leading}
        self.parameters = [
            *leading,
            *(parameter for parameter in model.parameters() if id(parameter) not in known),
        ]
        self.values = torch.cat([p.detach().flatten() for p in self.parameters])
        start = 0
        for parameter in self.parameters:
            place = slice(start, start + parameter.numel())
            parameter.data = self.values[place].view_as(parameter)
            start = place.stop
        self._make_gradient()

    def _make_gradient(self) -> None:
        self.gradient = torch.zeros_like(self.values)
        parts = self.gradient.split([parameter.numel() for parameter in self.parameters])
        self._gradients = [
            part.view_as(parameter) for part, parameter in zip(parts, self.parameters, strict=True)
        ]

    def with_own_gradient(self) -> Self:
        """Return the same parameters with another gradient, for another thread."""
        other = copy.copy(self)
        other._make_gradient()
        return other

    def set_gradient(self, loss: Tensor) -> None:
        """Write the gradient of `loss`, a scalar, to `gradient`."""
        gradients = torch.autograd.grad(loss, self.parameters)
        torch._foreach_copy_(self._gradients, list(gradients))

    def add_gradient(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to `gradient`."""
        gradients = torch.autograd.grad(loss, self.parameters)
        torch._foreach_add_(self._gradients, list(gradients))

    def clip_gradient(self, norm: float) -> None:
        """Scale the gradient down to this norm if it is longer; 0 leaves it as it is."""
        if norm:
            self.gradient *= (norm / (self.gradient.norm() + 1e-6)).clamp(max=1.0)

    def get_slice(self, start: int, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """Return parameters `start` to `stop` and their gradient, as vectors."""
        sizes = [parameter.numel() for parameter in self.parameters]
        place = slice(sum(sizes[:start]), sum(sizes[:stop]))
        return self.values[place], self.gradient[place]


class AveragedWeights:
    """An exponential moving average of all parameters, from the initial ones on.

    As `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn`, but on flat
    parameters, as one operation, and without a second model.
    """

    def __init__(self, weights: FlatParameters, decay: float) -> None:
        """`decay`: the share of the average that each update keeps."""
        self._values, self._decay = weights.values, decay
        self.average = self._values.clone()

    @torch.no_grad()
    def update(self) -> None:
        """Compute average = decay * average + (1 - decay) * weights, in place."""
        self.average.lerp_(self._values, 1 - self._decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Let the model have the averaged weights within a `with` statement."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and their average, in place."""
        values = self._values.clone()
        self._values.copy_(self.average)
        self.average.copy_(values)


class WorkingCopy:
    """A copy of a model that computes in another dtype, or compiled.

    The master weights stay in float32, because updates are smaller than the precision
    of bfloat16. They are copied here before each step, and the gradient is copied back.
    """

    def __init__(
        self,
        model: LanguageModel,
        weights: FlatParameters,
        dtype: torch.dtype,
        *,
        triton_norms: bool = False,
    ) -> None:
        """`weights`: those of `model`; `triton_norms`: use the layer norm of `kernels`."""
        self.model = copy.deepcopy(model).to(dtype)
        if triton_norms:
            use_triton_norms_(self.model)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        copies = dict(self.model.named_parameters())
        order = [copies[names[id(parameter)]] for parameter in weights.parameters]
        self._weights, self._copied = weights, FlatParameters(self.model, order)

    def with_own_gradient(self) -> Self:
        """Return the same copy with another gradient, for another thread."""
        other = copy.copy(self)
        other._weights = self._weights.with_own_gradient()
        other._copied = self._copied.with_own_gradient()
        return other

    @property
    def gradient(self) -> Tensor:
        """The gradient of the master weights, (n,), in float32."""
        return self._weights.gradient

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the current master weights."""
        self._copied.values.copy_(self._weights.values)

    def set_gradient(self, loss: Tensor) -> None:
        """Write the gradient of `loss`, a scalar, to that of the master weights."""
        self._copied.set_gradient(loss)
        self._weights.gradient.copy_(self._copied.gradient)

    def add_gradient(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to that of the master weights, in float32."""
        self._copied.set_gradient(loss)
        self._weights.gradient += self._copied.gradient
