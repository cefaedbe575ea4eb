"""Linear layers with weights of 8, 1.58 or one bit, for inference.

On disk, a byte holds five ternary weights (3^5 = 243), eight binary ones, or one of
8 bits. In memory a weight is an int8: weights are unpacked once, when they are
loaded, and never converted to floats on a CPU.

A layer quantizes its activations to 8 bits per token, multiplies int8 by int8 into
int32 (`torch._int_mm`: oneDNN with VNNI), and scales the result. The alternatives
measured are in `.github/EXPERIMENTS.md`.

On an NVIDIA GPU, the time for few rows depends on the number of kernel launches, so
that there a layer is a single kernel after its norm, `compute.packed_kernels`. Many
rows, and all rows without Triton, are multiplied in bfloat16, which represents these
integers exactly: PyTorch's int8 products do not support every shape there.

Not here: training.

Shapes: N rows (outputs) and K columns (inputs) of a weight, P parts of its rows.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drakegpt.config.schema import PackedBits
from drakegpt.errors import is_out_of_memory
from drakegpt.models.bitlinear import (
    MAX_CODE,
    MIN_SCALE,
    BitLinear,
    count_parts,
    find_quantizable,
    needs_norm,
    quantize_activations,
    quantize_weight,
    rescale,
)

log = logging.getLogger(__name__)

# Weights in a byte, and the number of values of each.
PER_BYTE: dict[PackedBits, int] = {"8": 1, "1.58": 5, "1": 8}
LEVELS: dict[PackedBits, int] = {"8": 256, "1.58": 3, "1": 2}


@dataclass(frozen=True)
class Packing:
    """How a model's weights are packed."""

    bits: PackedBits
    trained: bool  # quantization-aware training; False: rounded after training


# float32 represents integers below 2^24 exactly. That many products can be summed in it without
# rounding: of two int8, and of an int8 and a ternary or binary weight.
EXACT = 1024
EXACT_LOW_BIT = 2**24 // MAX_CODE

# --- Bytes --------------------------------------------------------------------------------------


def pack_bytes(codes: Tensor, bits: PackedBits) -> Tensor:
    """Pack codes, int8 of any shape, into uint8 (`count_packed_bytes(count, bits)`,).

    A weight is one digit of a byte written in base 3 or 2, lowest digit first;
    digits 0, 1, 2 are the codes -1, 0, 1, and digits 0, 1 are -1, 1. The last byte
    is padded with zero digits. Codes of 8 bits stay as they are.
    """
    if bits == "8":
        return codes.flatten().view(torch.uint8)
    digits = codes.flatten() + 1 if bits == "1.58" else codes.flatten() > 0
    digits = F.pad(digits.to(torch.uint8), (0, -codes.numel() % PER_BYTE[bits]))
    powers = _digit_values(bits).to(codes.device)
    return (digits.view(-1, PER_BYTE[bits]) * powers).sum(1, dtype=torch.uint8)


def unpack_bytes(packed: Tensor, bits: PackedBits, shape: tuple[int, ...]) -> Tensor:
    """Unpack the bytes of `pack_bytes` into codes, int8 of `shape`.

    Raises `ValueError` if `pack_bytes` cannot have made them.
    """
    count = torch.Size(shape).numel()
    expected = count_packed_bytes(count, bits)
    if packed.dtype != torch.uint8 or packed.shape != (expected,):
        found = f"{tuple(packed.shape)} of {packed.dtype}"
        raise ValueError(f"{count} weights of {bits} bits are {expected} bytes, not {found}")
    if bits == "8":
        return packed.view(torch.int8).view(shape)
    codes = _codes_of_bytes(bits).to(packed.device)
    largest = int(packed.max()) if count else 0
    if largest >= len(codes):
        raise ValueError(f"byte {largest} is above {len(codes) - 1}, the last of five weights")
    return codes.index_select(0, packed.int()).flatten()[:count].view(shape)


