"""Weights of 8, 1.58 and one bit: stored in as few bytes, multiplied as whole numbers.

On disk, five weights of -1, 0, 1 share a byte (3^5 = 243), or eight signs do,
or each has a byte of its own. In memory a weight is an int8: they are unpacked
once, when they are loaded, and never turned into floats. (On an NVIDIA GPU what
counts for few rows is how few kernels are launched: after its norm a layer is one,
of `packed_kernels`. Many rows, and all where Triton is missing, are multiplied as
bfloat16, which holds these whole numbers exactly: PyTorch's products of int8 take
not every shape there.)

A layer rounds its activations to 8 bits per token, multiplies int8 by int8 into
int32 (`torch._int_mm`: oneDNN with VNNI), and scales the result. Why this form:
the 24 products of the scaled model, all of its linear layers but the head, with
all that belongs around them, in milliseconds, one by one and played from a tape
(PyTorch 2.13, one thread of an AMD EPYC with AVX-512 VNNI and bfloat16):

    rows at once                      1            32         2048
                                       tape           tape
    float32                       2.10  2.10    4.98  4.74     171
    bfloat16                      1.63  1.79    2.84  3.10     100
    this layer                    0.86  0.50    2.27  2.19      99
      of which `_int_mm`          0.34  0.31    1.42  1.36      43
    `_weight_int4pack_mm`, bf16   0.45  0.57    3.99  4.33     257
    `_weight_int8pack_mm`, bf16   0.36  0.52    4.66  5.16     292

The last two are as quick for one row and slower than plain bfloat16 for more,
and they round what they read and return to bfloat16; `_int_mm` is exact. For a
model of width 32 none of them pays: there rounding costs more than products.

Not here: training. A packed model computes, and learns nothing more.

Shapes: N rows (outputs) and K columns (inputs) of a weight, P parts of its rows.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drakegpt.errors import is_out_of_memory
from drakegpt.models.bitlinear import (
    FLOOR,
    LARGEST,
    BitLinear,
    count_parts,
    find_quantizable,
    needs_norm,
    quantize_activations,
    quantize_weight,
    rescale,
)

log = logging.getLogger(__name__)

PackedBits = Literal["8", "1.58", "1"]

# Weights that share a byte, and how many values each of them can have.
PER_BYTE: dict[PackedBits, int] = {"8": 1, "1.58": 5, "1": 8}
LEVELS: dict[PackedBits, int] = {"8": 256, "1.58": 3, "1": 2}


@dataclass(frozen=True)
class Packing:
    """How a model's weights are packed."""

    bits: PackedBits
    trained: bool  # with so few bits, or rounded after training


# Products of so many pairs of int8 add up to less than 2^24, below which float32 is exact; of an
# int8 and a weight of fewer bits, so many.
EXACT = 1024
EXACT_FEW_BITS = 2**24 // LARGEST

# --- Bytes --------------------------------------------------------------------------------------


def pack_bytes(codes: Tensor, bits: PackedBits) -> Tensor:
    """Codes of any shape, int8, to bytes, uint8 (`packed_length(count, bits)`,).

    A weight is one digit of a byte written in base 3 or 2, the first the lowest;
    digits 0, 1, 2 are the codes -1, 0, 1, and digits 0, 1 are -1, 1. What is
    missing to a whole byte is merge_layers with zeros. 8 bits stay as they are.
    """
    if bits == "8":
        return codes.flatten().view(torch.uint8)
    digits = codes.flatten() + 1 if bits == "1.58" else codes.flatten() > 0
    digits = F.pad(digits.to(torch.uint8), (0, -codes.numel() % PER_BYTE[bits]))
    powers = _powers(bits).to(codes.device)
    return (digits.view(-1, PER_BYTE[bits]) * powers).sum(1, dtype=torch.uint8)


def unpack_bytes(packed: Tensor, bits: PackedBits, shape: tuple[int, ...]) -> Tensor:
    """The codes, int8 in `shape`, that `pack_bytes` made these bytes of.

    Raises `ValueError` if it cannot have been these bytes.
    """
    count = torch.Size(shape).numel()
    expected = count_packed_bytes(count, bits)
    if packed.dtype != torch.uint8 or packed.shape != (expected,):
        found = f"{tuple(packed.shape)} of {packed.dtype}"
        raise ValueError(f"{count} weights of {bits} bits are {expected} bytes, not {found}")
    if bits == "8":
        return packed.view(torch.int8).view(shape)
    codes = _codes(bits).to(packed.device)
    largest = int(packed.max()) if count else 0
    if largest >= len(codes):
        raise ValueError(f"byte {largest} is above {len(codes) - 1}, the last of five weights")
    return codes.index_select(0, packed.int()).flatten()[:count].view(shape)


