"""All weights of a model in one long vector, and their gradient in another.

The model's parameters become views into the vector, so nothing changes for the
model; but what concerns all weights alike, an optimizer's step, the norm of the
gradient, the mean over several processes, is one operation instead of dozens.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class FlatWeights:
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

    def part(self, start: int, stop: int | None = None) -> nn.Parameter:
        """Parameters `start` to `stop` as one vector with its gradient, for an optimizer."""
        sizes = [parameter.numel() for parameter in self.parameters]
        place = slice(sum(sizes[:start]), sum(sizes[:stop]))
        vector = nn.Parameter(self.values[place])
        vector.grad = self.gradient[place]
        return vector
