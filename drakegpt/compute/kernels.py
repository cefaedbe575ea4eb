"""The arithmetic of the layers, done the way the processor at hand does it fastest.

You need not read this to understand the models: `linear`, `dropout` and
`causal_attention` compute what `F.linear`, `F.dropout` and PyTorch's
`F.scaled_dot_product_attention` compute, and on a GPU call these, but for the
gradients of biases and norms (`triton_kernels`). On a CPU it pays to choose, and
what decides was measured (`drakegpt bench` measures again):

    linear     oneDNN multiplies large float32 matrices up to twice as fast as the
               library behind `torch.mm`, above all on AMD; small ones it does not
    attention  the fused kernel is made for long windows: for eight tokens nearly
               all of its time is a softmax over rows too short for vector units
    dropout    PyTorch draws a random number for every activation, one by one

Nothing here has parameters, and nothing knows about training loops or text.
"""

import importlib.util
import logging
import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

log = logging.getLogger("drakegpt")

# A matrix product of so many multiplications or more goes to oneDNN.
ONEDNN_FROM = 2**21
# Softmax is vectorised over rows of 16 and more: shorter windows are laid side by side.
ROW = 16
# Attention weights, B * H * T * T, up to which they are computed and kept as a whole.
WHOLE_UP_TO = 2**20
# Queries that share a block of attention weights where those are not kept.
BLOCK = 64
# Heads that are computed together there, so that their block fits a CPU's caches.
HEADS = 24
# Activations from which a kernel in Triton pays: that of fewer takes longer to compile than to run.
TRITON_FROM = 2**20
# Dropout decides with 16 random bits.
LEVELS = 2**16


# --- Linear -------------------------------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X @ weight.T + bias: (..., K), (N, K), (N,) -> (..., N)."""
    if torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    large = x.numel() * weight.shape[0] >= ONEDNN_FROM
    if large and x.device.type == "cpu" and _in_float32(x, weight) and _onednn():
        result: Tensor = _OneDNNLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    learning = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    if learning and _for_triton(x) and not torch.is_autocast_enabled():
        return _GPULinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return F.linear(x, weight, bias)


def _in_float32(x: Tensor, weight: Tensor) -> bool:
    return x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


@cache
def _onednn() -> bool:
    """Whether this PyTorch has oneDNN, and the operator through which it is called here."""
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and known


class _OneDNNLinear(torch.autograd.Function):
    """The linear layer through oneDNN, forward and backward.

    The operator is the one that `torch.compile` itself calls; it has no
    derivative of its own, so that is written out: for y = x W' + b,
    dx = dy W, dW = dy' x and db = the sum of dy over all rows.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(..., K), (N, K), (N,) -> (..., N)."""
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias, each where it is wanted, from the result's."""
        (grad,) = grads
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            _product(grad, weight.t()) if wants_x else None,
            _product(rows.t(), x.reshape(-1, x.shape[-1]).t()) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


class _GPULinear(torch.autograd.Function):
    """The linear layer with a bias on a GPU, where the bias' gradient is a kernel of its own."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(..., K), (N, K), (N,) -> (..., N)."""
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias."""
        from drakegpt.compute.triton_kernels import column_sums

        (grad,) = grads
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        rows = grad.reshape(-1, grad.shape[-1])
        for_weight = rows.t() @ x.reshape(-1, x.shape[-1])
        return grad @ weight, for_weight, column_sums(rows)


def _for_triton(x: Tensor) -> bool:
    return x.is_cuda and x.numel() >= TRITON_FROM and triton_works()


@cache
def triton_works() -> bool:
    """Whether Triton is here, with a GPU and the C compiler that it needs: a kernel is tried."""
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        return False
    try:
        from drakegpt.compute.triton_kernels import column_sums

        column_sums(torch.ones(2, 8, device="cuda"))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("Triton does not work here, so training is slower: %s", reason)
        return False
    return True


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """X @ weight.T + bias by oneDNN, for float32 on a CPU."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


