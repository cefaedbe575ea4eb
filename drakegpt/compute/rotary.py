"""Rotary position embeddings: queries and keys are rotated by angles that grow with the position.

Su et al. 2021, "RoFormer", https://arxiv.org/abs/2104.09864. Number i of the first half of a
head and number i of its second half are rotated together, as one point of a plane, by the
angle t * 10000^(-2 i / D) at position t. The dot product of a rotated query and a rotated key
then depends on the distance of their positions alone, so no table of positions is needed.

Shapes: B windows, T tokens, C width, H heads, D = C / H, the even width of one head.
"""

from functools import cache

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

BASE = 10_000.0


def rotate(query_key_value: Tensor, num_heads: int) -> Tensor:
    """Rotate the queries and keys of a window read from its start: (B, T, 3 C) -> (B, T, 3 C)."""
    T = query_key_value.shape[1]
    tables = make_tables(T, *_describe(query_key_value, num_heads))
    if torch.compiler.is_compiling():
        return _rotate(query_key_value, num_heads, *tables)
    result: Tensor = _Rotation.apply(  # type: ignore[no-untyped-call]
        query_key_value, num_heads, *tables
    )
    return result


def rotate_at(
    query_key_value: Tensor, num_heads: int, position: Tensor, context_length: int
) -> Tensor:
    """Rotate those of one token of each text, (B, 1, 3 C), at `position`, int64 (1,)."""
    tables = make_tables(context_length, *_describe(query_key_value, num_heads))
    cos, sin = (table.index_select(0, position) for table in tables)
    return _rotate(query_key_value, num_heads, cos, sin)


class _Rotation(torch.autograd.Function):
    """`_rotate`, whose gradient is rotated back by the same angles."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, query_key_value: Tensor, num_heads: int, cos: Tensor, sin: Tensor
    ) -> Tensor:
        """(B, T, 3 C) -> (B, T, 3 C)."""
        ctx.save_for_backward(cos, sin)
        ctx.num_heads = num_heads  # type: ignore[attr-defined]
        return _rotate(query_key_value, num_heads, cos, sin)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """(B, T, 3 C) -> (B, T, 3 C)."""
        cos, sin = ctx.saved_tensors  # type: ignore[attr-defined]
        return _rotate(grads[0], ctx.num_heads, cos, -sin), None, None, None  # type: ignore[attr-defined]


def _rotate(query_key_value: Tensor, num_heads: int, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate by the angles of the tables: halves a, b -> a cos - b sin, b cos + a sin."""
    parts = query_key_value.unflatten(2, (3, num_heads, 2, -1))  # (B, T, 3, H, 2, D / 2)
    rotated = parts * cos
    rotated[:, :, :2].addcmul_(parts[:, :, :2].flip(4), sin)
    return rotated.flatten(2)


def _describe(query_key_value: Tensor, num_heads: int) -> tuple[int, torch.dtype, torch.device]:
    """Return the width of a head, and the dtype and device of the tables."""
    D = query_key_value.shape[2] // (3 * num_heads)
    return D, query_key_value.dtype, query_key_value.device


@cache
def make_tables(T: int, D: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Make the cosines, (T, 3, 1, 1, D / 2), 1 for values, and sines, (T, 1, 1, 2, D / 2).

    The sines of the first half are negative.
    """
    frequencies = BASE ** (-torch.arange(D // 2, dtype=torch.float64) / (D // 2))
    angles = torch.outer(torch.arange(T, dtype=torch.float64), frequencies)
    cos, sin = angles.cos(), angles.sin()
    with_values = torch.stack((cos, cos, torch.ones_like(cos)), 1)[:, :, None, None]
    signed = torch.stack((-sin, sin), 1)[:, None, None]
    return with_values.to(device, dtype), signed.to(device, dtype)