def count_packed_bytes(count: int, bits: PackedBits) -> int:
    """Return how many bytes `count` weights take."""
    return -(-count // PER_BYTE[bits])


def _digit_values(bits: PackedBits) -> Tensor:
    return (LEVELS[bits] ** torch.arange(PER_BYTE[bits])).to(torch.uint8)


def _codes_of_bytes(bits: PackedBits) -> Tensor:
    """Return the codes in each possible byte, int8: (243, 5) or (256, 8)."""
    values = torch.arange(LEVELS[bits] ** PER_BYTE[bits])
    digits = values[:, None] // _digit_values(bits) % LEVELS[bits]
    return (digits - 1 if bits == "1.58" else 2 * digits - 1).to(torch.int8)


# --- The layer ----------------------------------------------------------------------------------


def multiply_integers(x: Tensor, weight: Tensor) -> Tensor:
    """Return x @ weight.T, exactly: int8 (M, K), int8 (N, K) -> integers (M, N).

    On a CPU this is `torch._int_mm`, with two precautions. It reads the strides even
    of dimensions of size one, where PyTorch may set any, and returns garbage for a
    stride of 0: so strides are made those of a dense matrix, and a single column, for
    which no strides are safe, is multiplied elementwise. And without VNNI it adds
    pairs of products in 16 bits, which overflow. There, and on other devices, where it
    rejects few rows, floats are multiplied, in parts of K that are summed exactly.
    (NVIDIA GPUs use `multiply_in_bfloat16`.)
    """
    if x.shape[1] == 1:
        return x.int() * weight.t()
    if x.device.type == "cpu" and _int_mm_is_exact():
        return torch._int_mm(_with_dense_strides(x), _with_dense_strides(weight).t())
    parts = zip(x.split(EXACT, dim=1), weight.split(EXACT, dim=1), strict=True)
    return sum((x_part.float() @ w_part.float().t()).int() for x_part, w_part in parts)


def multiply_in_bfloat16(x: Tensor, weight: Tensor, exact: int) -> Tensor:
    """Return x @ weight.T, exactly, on a GPU: integers as bfloat16 (M, K), (N, K) -> (M, N).

    Products are summed in float32, which is exact for up to `exact` of them. Parts of
    that size are then summed as int32.
    """
    parts = [
        _multiply_to_float32(x_part, w_part)
        for x_part, w_part in zip(x.split(exact, dim=1), weight.split(exact, dim=1), strict=True)
    ]
    return parts[0] if len(parts) == 1 else sum((part.int() for part in parts[1:]), parts[0].int())


def _multiply_to_float32(x: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(x, weight.t(), out_dtype=torch.float32)


def quantize_activations_to_bfloat16(x: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize_activations` with codes in bfloat16, in few kernels and without gradient."""
    largest = torch.linalg.vector_norm(x, torch.inf, -1, keepdim=True)
    scales = MAX_CODE / largest.clamp_min_(MIN_SCALE)
    return (x * scales).round_().to(torch.bfloat16), scales


@cache
def _int_mm_is_exact() -> bool:
    """Return whether `_int_mm` does not overflow on this CPU; tries the largest codes."""
    largest = torch.full((8, 64), MAX_CODE, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest.t()) == 64 * MAX_CODE**2).all())


def _with_dense_strides(matrix: Tensor) -> Tensor:
    """Return the same matrix, contiguous, with the strides of a dense matrix."""
    return matrix.contiguous().as_strided(matrix.shape, (matrix.shape[1], 1))


class PackedLinear(nn.Module):
    """A linear layer of integers, for inference: (codes of x) @ codes.T, scaled, + bias.

    `codes` int8 (N, K); `scales` float32 (P,), each for N / P rows; `norm` is applied
    first. Its state dict has `packed`, the packed bytes, instead of `codes`.
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
        kernels = _load_packed_kernels(x.device) if x.is_cuda else None
        if kernels is not None and kernels.fits(x):
            return kernels.packed_linear(x, self.codes, self.scales, self.bias)
        if x.is_cuda:
            activations, token = quantize_activations_to_bfloat16(x)
            exact = EXACT if self.bits == "8" else EXACT_LOW_BIT
            codes = self.codes.to(torch.bfloat16)
            product = multiply_in_bfloat16(activations.flatten(0, -2), codes, exact)
        else:
            activations, token = quantize_activations(x)
            product = multiply_integers(activations.to(torch.int8).flatten(0, -2), self.codes)
        product = product.view(*x.shape[:-1], len(self.codes))
        return rescale(product, token, self.scales, self.bias)

    def stored_bytes(self) -> int:
        """Return how many bytes the packed weights and their scales take."""
        return count_packed_bytes(self.codes.numel(), self.bits) + self.scales.nbytes

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}packed"] = pack_bytes(self.codes, self.bits)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Check and unpack the weights; load the rest as `nn.Module` does."""
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
def _load_packed_kernels(device: torch.device) -> ModuleType | None:
    """Import `packed_kernels`; return `None` where Triton is missing or does not work.

    Triton needs a C compiler and does not support every GPU; that gives a warning.
    """
    try:
        from drakegpt.compute import packed_kernels

        packed_kernels.compile_kernel(device)
    except ImportError:
        return None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("Triton cannot be used, so packed layers are slower on %s: %s", device, reason)
        return None
    return packed_kernels


# --- Replacing layers ---------------------------------------------------------------------------


@torch.no_grad()
def pack_(model: nn.Module) -> nn.Module:
    """Replace each `BitLinear` by a `PackedLinear` that computes the same, in place.

    Returns `model`, which can no longer be trained. Raises `ValueError` if it has no
    such layers.
    """
    layers = [(n, layer) for n, layer in model.named_modules() if isinstance(layer, BitLinear)]
    if not layers:
        raise ValueError(f"{type(model).__name__} was not trained with low-bit weights")
    for name, layer in layers:
        codes, scales = layer.quantize()
        _replace(model, name, PackedLinear(codes, scales, layer.bits, layer.bias, layer.norm))
    return model.requires_grad_(False)


@torch.no_grad()
def quantize_after_training_(model: nn.Module, bits: PackedBits) -> nn.Module:
    """Quantize the hidden layers of a model trained in full precision, in place; return `model`.

    With 8 bits each row has its own scale, max |W| / 127. No norms are added. Raises
    `ValueError` if there are no such layers, or for other bits.
    """
    _check_bits(bits)
    for name, linear in find_quantizable(model):
        codes, scales = _quantize_rows_or_parts(linear.weight, bits, count_parts(name))
        _replace(model, name, PackedLinear(codes, scales, bits, linear.bias, nn.Identity()))
    return model.requires_grad_(False)


def _quantize_rows_or_parts(weight: Tensor, bits: PackedBits, parts: int) -> tuple[Tensor, Tensor]:
    """Quantize weights (N, K) to codes (N, K) and scales, (N,) for 8 bits, else (P,)."""
    if bits != "8":
        return quantize_weight(weight, bits, parts)
    codes, scales = quantize_activations(weight)
    return codes, 1 / scales.flatten()


@torch.no_grad()
def prepare_packed_(model: nn.Module, bits: PackedBits, *, normed: bool) -> nn.Module:
    """Give `model` packed layers to load a state dict into, in place; return `model`.

    `normed`: the state is that of a model trained with low-bit weights (`pack_`),
    which has more norms than one quantized after training.
    """
    _check_bits(bits)
    for name, linear in find_quantizable(model):
        N, K = linear.weight.shape
        device = linear.weight.device
        # By shape: functions of a tensor on the meta device would load PyTorch's compiler.
        scales = torch.ones(N if bits == "8" else count_parts(name), device=device)
        norm = nn.LayerNorm(K).to(linear.weight) if normed and needs_norm(name) else nn.Identity()
        codes = torch.ones((N, K), dtype=torch.int8, device=device)
        _replace(model, name, PackedLinear(codes, scales, bits, linear.bias, norm))
    return model.requires_grad_(False)


def load_packed_(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Load the state dict of a packed model into a prepared one; return `model`.

    Raises `ValueError` that names what is missing, unexpected or damaged.
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
        raise ValueError(f"bits must be one of {', '.join(PER_BYTE)}, not {bits}")


def _replace(model: nn.Module, name: str, layer: PackedLinear) -> None:
    model.set_submodule(name, layer.train(model.training))


# --- Counting -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByteCounts:
    """The bytes of a model's weights: on disk, packed and not packed; in memory, all."""

    packed: int
    remainder: int
    resident: int


def count_bytes(model: nn.Module) -> ByteCounts:
    """Count the bytes of a model, packed or not. Scales count as packed weights."""
    layers = [layer for layer in model.modules() if isinstance(layer, PackedLinear)]
    resident = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    unpacked = sum(layer.codes.nbytes + layer.scales.nbytes for layer in layers)
    packed = sum(layer.stored_bytes() for layer in layers)
    return ByteCounts(packed=packed, remainder=resident - unpacked, resident=resident)