# --- Layer norm ---------------------------------------------------------------------------------


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` for many activations on a GPU where Triton works."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        if not _for_triton(x):
            return super().forward(x)
        from drakegpt.compute import triton_kernels

        result: Tensor = triton_kernels.LayerNorm.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.eps
        )
        return result


def with_quick_norms_(model: nn.Module) -> None:
    """Let a model's layer norms be those that may compute by `triton_kernels`, in place."""
    for module in model.modules():
        if type(module) is nn.LayerNorm:
            module.__class__ = LayerNorm


# --- Dropout ------------------------------------------------------------------------------------


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each number with probability `p`, divide the others by 1 - p (training only)."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    return x * _keep(x.shape, p).to(x.dtype)


def _keep(shape: torch.Size, p: float) -> Tensor:
    """What to multiply by: 0 with probability `p`, else what keeps the mean; float32.

    Four decisions from one random draw of 64 bits. `p` is rounded to a multiple
    of 1/65536, and the factor of what is kept fits that probability exactly.
    """
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64)
    bits.random_(-(2**63), None)
    dropped = min(round(p * LEVELS), LEVELS - 1)
    keep = torch.empty(shape)
    levels = bits.view(torch.int16)[:count].view(shape)
    torch.ge(levels, dropped - LEVELS // 2, out=keep)
    return keep.mul_(LEVELS / (LEVELS - dropped))


# --- Attention ----------------------------------------------------------------------------------


def causal_attention(query_key_value: Tensor, num_heads: int, p: float = 0.0) -> Tensor:
    """Scaled dot-product attention of Vaswani et al. 2017, section 3.2, never looking ahead.

    `query_key_value`: (B, T, 3 C), the three of each token side by side, each
    made of `num_heads` heads. Dropout `p` falls on the attention weights. Returns
    (B, T, C), the heads' results side by side. With queries, keys and values of
    one head as (B, T, D):

        scores = query @ key.transpose(-2, -1) / math.sqrt(D)       (B, T, T)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)         column after row
        weights = scores.masked_fill(future, -math.inf).softmax(-1)
        result = F.dropout(weights, p) @ value                      (B, T, D)
    """
    B, T, _ = query_key_value.shape
    if query_key_value.device.type == "cpu" and not torch.compiler.is_compiling():
        whole = kept_whole(B, T, num_heads)
        if whole or p:
            attention = _WholeAttention if whole else _BlockedAttention
            with torch.autocast("cpu", enabled=False):
                result: Tensor = attention.apply(  # type: ignore[no-untyped-call]
                    query_key_value.float(), num_heads, p
                )
            return result.to(query_key_value.dtype)
    query, key, value = _heads(query_key_value, num_heads)
    return fused_attention(query, key, value, p)


def fused_attention(query: Tensor, key: Tensor, value: Tensor, p: float = 0.0) -> Tensor:
    """Causal attention by PyTorch's own kernel: three of (B, H, T, D) -> (B, T, C), C = H D."""
    gathered = F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
    return gathered.transpose(1, 2).flatten(2)


def kept_whole(B: int, T: int, num_heads: int) -> bool:
    """Whether the attention weights are few enough to be computed and kept as a whole."""
    return B * num_heads * T * T <= WHOLE_UP_TO


def _heads(query_key_value: Tensor, num_heads: int) -> tuple[Tensor, ...]:
    """(B, T, 3 C) -> queries, keys and values, each (B, H, T, D), without a copy.

    By chunks: the gradients of the three are put side by side by one copy, where
    taking them out of a permuted whole takes two.
    """
    parts = query_key_value.chunk(3, dim=2)
    return tuple(part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in parts)


class _WholeAttention(torch.autograd.Function):
    """Attention in the plain way, for small batches of short windows.

    Windows shorter than a row of the vector units are laid side by side, several
    in one; the mask keeps them apart. R such rows of L = S T tokens.
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
        scores = torch.baddbmm(_mask(T, side_by_side), query, key.transpose(1, 2), alpha=scale)
        weights = scores.softmax(-1)
        keep = _keep(weights.shape, p) if p else None
        dropped = weights if keep is None else weights * keep
        ctx.save_for_backward(heads, weights, dropped, keep)  # type: ignore[arg-type]
        ctx.scale = scale  # type: ignore[attr-defined]
        gathered = torch.bmm(dropped, value).view(rows[0], num_heads, rows[1], -1)
        return gathered.transpose(1, 2).reshape(B, T, C)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the result, (B, T, C), -> that of the input, (B, T, 3 C)."""
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
def _mask(T: int, side_by_side: int) -> Tensor:
    """What is added to the scores of `side_by_side` windows: 0, or -inf for what is not seen."""
    window = torch.ones(T, T, dtype=torch.bool).tril()
    seen = torch.block_diag(*[window] * side_by_side)
    return torch.zeros(seen.shape).masked_fill_(~seen, -math.inf)


class _BlockedAttention(torch.autograd.Function):
    """Attention with dropout for long windows, never holding all the weights at once.

    After Dao et al. 2022: queries go in blocks, each with the keys that it can
    see; of the weights only the logarithm of each row's sum is kept. The way
    back computes them again, but takes what was dropped from the way there,
    which is half as many numbers as the weights. The heads of all windows are
    alike here: N = B H of them, a few at a time.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, query_key_value: Tensor, num_heads: int, p: float) -> Tensor:
        """(B, T, 3 C) -> (B, T, C)."""
        B, T, C = *query_key_value.shape[:2], query_key_value.shape[2] // 3
        heads = torch.stack(_heads(query_key_value, num_heads)).flatten(1, 2)  # (3, N, T, D)
        gathered = torch.empty_like(heads[0])
        log_sums = torch.empty(*gathered.shape[:2], 1)
        heads[0] *= (C // num_heads) ** -0.5  # the queries here, once, instead of all scores
        keeps = []
        for some, block, seen in _blocks(len(gathered), T):
            query, key, value = heads[:, some].unbind()
            scores = _scores(query, key, block, seen)
            log_sums[some, block] = log_sum = scores.logsumexp(-1, keepdim=True)
            weights = scores.sub_(log_sum).exp_()
            keeps.append(_keep(weights.shape, p))
            weights *= keeps[-1]
            gathered[some, block] = torch.bmm(weights, value[:, seen])
        ctx.save_for_backward(heads, gathered, log_sums, *keeps)
        return gathered.view(B, num_heads, T, -1).transpose(1, 2).reshape(B, T, C)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the result, (B, T, C), -> that of the input, (B, T, 3 C)."""
        heads, gathered, log_sums, *keeps = ctx.saved_tensors  # type: ignore[attr-defined]
        (B, T, C), D = grads[0].shape, heads.shape[-1]
        grad = grads[0].reshape(B, T, -1, D).transpose(1, 2).reshape(-1, T, D)
        # For softmax, d scores = weights * (d weights - the row's mean of d weights under the
        # weights); that mean is the product of a row's result with its gradient.
        means = (grad * gathered).sum(-1, keepdim=True)
        results = torch.zeros_like(heads)
        for keep, (some, block, seen) in zip(keeps, _blocks(len(gathered), T), strict=True):
            query, key, value = heads[:, some].unbind()
            to_query, to_key, to_value = results[:, some].unbind()
            some_grad = grad[some, block]
            scores = _scores(query, key, block, seen)
            weights = scores.sub_(log_sums[some, block]).exp_()
            to_value[:, seen] += torch.bmm((weights * keep).transpose(1, 2), some_grad)
            grad_weights = torch.bmm(some_grad, value[:, seen].transpose(1, 2)).mul_(keep)
            grad_scores = grad_weights.sub_(means[some, block]).mul_(weights)
            to_query[:, block] = torch.bmm(grad_scores, key[:, seen])
            to_key[:, seen] += torch.bmm(grad_scores.transpose(1, 2), query[:, block])
        results[0] *= D**-0.5
        results = results.view(3, B, -1, T, D).permute(1, 3, 0, 2, 4)
        return results.reshape(B, T, 3 * C), None, None


def _blocks(N: int, T: int) -> Iterator[tuple[slice, slice, slice]]:
    """Some of N heads, a block of T queries, and the keys that some of these can see."""
    for first in range(0, N, HEADS):
        for start in range(0, T, BLOCK):
            stop = min(start + BLOCK, T)
            yield slice(first, min(first + HEADS, N)), slice(start, stop), slice(0, stop)


def _scores(query: Tensor, key: Tensor, block: slice, seen: slice) -> Tensor:
    """Scores of a block of some heads' queries, (n, block, seen), -inf for the future."""
    scores = torch.bmm(query[:, block], key[:, seen].transpose(1, 2))
    scores[:, :, block] += _mask(block.stop - block.start, 1)
    return scores
