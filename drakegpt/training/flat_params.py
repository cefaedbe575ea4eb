"""All weights of a model in one long vector, and their gradient in another.

The model's parameters become views into the vector, so nothing changes for the
model; but what concerns all weights alike, an optimizer's step, the norm of the
gradient, the mean over several processes, is one operation instead of dozens.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from drakegpt.compute.kernels import use_triton_norms_
from drakegpt.models.layers import LanguageModel


class FlatParameters:
    """The parameters of `model`, moved into `values`; gradients belong into `gradient`."""

    def __init__(self, model: nn.Module, first: Iterable[nn.Parameter] = ()) -> None:
        """Parameters in `first` come first, then the others, in the order of the model."""
        ahead = list(first)
        known = {id(parameter) for parameter in ahead}
        self.parameters = [
            *ahead,
            *(parameter for parameter in model.parameters() if id(parameter) not in known),
        ]
        self.values = torch.cat([p.detach().flatten() for p in self.parameters])
        self.gradient = torch.zeros_like(self.values)
        self._gradients: list[Tensor] = []
        start = 0
        for parameter in self.parameters:
            place = slice(start, start + parameter.numel())
            parameter.data = self.values[place].view_as(parameter)
            self._gradients.append(self.gradient[place].view_as(parameter))
            start = place.stop

    def set_gradient(self, loss: Tensor) -> None:
        """The derivative of `loss`, a scalar, with respect to all weights, into `gradient`."""
        gradients = torch.autograd.grad(loss, self.parameters)
        torch._foreach_copy_(self._gradients, list(gradients))

    def add_gradient(self, loss: Tensor) -> None:
        """Add the derivative of `loss` to `gradient`."""
        gradients = torch.autograd.grad(loss, self.parameters)
        torch._foreach_add_(self._gradients, list(gradients))

    def part(self, start: int, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """Parameters `start` to `stop` and their gradient, a vector each."""
        sizes = [parameter.numel() for parameter in self.parameters]
        place = slice(sum(sizes[:start]), sum(sizes[:stop]))
        return self.values[place], self.gradient[place]


class WorkingCopy:
    """A copy of a model that computes in its stead: in another number format, or compiled.

    The weights that learn stay in float32, for steps are smaller than bfloat16
    can tell apart; the copy takes them over before it computes, and gives its
    gradient back.
    """

    def __init__(
        self,
        model: LanguageModel,
        weights: FlatParameters,
        dtype: torch.dtype,
        *,
        quick_norms: bool = False,
    ) -> None:
        """`weights` are those of `model`; with `quick_norms`, its norms are those of `kernels`."""
        self.model = copy.deepcopy(model).to(dtype)
        if quick_norms:
            use_triton_norms_(self.model)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        copies = dict(self.model.named_parameters())
        order = [copies[names[id(parameter)]] for parameter in weights.parameters]
        self._weights, self._copied = weights, FlatParameters(self.model, order)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the weights as they are now."""
        self._copied.values.copy_(self._weights.values)

    def set_gradient(self, loss: Tensor) -> None:
        """The derivative of `loss`, a scalar, with respect to all weights, into their gradient."""
        self._copied.set_gradient(loss)
        self._weights.gradient.copy_(self._copied.gradient)

    def add_gradient(self, loss: Tensor) -> None:
        """Add the derivative of `loss` to the gradient of the weights, in float32."""
        self._copied.set_gradient(loss)
        self._weights.gradient += self._copied.gradient
