"""Linear layers whose weights are worth 1.58 bits or one, and that learn to live with it.

While such a model trains, each product is computed as the finished model will
compute it: weights -1, 0, 1 (or only -1, 1) with one scale, activations whole
numbers from -127 to 127 with one scale per token. The weights that learn stay
in full precision; gradients pass them as if nothing had been rounded (the
straight-through estimator of Bengio et al. 2013, arXiv 1308.3432).

`quantize_` puts these layers into a model; the model knows nothing of it. Only
linear layers other than `head` are replaced: embeddings, norms and the layer
that reads the scores off stay as they are. One layout of norms, that of SubLN
(arXiv 2310.11453): a block's norms stay where they are, and one more layer norm
comes in front of `projection` and of `narrow`, which have none.

Not here: storing such weights in few bits and computing without floats, which
is in `packed`. Both give the same numbers to the last bit, because all sums
here are sums of whole numbers below 2^24, which float32 holds exactly.

Shapes: N rows (outputs) and K columns (inputs) of a weight, P parts of its rows.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from drakegpt.compute import kernels
from drakegpt.models.layers import Linear

Bits = Literal["1.58", "1"]

# No scale is smaller, so that weights or activations that are all zero divide nothing by zero.
FLOOR = 1e-5
# The largest whole number that an activation of 8 bits takes.
LARGEST = 127

# --- Rounding -----------------------------------------------------------------------------------


def quantize_ternary(weight: Tensor, parts: int = 1) -> tuple[Tensor, Tensor]:
    """Weights (N, K) to codes -1, 0, 1 (N, K) and the scale of each part (P,).

    scale = max(mean |W|, 1e-5) and codes = clip(round(W / scale), -1, 1): the
    absmean function of BitNet b1.58, arXiv 2402.17764, section 2. Codes are of
    the weights' type; their derivative is 1 / scale, everywhere.
    """
    groups = weight.view(parts, -1)
    scales = groups.detach().abs().mean(1, True).clamp_min(FLOOR)
    ratios = groups / scales
    codes = _straight_through(ratios, ratios.detach().round().clamp_(-1, 1))
    return codes.view_as(weight), scales.flatten()


def quantize_binary(weight: Tensor, parts: int = 1) -> tuple[Tensor, Tensor]:
    """Weights (N, K) to codes -1, 1 (N, K) and the scale of each part (P,).

    codes = sign(W - mean W) with sign(0) = 1, scale = max(mean |W|, 1e-5): BitNet,
    arXiv 2310.11453, equations 1 to 3 and 12. The derivative is 1 / scale.
    """
    groups = weight.view(parts, -1)
    values = groups.detach()
    scales = values.abs().mean(1, True).clamp_min(FLOOR)
    rounded = (values >= values.mean(1, True)) * 2.0 - 1.0
    codes = _straight_through(groups / scales, rounded.to(weight.dtype))
    return codes.view_as(weight), scales.flatten()


def quantize_weight(weight: Tensor, bits: Bits, parts: int = 1) -> tuple[Tensor, Tensor]:
    """Codes (N, K) and scales (P,) in so many bits: `quantize_ternary` or `quantize_binary`."""
    return quantize_ternary(weight, parts) if bits == "1.58" else quantize_binary(weight, parts)


def quantize_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Activations (..., K) to whole numbers (..., K) and the scale of each token (..., 1).

    s = 127 / max(max |x|, 1e-5) and codes = round(x s), so that x = codes / s
    nearly: arXiv 2402.17764, section 2, and 2310.11453, equation 4. Clipping to
    -128 and 127, as written there, is left out, for nothing comes that far.
    """
    largest = x.detach().abs().amax(-1, keepdim=True)
    scales = LARGEST / largest.clamp_min(FLOOR)
    scaled = x * scales
    return _straight_through(scaled, scaled.detach().round()), scales


def rescale(product: Tensor, token: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """What a product of codes stands for: product * scale / s + bias, arXiv 2310.11453, eq. 11.

    `product` (..., N), `token` (..., 1) and `scales` (P,), which divide the
    outputs evenly, `bias` (N,) or none. Returns (..., N).
    """
    factors = (scales / token).unsqueeze(-1)  # (..., P, 1)
    rescaled = (product.unflatten(-1, (len(scales), -1)) * factors).flatten(-2)
    return rescaled if bias is None else rescaled + bias


def _straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """The values of `rounded` with the gradient of `x`: x + (rounded - x).detach(), exactly."""
    if not x.requires_grad:
        return rounded
    result: Tensor = _StraightThrough.apply(x, rounded)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, rounded: Tensor) -> Tensor:  # noqa: ARG004
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ARG004
        return grads[0], None


# --- The layer ----------------------------------------------------------------------------------


class BitLinear(Linear):
    """A linear layer that multiplies rounded activations with rounded weights.

    `parts`: the rows are cut into so many equal parts, each with its own scale,
    as if they were as many layers. With `normed`, a layer norm comes first.
    """

    def __init__(self, linear: nn.Linear, bits: Bits, parts: int = 1, *, normed: bool) -> None:
        """Takes over the weight and the bias of `linear`."""
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.bits: Bits = bits
        self.parts = parts
        norm = nn.LayerNorm(linear.in_features).to(linear.weight) if normed else nn.Identity()
        self.norm: nn.Module = norm

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        activations, token = quantize_activations(self.norm(x))
        weight, scales = self.quantized_weight()
        return rescale(kernels.linear(activations, weight, None), token, scales, self.bias)

    def quantized_weight(self) -> tuple[Tensor, Tensor]:
        """The codes (N, K) and scales (P,) that the weights now stand for."""
        return quantize_weight(self.weight, self.bits, self.parts)


# --- Putting it in place ------------------------------------------------------------------------


def quantize_(model: nn.Module, bits: Bits) -> nn.Module:
    """Replace the linear layers of `model` in place, keeping their weights; returns `model`.

    To be called before the optimizer takes hold of the weights: norms are added.
    Raises `ValueError` if there is nothing to replace, or no such rounding.
    """
    if bits not in ("1.58", "1"):
        raise ValueError(f"there are no weights of {bits} bits")
    for name, linear in find_quantizable(model):
        layer = BitLinear(linear, bits, count_parts(name), normed=needs_norm(name))
        model.set_submodule(name, layer.train(linear.training))
    return model


def find_quantizable(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The linear layers other than `head` by name; raises `ValueError` if there are none."""
    found = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and not isinstance(layer, BitLinear) and name != "head"
    ]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no linear layers in full precision other than its head"
        )
    return found


def count_parts(name: str) -> int:
    """Into how many parts the rows of the layer `name` are cut: queries, keys, values apart."""
    return 3 if name.endswith("query_key_value") else 1


def needs_norm(name: str) -> bool:
    """Whether the layer `name` gets a layer norm of its own."""
    return name.endswith(("projection", "narrow"))
