"""The arithmetic of the layers, as fast as the processor allows.

The models can be understood without this module: `linear`, `dropout` and
`causal_attention` compute what `F.linear`, `F.dropout` and
`F.scaled_dot_product_attention` compute. On a GPU they call these, except for the
gradients of biases and norms (`triton_kernels`). On a CPU other methods are faster
(`drakegpt bench` measures them):

    linear     oneDNN multiplies large float32 matrices up to twice as fast as the
               library behind `torch.mm`, especially on AMD, but not small ones
    attention  the fused kernel is made for long windows: with eight tokens it spends
               its time on a softmax over rows too short for vector units
    dropout    PyTorch draws one random number per activation

Nothing here has parameters.
"""

import importlib.util
import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

log = logging.getLogger("drakegpt")
_thread = threading.local()  # its random generator, unless it is PyTorch's

# Multiplications in a matrix product from which oneDNN is used.
ONEDNN_FROM = 2**21
# Softmax is vectorised over rows of at least 16: shorter windows are laid side by side.
ROW = 16
# Attention weights, B * H * T * T, up to which all are computed at once and kept.
WHOLE_UP_TO = 2**20
# Queries in a block of attention weights, where weights are not kept.
BLOCK = 64
# Heads computed together there, so that their block fits in a CPU's caches.
HEADS = 24
# Activations from which Triton kernels pay; for fewer, they take longer to compile than to run.
TRITON_FROM = 2**20
# Dropout decides with 16 random bits.
LEVELS = 2**16


# --- Linear -------------------------------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute x @ weight.T + bias: (..., K), (N, K), (N,) -> (..., N)."""
    if torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    large = x.numel() * weight.shape[0] >= ONEDNN_FROM
    if large and x.device.type == "cpu" and _is_float32(x, weight) and _has_onednn():
        result: Tensor = _OneDNNLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    has_bias_gradient = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    if has_bias_gradient and _uses_triton(x) and not torch.is_autocast_enabled():
        return _GPULinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return F.linear(x, weight, bias)


def _is_float32(x: Tensor, weight: Tensor) -> bool:
    return x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


@cache
def _has_onednn() -> bool:
    """Return whether this PyTorch has oneDNN and the operator that calls it."""
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and known


