"""A linear layer with quantized weights as one Triton kernel, for few rows on a GPU.

`models.packed_linear` quantizes the activations, multiplies integers, scales the
products and adds the bias in a dozen operations, each of which is a kernel on a GPU.
For few rows, launching them takes longer than their arithmetic, so here they are one
kernel. Each of its programs reads and quantizes whole rows of activations again, which
is faster than waiting for a kernel that has done so.

The results are bit-identical: sums of integers are exact in any order, and the rest is
computed elementwise in the same order, with divisions rounded as in IEEE 754 and
without fused multiply-adds.

Triton compiles the kernel on its first call, separately for one row and for several
and for each power of two that K is rounded up to, and caches it on disk. It comes with
PyTorch for NVIDIA GPUs on Linux; elsewhere this module cannot be imported.

Shapes: M rows of activations, N rows (outputs) and K columns of a weight, P parts of
its rows, each with a scale.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# More rows are faster as a separate product, which reads the activations once.
MAX_ROWS = 256
# A program holds all columns at once; above `MANY_COLUMNS` it has 8 warps instead of 4.
MAX_COLUMNS = 4096
MANY_COLUMNS = 1024
# Outputs that a program computes for a single row; else rows, and outputs of each. They are few, so
# that even a small layer occupies the whole GPU.
OUTPUTS_OF_ONE = 4
ROWS, OUTPUTS = 8, 16
# Columns that tensor cores multiply at once, besides ROWS and OUTPUTS.
TENSOR_CORE_COLUMNS = 32
# Adding and subtracting this rounds a float32 below 2^22 to an integer, half to even.
ROUNDING = tl.constexpr(1.5 * 2**23)
# As in `models.bitlinear`; kernels can only read `constexpr` globals.
MIN_SCALE = tl.constexpr(1e-5)
MAX_CODE = tl.constexpr(127.0)


def fits(x: Tensor) -> bool:
    """Return whether `packed_linear` supports activations (..., K): few short float32 rows."""
    K = x.shape[-1]
    few = 0 < x.numel() <= MAX_ROWS * K
    return few and x.dtype == torch.float32 and K <= MAX_COLUMNS


def packed_linear(x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply activations (..., K) by int8 codes (N, K) with scales (P,), add bias (N,): (..., N).

    Equals `rescale` of the product of `quantize_activations(x)` and the codes, both in
    `models.bitlinear`.
    """
    N, K = codes.shape
    x, M = x.contiguous(), x.numel() // K
    result = x.new_empty(*x.shape[:-1], N)
    rows, outputs = (1, OUTPUTS_OF_ONE) if M == 1 else (ROWS, OUTPUTS)
    warps = 4 if K <= MANY_COLUMNS else 8
    columns = max(TENSOR_CORE_COLUMNS * warps, triton.next_power_of_2(K))
    sizes = {"ROWS": rows, "OUTPUTS": outputs, "COLUMNS": columns, "SLICES": warps}
    grid = (triton.cdiv(N, outputs), triton.cdiv(M, rows))
    with torch.cuda.device_of(x):  # Triton uses the current GPU, not that of the tensors
        _packed_linear[grid](
            x, codes, scales, bias, result, M, N, K, N // len(scales),
            **sizes, num_warps=warps, enable_fp_fusion=False,
        )  # fmt: skip
    return result


def compile_kernel(device: torch.device) -> None:
    """Compile and run the kernel once; raises whatever Triton raises if it cannot."""
    packed_linear(
        torch.ones(1, 16, device=device),
        torch.ones(16, 16, dtype=torch.int8, device=device),
        torch.ones(1, device=device),
        None,
    )


@triton.jit(do_not_specialize=["M"])
def _packed_linear(
    x: tl.tensor,
    codes: tl.tensor,
    scales: tl.tensor,
    bias: tl.tensor,
    result: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    rows_of_part: tl.tensor,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLICES: tl.constexpr,
) -> None:
    """Compute some outputs of some rows; tensors are pointers, `bias` may be none."""
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)[:, None]
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[None, :]
    columns = tl.arange(0, COLUMNS)
    # Loaded first, so that the weights arrive while the activations are quantized.
    inside = (outputs < N) & (columns < K)[None, :]
    weight = tl.load(codes + outputs * K + columns[None, :], mask=inside, other=0)
    inside = (tl.trans(rows) < M) & (columns < K)[None, :]
    values = tl.load(x + tl.trans(rows) * K + columns[None, :], mask=inside, other=0.0)

    token = _compute_token_scales(values)  # (ROWS,)
    activations = (values * token[:, None] + ROUNDING - ROUNDING).to(tl.int8)
    if ROWS == 1:
        product = tl.sum(weight.to(tl.int32) * activations.to(tl.int32), 1, keep_dims=True)
    else:
        product = _multiply_in_slices(weight, activations, SLICES)

    of_part = tl.load(scales + outputs // rows_of_part, mask=outputs < N, other=1.0)
    rescaled = product.to(tl.float32) * tl.div_rn(of_part, token[None, :])
    if bias is not None:
        rescaled += tl.load(bias + outputs, mask=outputs < N, other=0.0)
    tl.store(result + rows * N + outputs, rescaled, mask=(rows < M) & (outputs < N))


@triton.jit
def _multiply_in_slices(
    weight: tl.tensor, activations: tl.tensor, SLICES: tl.constexpr
) -> tl.tensor:
    """Compute weight @ activations.T, each slice of columns in another warp: (OUTPUTS, ROWS)."""
    activations = tl.permute(_split_columns(activations, SLICES), (0, 2, 1))
    return tl.sum(tl.dot(_split_columns(weight, SLICES), activations, out_dtype=tl.int32), 0)


@triton.jit
def _split_columns(matrix: tl.tensor, SLICES: tl.constexpr) -> tl.tensor:
    """(A, COLUMNS) -> (SLICES, A, COLUMNS / SLICES)."""
    A: tl.constexpr = matrix.shape[0]
    COLUMNS: tl.constexpr = matrix.shape[1]
    return tl.permute(tl.reshape(matrix, (A, SLICES, COLUMNS // SLICES)), (1, 0, 2))


@triton.jit
def _compute_token_scales(values: tl.tensor) -> tl.tensor:
    """Compute 127 / max(max |x|, 1e-5) of each row, rounded as PyTorch rounds it."""
    largest = _maximum(tl.reduce(tl.abs(values), 1, _maximum), MIN_SCALE)
    return tl.div_rn(tl.full(largest.shape, 1.0, tl.float32), largest) * MAX_CODE


@triton.jit
def _maximum(one: tl.tensor, other: tl.tensor) -> tl.tensor:
    """Return the larger number, or NaN if one is NaN."""
    return tl.maximum(one, other, propagate_nan=tl.PropagateNan.ALL)
