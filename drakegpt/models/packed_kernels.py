"""A packed layer for few rows on a GPU as one kernel, written in Triton.

What `packed` and `bitlinear` say in a dozen operations, each of which is a kernel on
a GPU: round the activations, multiply whole numbers, scale the products, add the
bias. For few rows the arithmetic is nothing and the number of kernels all, so here
it is one. Every program of it reads and rounds whole rows of activations again,
which is quicker than to wait for a kernel that has done so.

The results are the same to the last bit: sums of whole numbers are exact in any
order, and all else is done number by number in the same order, with divisions that
round as IEEE 754 says and without fused multiply-adds.

Triton compiles a kernel when it is first called, once for each power of two up to
which K goes, for one row and for several, and keeps it on disk. It comes with PyTorch
for NVIDIA's GPUs on Linux; elsewhere this module cannot be imported.

Shapes: M rows of activations, N rows (outputs) and K columns of a weight, P parts of
its rows.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# More rows than this are quicker as a product by itself, which reads activations but once.
MOST_ROWS = 256
# A program holds all columns at once; more than `MANY_COLUMNS` are shared by 8 warps instead of 4.
MOST_COLUMNS = 4096
MANY_COLUMNS = 1024
# What it computes: of one row so many outputs, or of some rows so many of each. They are few, so
# that even a small layer gives work to all of a GPU.
OUTPUTS_OF_ONE = 4
ROWS, OUTPUTS = 8, 16
# What tensor cores multiply at once is as many outputs and rows, and so many columns.
TENSOR_CORE_COLUMNS = 32
# A float32 plus this, less this, is rounded to a whole number, half to even, up to 2^22.
TO_WHOLE = tl.constexpr(1.5 * 2**23)
# As in `bitlinear`; kernels read no variables of Python but such.
FLOOR = tl.constexpr(1e-5)
LARGEST = tl.constexpr(127.0)


def fits(x: Tensor) -> bool:
    """Whether `layer` is for these activations, (..., K): few rows of float32, and not too long."""
    K = x.shape[-1]
    few = 0 < x.numel() <= MOST_ROWS * K
    return few and x.dtype == torch.float32 and K <= MOST_COLUMNS


def layer(x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """Activations (..., K) by int8 codes (N, K), rescaled by scales (P,), + bias (N,): (..., N).

    The same as `bitlinear.rescale` of the product of `quantize_activations(x)`.
    """
    N, K = codes.shape
    x, M = x.contiguous(), x.numel() // K
    result = x.new_empty(*x.shape[:-1], N)
    rows, outputs = (1, OUTPUTS_OF_ONE) if M == 1 else (ROWS, OUTPUTS)
    warps = 4 if K <= MANY_COLUMNS else 8
    columns = max(TENSOR_CORE_COLUMNS * warps, triton.next_power_of_2(K))
    sizes = {"ROWS": rows, "OUTPUTS": outputs, "COLUMNS": columns, "SLICES": warps}
    grid = (triton.cdiv(N, outputs), triton.cdiv(M, rows))
    with torch.cuda.device_of(x):  # Triton asks which GPU is current, not where tensors are
        _layer[grid](
            x, codes, scales, bias, result, M, N, K, N // len(scales),
            **sizes, num_warps=warps, enable_fp_fusion=False,
        )  # fmt: skip
    return result


def try_out(device: torch.device) -> None:
    """Call a kernel; raises what Triton raises where it cannot compile, of whatever type."""
    layer(
        torch.ones(1, 16, device=device),
        torch.ones(16, 16, dtype=torch.int8, device=device),
        torch.ones(1, device=device),
        None,
    )


@triton.jit(do_not_specialize=["M"])
def _layer(
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
    """Some outputs of some rows; tensors are given by where they begin, `bias` may be none."""
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)[:, None]
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[None, :]
    columns = tl.arange(0, COLUMNS)
    # Asked for first, so that the weights are on their way while activations are rounded.
    there = (outputs < N) & (columns < K)[None, :]
    weight = tl.load(codes + outputs * K + columns[None, :], mask=there, other=0)
    there = (tl.trans(rows) < M) & (columns < K)[None, :]
    values = tl.load(x + tl.trans(rows) * K + columns[None, :], mask=there, other=0.0)

    token = _token_scales(values)  # (ROWS,)
    activations = (values * token[:, None] + TO_WHOLE - TO_WHOLE).to(tl.int8)
    if ROWS == 1:
        product = tl.sum(weight.to(tl.int32) * activations.to(tl.int32), 1, keep_dims=True)
    else:
        product = _product_in_slices(weight, activations, SLICES)

    of_part = tl.load(scales + outputs // rows_of_part, mask=outputs < N, other=1.0)
    rescaled = product.to(tl.float32) * tl.div_rn(of_part, token[None, :])
    if bias is not None:
        rescaled += tl.load(bias + outputs, mask=outputs < N, other=0.0)
    tl.store(result + rows * N + outputs, rescaled, mask=(rows < M) & (outputs < N))


@triton.jit
def _product_in_slices(
    weight: tl.tensor, activations: tl.tensor, SLICES: tl.constexpr
) -> tl.tensor:
    """Weight @ activations.T, each slice of their columns by another warp: (OUTPUTS, ROWS)."""
    activations = tl.permute(_slices(activations, SLICES), (0, 2, 1))
    return tl.sum(tl.dot(_slices(weight, SLICES), activations, out_dtype=tl.int32), 0)


@triton.jit
def _slices(matrix: tl.tensor, SLICES: tl.constexpr) -> tl.tensor:
    """(A, COLUMNS) -> (SLICES, A, COLUMNS / SLICES)."""
    A: tl.constexpr = matrix.shape[0]
    COLUMNS: tl.constexpr = matrix.shape[1]
    return tl.permute(tl.reshape(matrix, (A, SLICES, COLUMNS // SLICES)), (1, 0, 2))


@triton.jit
def _token_scales(values: tl.tensor) -> tl.tensor:
    """127 / max(max |x|, 1e-5) of each row, as PyTorch divides a number by a tensor."""
    largest = _larger(tl.reduce(tl.abs(values), 1, _larger), FLOOR)
    return tl.div_rn(tl.full(largest.shape, 1.0, tl.float32), largest) * LARGEST


@triton.jit
def _larger(one: tl.tensor, other: tl.tensor) -> tl.tensor:
    """The larger of two, or NaN if one is NaN."""
    return tl.maximum(one, other, propagate_nan=tl.PropagateNan.ALL)