def count_packed_bytes(count: int, bits: PackedBits) -> int:
    """The bytes that `count` weights take."""
    return -(-count // PER_BYTE[bits])


def _powers(bits: PackedBits) -> Tensor:
    return (LEVELS[bits] ** torch.arange(PER_BYTE[bits])).to(torch.uint8)


def _codes(bits: PackedBits) -> Tensor:
    """What every byte there can be stands for, int8: (243, 5) or (256, 8)."""
    every = torch.arange(LEVELS[bits] ** PER_BYTE[bits])
    digits = every[:, None] // _powers(bits) % LEVELS[bits]
    return (digits - 1 if bits == "1.58" else 2 * digits - 1).to(torch.int8)


# --- The layer ----------------------------------------------------------------------------------


def multiply_integers(x: Tensor, weight: Tensor) -> Tensor:
    """X @ weight.T in whole numbers: int8 (M, K), int8 (N, K) -> (M, N), exact.

    `torch._int_mm` reads the strides of its arguments even in a dimension of
    size one, where they mean nothing, and where PyTorch sets them as it likes:
    with a stride of 0 it returns garbage. So they get those of a dense matrix;
    and a single column, for which no strides are safe, is multiplied by hand.
    Elsewhere than on a CPU its conditions cannot be met for few rows (NVIDIA's GPUs
    have `bfloat16_product`), and on a CPU without VNNI it adds pairs of products in
    16 bits, which overflow: there it is a product of floats, exact because a part
    of K at a time is summed.
    """
    if x.shape[1] == 1:
        return x.int() * weight.t()
    if x.device.type == "cpu" and _adds_up():
        return torch._int_mm(_dense(x), _dense(weight).t())
    parts = zip(x.split(EXACT, dim=1), weight.split(EXACT, dim=1), strict=True)
    return sum((some.float() @ of.float().t()).int() for some, of in parts)


def bfloat16_product(x: Tensor, weight: Tensor, exact: int) -> Tensor:
    """X @ weight.T of whole numbers in bfloat16, on a GPU: (M, K), (N, K) -> (M, N), exact.

    Products are summed in float32, and `exact` of them without rounding. Where there
    are more, parts are summed as int32.
    """
    parts = [
        _summed_in_float32(some, of)
        for some, of in zip(x.split(exact, dim=1), weight.split(exact, dim=1), strict=True)
    ]
    return parts[0] if len(parts) == 1 else sum((part.int() for part in parts[1:]), parts[0].int())


def _summed_in_float32(x: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(x, weight.t(), out_dtype=torch.float32)


def bfloat16_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """What `quantize_activations` returns, the codes in bfloat16, in few kernels; no gradient."""
    largest = torch.linalg.vector_norm(x, torch.inf, -1, keepdim=True)
    scales = LARGEST / largest.clamp_min_(FLOOR)
    return (x * scales).round_().to(torch.bfloat16), scales


@cache
def _adds_up() -> bool:
    """Whether this CPU multiplies int8 without overflow, tried with the largest numbers."""
    largest = torch.full((8, 64), LARGEST, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest.t()) == 64 * LARGEST**2).all())


def _dense(matrix: Tensor) -> Tensor:
    """The same matrix, row after row, with strides that say so whatever its size."""
    return matrix.contiguous().as_strided(matrix.shape, (matrix.shape[1], 1))


class PackedLinear(nn.Module):
    """A linear layer of whole numbers, for inference: (codes of x) @ codes.T, scaled, + bias.

    `codes` int8 (N, K); `scales` float32 (P,), of which each holds for N / P rows;
    `norm` comes first. Its state has, in place of the codes, `packed`.
    """

    codes: Tensor
    scales: Tensor

    def __init__(
        self,
        codes: Tensor,
        scales: Tensor,
        bits: PackedBits,
        bias: nn.Parameter | None,
        norm: nn.Module,
    ) -> None:
        super().__init__()
        self.bits: PackedBits = bits
        self.norm = norm
        self.bias = bias
        self.register_buffer("codes", codes.to(torch.int8).contiguous(), persistent=False)
        self.register_buffer("scales", scales)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        x = self.norm(x)
        kernels = _kernels(x.device) if x.is_cuda else None
        if kernels is not None and kernels.fits(x):
            return kernels.layer(x, self.codes, self.scales, self.bias)
        if x.is_cuda:
            activations, token = bfloat16_activations(x)
            exact = EXACT if self.bits == "8" else EXACT_FEW_BITS
            codes = self.codes.to(torch.bfloat16)
            product = bfloat16_product(activations.flatten(0, -2), codes, exact)
        else:
            activations, token = quantize_activations(x)
            product = multiply_integers(activations.to(torch.int8).flatten(0, -2), self.codes)
        product = product.view(*x.shape[:-1], len(self.codes))
        return rescale(product, token, self.scales, self.bias)

    def stored_bytes(self) -> int:
        """The bytes of packed weights and their scales."""
        return count_packed_bytes(self.codes.numel(), self.bits) + self.scales.nbytes

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}packed"] = pack_bytes(self.codes, self.bits)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Check and unpack the weights; the rest is loaded as usual."""
        try:
            packed, scales = state_dict.pop(f"{prefix}packed"), state_dict[f"{prefix}scales"]
        except KeyError as missing:
            raise ValueError(f"{missing} is missing") from None
        if not (scales.isfinite().all() and (scales > 0).all()):
            raise ValueError(f"{prefix}scales are not all positive numbers")
        try:
            codes = unpack_bytes(packed, self.bits, tuple(self.codes.shape))
        except ValueError as error:
            raise ValueError(f"{prefix}packed is damaged: {error}") from None
        self.codes.copy_(codes)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    """The module `packed_kernels`, or none where there is no Triton.

    Nor, after a warning, where Triton cannot compile: it needs a C compiler, and does not
    know every GPU.
    """
    try:
        from drakegpt.models import packed_kernels

        packed_kernels.try_out(device)
    except ImportError:
        return None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("Triton cannot be used, so packed layers are slower on %s: %s", device, reason)
        return None
    return packed_kernels