class _OneDNNLinear(torch.autograd.Function):
    """A linear layer by oneDNN, forward and backward.

    The operator is the one that `torch.compile` uses. It has no derivative, so that is
    written out: for y = x W' + b,
    dx = dy W, dW = dy' x and db = the sum of dy over all rows.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(..., K), (N, K), (N,) -> (..., N)."""
        ctx.save_for_backward(x, weight)
        return _onednn_linear(x, weight, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias that are needed."""
        (grad,) = grads
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            _onednn_linear(grad, weight.t()) if wants_x else None,
            _onednn_linear(rows.t(), x.reshape(-1, x.shape[-1]).t()) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


class _GPULinear(torch.autograd.Function):
    """A linear layer with a bias on a GPU; a Triton kernel computes the bias's gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(..., K), (N, K), (N,) -> (..., N)."""
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias."""
        from drakegpt.compute.triton_kernels import sum_columns

        (grad,) = grads
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        rows = grad.reshape(-1, grad.shape[-1])
        for_weight = rows.t() @ x.reshape(-1, x.shape[-1])
        return grad @ weight, for_weight, sum_columns(rows)


def _uses_triton(x: Tensor) -> bool:
    return x.is_cuda and x.numel() >= TRITON_FROM and triton_works()


@cache
def triton_works() -> bool:
    """Return whether Triton works, which needs a GPU and a C compiler; tries a kernel."""
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        return False
    try:
        from drakegpt.compute.triton_kernels import sum_columns

        sum_columns(torch.ones(2, 8, device="cuda"))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("Triton does not work here, so training is slower: %s", reason)
        return False
    return True


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x @ weight.T + bias by oneDNN, for float32 on a CPU."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


# --- Layer norm ---------------------------------------------------------------------------------


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` by Triton kernels, for many activations on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        if not _uses_triton(x):
            return super().forward(x)
        from drakegpt.compute import triton_kernels

        result: Tensor = triton_kernels.LayerNorm.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.eps
        )
        return result


def use_triton_norms_(model: nn.Module) -> None:
    """Let the layer norms of a model use `triton_kernels`, in place."""
    for module in model.modules():
        if type(module) is nn.LayerNorm:
            module.__class__ = LayerNorm


# --- Dropout ------------------------------------------------------------------------------------


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each number with probability `p`, divide the others by 1 - p (training only)."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    return x * _draw_dropout_factors(x.shape, p).to(x.dtype)


def _draw_dropout_factors(shape: torch.Size, p: float) -> Tensor:
    """Draw the factors of dropout: 0 with probability `p`, else what keeps the mean; float32.

    One random number of 64 bits decides on four. `p` is rounded to a multiple
    of 1/65536, and the other factor fits that probability exactly.
    """
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64)
    bits.random_(-(2**63), None, generator=get_generator())
    dropped = min(round(p * LEVELS), LEVELS - 1)
    keep = torch.empty(shape)
    levels = bits.view(torch.int16)[:count].view(shape)
    torch.ge(levels, dropped - LEVELS // 2, out=keep)
    return keep.mul_(LEVELS / (LEVELS - dropped))


@contextmanager
def draw_from(generator: torch.Generator) -> Iterator[None]:
    """Let this thread draw the random numbers of dropout from `generator`.

    From PyTorch's, which all threads share, they would depend on which thread is first.
    """
    _thread.generator = generator
    try:
        yield
    finally:
        _thread.generator = None


def get_generator() -> torch.Generator | None:
    """Return the generator that this thread draws from on a CPU; `None` is PyTorch's."""
    return getattr(_thread, "generator", None)


# --- Attention ----------------------------------------------------------------------------------


def causal_attention(query_key_value: Tensor, num_heads: int, p: float = 0.0) -> Tensor:
    """Compute causal scaled dot-product attention (Vaswani et al. 2017, section 3.2).

    `query_key_value`: (B, T, 3 C), query, key and value of each token concatenated,
    each consisting of `num_heads` heads. `p`: dropout of the attention weights. Returns
    (B, T, C), the results of the heads concatenated. With queries, keys and values of
    one head as (B, T, D):

        scores = query @ key.transpose(-2, -1) / math.sqrt(D)       (B, T, T)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)         column after row
        weights = scores.masked_fill(future, -math.inf).softmax(-1)
        result = F.dropout(weights, p) @ value                      (B, T, D)
    """
    B, T, _ = query_key_value.shape
    if query_key_value.device.type == "cpu" and not torch.compiler.is_compiling():
        whole = fits_whole_attention(B, T, num_heads)
        if whole or p:
            attention = _WholeAttention if whole else _BlockedAttention
            with torch.autocast("cpu", enabled=False):
                result: Tensor = attention.apply(  # type: ignore[no-untyped-call]
                    query_key_value.float(), num_heads, p
                )
            return result.to(query_key_value.dtype)
    query, key, value = _split_heads(query_key_value, num_heads)
    return fused_attention(query, key, value, p)


def fused_attention(query: Tensor, key: Tensor, value: Tensor, p: float = 0.0) -> Tensor:
    """Compute causal attention by PyTorch's kernel: three of (B, H, T, D) -> (B, T, H D)."""
    gathered = F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
    return gathered.transpose(1, 2).flatten(2)


def fits_whole_attention(B: int, T: int, num_heads: int) -> bool:
    """Return whether the attention weights are few enough to compute and keep them all."""
    return B * num_heads * T * T <= WHOLE_UP_TO


def _split_heads(query_key_value: Tensor, num_heads: int) -> tuple[Tensor, ...]:
    """(B, T, 3 C) -> queries, keys and values, each (B, H, T, D), without a copy.

    With `chunk`, the backward pass concatenates the three gradients in one copy;
    permuting the whole would take two.
    """
    parts = query_key_value.chunk(3, dim=2)
    return tuple(part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in parts)


class _WholeAttention(torch.autograd.Function):
    """Attention that computes and keeps all weights, for small batches of short windows.

    Windows shorter than `ROW` are concatenated, S at a time, and a mask separates them:
    R rows of L = S T tokens.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, query_key_value: Tensor, num_heads: int, p: float) -> Tensor:
        """(B, T, 3 C) -> (B, T, C)."""
        B, T, C = *query_key_value.shape[:2], query_key_value.shape[2] // 3
        side_by_side = math.gcd(B, max(1, ROW // T))
        rows = (B // side_by_side, side_by_side * T)
        heads = query_key_value.reshape(*rows, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
        heads = heads.reshape(3, -1, rows[1], C // num_heads)  # (3, R H, L, D), copied
        query, key, value = heads.unbind()
        scale = (C // num_heads) ** -0.5
        scores = torch.baddbmm(
            _causal_mask(T, side_by_side), query, key.transpose(1, 2), alpha=scale
        )
        weights = scores.softmax(-1)
        keep = _draw_dropout_factors(weights.shape, p) if p else None
        dropped = weights if keep is None else weights * keep
        ctx.save_for_backward(heads, weights, dropped, keep)  # type: ignore[arg-type]
        ctx.scale = scale  # type: ignore[attr-defined]
        gathered = torch.bmm(dropped, value).view(rows[0], num_heads, rows[1], -1)
        return gathered.transpose(1, 2).reshape(B, T, C)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the result, (B, T, C) -> gradient of the input, (B, T, 3 C)."""
        heads, weights, dropped, keep = ctx.saved_tensors  # type: ignore[attr-defined]
        (query, key, value), (B, T, C) = heads.unbind(), grads[0].shape
        RH, L, D = query.shape
        H = C // D
        grad = grads[0].reshape(RH // H, L, H, D).transpose(1, 2).reshape(RH, L, D)
        results = torch.empty_like(heads)
        torch.bmm(dropped.transpose(1, 2), grad, out=results[2])
        grad_weights = torch.bmm(grad, value.transpose(1, 2))
        if keep is not None:
            grad_weights *= keep
        grad_scores = torch.ops.aten._softmax_backward_data(
            grad_weights, weights, -1, torch.float32
        )
        grad_scores *= ctx.scale  # type: ignore[attr-defined]
        torch.bmm(grad_scores, key, out=results[0])
        torch.bmm(grad_scores.transpose(1, 2), query, out=results[1])
        result = results.view(3, RH // H, H, L, D).permute(1, 3, 0, 2, 4).reshape(B, T, 3 * C)
        return result, None, None


@cache
def _causal_mask(T: int, side_by_side: int) -> Tensor:
    """Make the mask to add to scores of `side_by_side` windows: 0 where visible, else -inf."""
    window = torch.ones(T, T, dtype=torch.bool).tril()
    seen = torch.block_diag(*[window] * side_by_side)
    return torch.zeros(seen.shape).masked_fill_(~seen, -math.inf)


class _BlockedAttention(torch.autograd.Function):
    """Attention with dropout for long windows, without keeping the weights.

    After FlashAttention (Dao et al. 2022): queries are processed in blocks, each with
    the keys visible to it; of the weights only the log-sum-exp of each row is kept. The
    backward pass recomputes the weights but reuses the dropout mask. All N = B H heads
    are processed alike, a few at a time.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, query_key_value: Tensor, num_heads: int, p: float) -> Tensor:
        """(B, T, 3 C) -> (B, T, C)."""
        B, T, C = *query_key_value.shape[:2], query_key_value.shape[2] // 3
        heads = torch.stack(_split_heads(query_key_value, num_heads)).flatten(1, 2)  # (3, N, T, D)
        gathered = torch.empty_like(heads[0])
        log_sums = torch.empty(*gathered.shape[:2], 1)
        heads[0] *= (C // num_heads) ** -0.5  # scales the queries once, instead of all scores
        keeps = []
        for some, block, seen in _iterate_blocks(len(gathered), T):
            query, key, value = heads[:, some].unbind()
            scores = _compute_scores(query, key, block, seen)
            log_sums[some, block] = log_sum = scores.logsumexp(-1, keepdim=True)
            weights = scores.sub_(log_sum).exp_()
            keeps.append(_draw_dropout_factors(weights.shape, p))
            weights *= keeps[-1]
            gathered[some, block] = torch.bmm(weights, value[:, seen])
        ctx.save_for_backward(heads, gathered, log_sums, *keeps)
        return gathered.view(B, num_heads, T, -1).transpose(1, 2).reshape(B, T, C)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the result, (B, T, C) -> gradient of the input, (B, T, 3 C)."""
        heads, gathered, log_sums, *keeps = ctx.saved_tensors  # type: ignore[attr-defined]
        (B, T, C), D = grads[0].shape, heads.shape[-1]
        grad = grads[0].reshape(B, T, -1, D).transpose(1, 2).reshape(-1, T, D)
        # For softmax, d scores = weights * (d weights - the row's mean of d weights under the
        # weights); that mean is the product of a row's result with its gradient.
        means = (grad * gathered).sum(-1, keepdim=True)
        results = torch.zeros_like(heads)
        for keep, (some, block, seen) in zip(keeps, _iterate_blocks(len(gathered), T), strict=True):
            query, key, value = heads[:, some].unbind()
            to_query, to_key, to_value = results[:, some].unbind()
            some_grad = grad[some, block]
            scores = _compute_scores(query, key, block, seen)
            weights = scores.sub_(log_sums[some, block]).exp_()
            to_value[:, seen] += torch.bmm((weights * keep).transpose(1, 2), some_grad)
            grad_weights = torch.bmm(some_grad, value[:, seen].transpose(1, 2)).mul_(keep)
            grad_scores = grad_weights.sub_(means[some, block]).mul_(weights)
            to_query[:, block] = torch.bmm(grad_scores, key[:, seen])
            to_key[:, seen] += torch.bmm(grad_scores.transpose(1, 2), query[:, block])
        results[0] *= D**-0.5
        results = results.view(3, B, -1, T, D).permute(1, 3, 0, 2, 4)
        return results.reshape(B, T, 3 * C), None, None


def _iterate_blocks(N: int, T: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield slices: some of N heads, a block of T queries, and the keys visible to it."""
    for first in range(0, N, HEADS):
        for start in range(0, T, BLOCK):
            stop = min(start + BLOCK, T)
            yield slice(first, min(first + HEADS, N)), slice(start, stop), slice(0, stop)


def _compute_scores(query: Tensor, key: Tensor, block: slice, seen: slice) -> Tensor:
    """Compute scores of a block of queries of some heads, (n, block, seen), -inf for the future."""
    scores = torch.bmm(query[:, block], key[:, seen].transpose(1, 2))
    scores[:, :, block] += _causal_mask(block.stop - block.start, 1)
    return scores
