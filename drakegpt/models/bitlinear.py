"""Quantization-aware training: linear layers with weights of 1.58 bits or one bit.

In training, each product is computed as the finished model will compute it: weights
-1, 0, 1 (or -1, 1) times one scale, activations integers from -127 to 127 with one
scale per token. The trained weights stay in full precision, and gradients ignore the
rounding (the straight-through estimator, Bengio et al. 2013, arXiv 1308.3432).

`quantize_` replaces all linear layers of a model except `head`; embeddings and norms
stay as they are. Norms follow SubLN (arXiv 2310.11453): a block keeps its norms, and
`projection` and `narrow`, which have none, get a layer norm.

Not here: storing the weights in few bits and computing with integers; see
`packed_linear`. Both give bit-identical results, because all sums here are sums of
integers below 2^24, which float32 holds exactly.

Shapes: N rows (outputs) and K columns (inputs) of a weight, P parts of its rows.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from drakegpt.compute import kernels
from drakegpt.models.layers import Linear, hidden_layers

Bits = Literal["1.58", "1"]

# Means and maxima that scales come from are at least this: all zeros divide nothing by zero.
MIN_SCALE = 1e-5
# The largest code of an activation of 8 bits.
MAX_CODE = 127

# --- Rounding -----------------------------------------------------------------------------------


def quantize_ternary(weight: Tensor, parts: int = 1) -> tuple[Tensor, Tensor]:
    """Quantize weights (N, K) to codes -1, 0, 1 (N, K) and the scale of each part (P,).

    scale = max(mean |W|, 1e-5) and codes = clip(round(W / scale), -1, 1): the
    absmean function of BitNet b1.58, arXiv 2402.17764, section 2. Codes have the
    dtype of the weights; their derivative is 1 / scale, everywhere.
    """
    groups = weight.view(parts, -1)
    scales = groups.detach().abs().mean(1, True).clamp_min(MIN_SCALE)
    ratios = groups / scales
    codes = _straight_through(ratios, ratios.detach().round().clamp_(-1, 1))
    return codes.view_as(weight), scales.flatten()


def quantize_binary(weight: Tensor, parts: int = 1) -> tuple[Tensor, Tensor]:
    """Quantize weights (N, K) to codes -1, 1 (N, K) and the scale of each part (P,).

    codes = sign(W - mean W) with sign(0) = 1, scale = max(mean |W|, 1e-5): BitNet,
    arXiv 2310.11453, equations 1 to 3 and 12. The derivative is 1 / scale.
    """
    groups = weight.view(parts, -1)
    values = groups.detach()
    scales = values.abs().mean(1, True).clamp_min(MIN_SCALE)
    rounded = (values >= values.mean(1, True)) * 2.0 - 1.0
    codes = _straight_through(groups / scales, rounded.to(weight.dtype))
    return codes.view_as(weight), scales.flatten()


def quantize_weight(weight: Tensor, bits: Bits, parts: int = 1) -> tuple[Tensor, Tensor]:
    """Quantize weights (N, K) to codes (N, K) and scales (P,) of the given bits."""
    return quantize_ternary(weight, parts) if bits == "1.58" else quantize_binary(weight, parts)


def quantize_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize activations (..., K) to integers (..., K) and the scale of each token (..., 1).

    s = 127 / max(max |x|, 1e-5) and codes = round(x s), so that x is about
    codes / s: arXiv 2402.17764, section 2, and 2310.11453, equation 4. They also clip
    to -128 and 127, which these codes never exceed.
    """
    largest = x.detach().abs().amax(-1, keepdim=True)
    scales = MAX_CODE / largest.clamp_min(MIN_SCALE)
    scaled = x * scales
    return _straight_through(scaled, scaled.detach().round()), scales


def rescale(product: Tensor, token: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """Dequantize a product of codes: product * scale / s + bias, arXiv 2310.11453, eq. 11.

    `product` (..., N); `token` (..., 1), the scale s of each token; `scales` (P,), each
    for N / P outputs; `bias` (N,) or none. Returns (..., N).
    """
    factors = (scales / token).unsqueeze(-1)  # (..., P, 1)
    rescaled = (product.unflatten(-1, (len(scales), -1)) * factors).flatten(-2)
    return rescaled if bias is None else rescaled + bias


def _straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """Return `rounded` with the gradient of `x`: x + (rounded - x).detach(), but exact."""
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
    """A linear layer that multiplies quantized activations by quantized weights.

    `parts`: the number of equal parts of the rows; each has its own scale, as if it
    were a layer of its own. With `normed`, a layer norm comes first.
    """

    def __init__(self, linear: nn.Linear, bits: Bits, parts: int = 1, *, normed: bool) -> None:
        """Use the weight and the bias of `linear` itself, not copies."""
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.bits: Bits = bits
        self.parts = parts
        norm = nn.LayerNorm(linear.in_features).to(linear.weight) if normed else nn.Identity()
        self.norm: nn.Module = norm

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        activations, token = quantize_activations(self.norm(x))
        weight, scales = self.quantize()
        return rescale(kernels.linear(activations, weight, None), token, scales, self.bias)

    def quantize(self) -> tuple[Tensor, Tensor]:
        """Quantize the current weights to codes (N, K) and scales (P,)."""
        return quantize_weight(self.weight, self.bits, self.parts)


# --- Replacing layers ---------------------------------------------------------------------------


def quantize_(model: nn.Module, bits: Bits) -> nn.Module:
    """Replace the hidden linear layers of `model` by `BitLinear`, in place; return `model`.

    The weights are kept. Call it before making an optimizer, because norms are added.
    Raises `ValueError` if there are no such layers, or for other bits.
    """
    if bits not in ("1.58", "1"):
        raise ValueError(f"bits must be 1.58 or 1, not {bits}")
    for name, linear in find_quantizable(model):
        layer = BitLinear(linear, bits, count_parts(name), normed=needs_norm(name))
        model.set_submodule(name, layer.train(linear.training))
    return model


def find_quantizable(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Return names and modules of the hidden linear layers; `ValueError` if there are none."""
    layers = hidden_layers(model)
    found = [(name, layer) for name, layer in layers if not isinstance(layer, BitLinear)]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no linear layers in full precision other than its head"
        )
    return found


def count_parts(name: str) -> int:
    """Return how many scales the layer `name` has: one each for queries, keys and values."""
    return 3 if name.endswith("query_key_value") else 1


def needs_norm(name: str) -> bool:
    """Return whether the layer `name` gets a layer norm when quantized."""
    return name.endswith(("projection", "narrow"))