# --- Putting it in place ------------------------------------------------------------------------


@torch.no_grad()
def pack_(model: nn.Module) -> nn.Module:
    """Replace the layers of `quantize_` by packed ones that compute the same, in place.

    Returns `model`, which can be trained no more. Raises `ValueError` if it has no such layers.
    """
    layers = [(n, layer) for n, layer in model.named_modules() if isinstance(layer, BitLinear)]
    if not layers:
        raise ValueError(f"{type(model).__name__} was not trained with few bits")
    for name, layer in layers:
        codes, scales = layer.quantized_weight()
        _replace(model, name, PackedLinear(codes, scales, layer.bits, layer.bias, layer.norm))
    return model.requires_grad_(False)


@torch.no_grad()
def quantize_after_training_(model: nn.Module, bits: PackedBits) -> nn.Module:
    """Round the weights of a model trained in full precision, in place; returns `model`.

    For 8 bits each row has a scale of its own, max |W| / 127. No norms are added.
    Raises `ValueError` if there is nothing to replace, or no such rounding.
    """
    _check_bits(bits)
    for name, linear in find_quantizable(model):
        codes, scales = _rounded(linear.weight, bits, count_parts(name))
        _replace(model, name, PackedLinear(codes, scales, bits, linear.bias, nn.Identity()))
    return model.requires_grad_(False)


def _rounded(weight: Tensor, bits: PackedBits, parts: int) -> tuple[Tensor, Tensor]:
    """Codes (N, K) and scales, (N,) for 8 bits, else (P,)."""
    if bits != "8":
        return quantize_weight(weight, bits, parts)
    codes, scales = quantize_activations(weight)
    return codes, 1 / scales.flatten()


@torch.no_grad()
def prepare_packed_(model: nn.Module, bits: PackedBits, *, normed: bool) -> nn.Module:
    """Give `model` packed layers without weights, to load a state into; returns `model`.

    `normed`: whether the state is of a model trained with few bits (`pack_`),
    which has more norms, or of one rounded after training.
    """
    _check_bits(bits)
    for name, linear in find_quantizable(model):
        N, K = linear.weight.shape
        scales = linear.weight.new_ones(N if bits == "8" else count_parts(name))
        norm = nn.LayerNorm(K).to(linear.weight) if normed and needs_norm(name) else nn.Identity()
        codes = torch.ones_like(linear.weight, dtype=torch.int8)
        _replace(model, name, PackedLinear(codes, scales, bits, linear.bias, norm))
    return model.requires_grad_(False)


def load_packed_(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Load what `state_dict` of a packed model returned into a skeleton; returns `model`.

    Raises `ValueError` that names what is missing, superfluous or damaged.
    """
    for name, tensor in model.state_dict().items():
        if name in state and state[name].dtype != tensor.dtype:
            raise ValueError(f"{name} is of {state[name].dtype}, not {tensor.dtype}")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(str(error)) from error
    return model


def _check_bits(bits: str) -> None:
    if bits not in PER_BYTE:
        raise ValueError(f"there are weights of {', '.join(PER_BYTE)} bits, not of {bits}")


def _replace(model: nn.Module, name: str, layer: PackedLinear) -> None:
    model.set_submodule(name, layer.train(model.training))


# --- Counting -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByteCounts:
    """The bytes of a model's weights: on disk those packed and all others; in memory."""

    packed: int
    remainder: int
    resident: int


def count_bytes(model: nn.Module) -> ByteCounts:
    """Count the bytes of a model, packed or not. Scales count with what they scale."""
    layers = [layer for layer in model.modules() if isinstance(layer, PackedLinear)]
    resident = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    unpacked = sum(layer.codes.nbytes + layer.scales.nbytes for layer in layers)
    packed = sum(layer.stored_bytes() for layer in layers)
    return ByteCounts(packed=packed, remainder=resident - unpacked, resident=resident)
