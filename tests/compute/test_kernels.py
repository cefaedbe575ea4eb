"""The fast arithmetic computes what its formula says, forward and backward."""

import math

import pytest
import torch
from torch.nn import functional as F

from drakegpt.compute import kernels

SHAPES = [(32, 8, 32, 4), (3, 8, 32, 1), (4, 5, 24, 3), (2, 130, 64, 4), (1, 1, 8, 2)]


def plain_attention(query_key_value, num_heads, keep=None):
    """The formula of the docstring, head by head."""
    T = query_key_value.shape[1]
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    results = []
    for query, key, value in zip(
        *(part.chunk(num_heads, -1) for part in query_key_value.chunk(3, -1)), strict=True
    ):
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        results.append(scores.masked_fill(future, -math.inf).softmax(-1) @ value)
    return torch.cat(results, -1)


def with_gradient(function, *inputs, grad):
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    result = function(*inputs)
    return [result, *torch.autograd.grad(result, inputs, grad)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", ["causal_attention", "_WholeAttention", "_BlockedAttention"])
def test_attention_is_its_formula(shape, kernel):
    B, T, C, H = shape
    torch.manual_seed(0)
    inputs, grad = torch.randn(B, T, 3 * C), torch.randn(B, T, C)
    function = getattr(kernels, kernel)
    function = getattr(function, "apply", function)
    ours = with_gradient(lambda x: function(x, H, 0.0), inputs, grad=grad)
    plain = with_gradient(lambda x: plain_attention(x, H), inputs, grad=grad)
    for one, other in zip(ours, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("kernel", ["_WholeAttention", "_BlockedAttention"])
def test_attention_with_dropout_has_the_gradient_of_what_it_computes(kernel):
    """Against the difference quotient in a random direction, with the same dice each time."""
    torch.manual_seed(0)
    x, weights, step = torch.randn(2, 70, 24), torch.randn(2, 70, 8), torch.randn(2, 70, 24)

    def function(x):
        torch.manual_seed(3)
        return (getattr(kernels, kernel).apply(x, 2, 0.3) * weights).sum()

    (_, gradient) = with_gradient(function, x, grad=torch.ones(()))
    quotient = (function(x + 1e-2 * step) - function(x - 1e-2 * step)) / 2e-2
    assert (gradient * step).sum().item() == pytest.approx(quotient.item(), rel=1e-3)


@pytest.mark.parametrize("kernel", ["_WholeAttention", "_BlockedAttention"])
def test_dropout_falls_on_single_attention_weights(kernel):
    """With values of one, a result is the share of the weights kept, scaled up: mean one."""
    torch.manual_seed(1)
    x = torch.randn(50, 64, 3 * 8)
    x[..., 16:] = 1.0
    result = getattr(kernels, kernel).apply(x, 2, 0.25)
    # The first token sees only itself: kept (4/3) or dropped (0), in each head by itself.
    first = result[:, 0, ::4]
    assert {round(value, 4) for value in first.flatten().tolist()} == {0.0, 1.3333}
    assert (first > 0).float().mean().item() == pytest.approx(0.75, abs=0.15)
    assert result.mean().item() == pytest.approx(1.0, abs=0.02)
    assert result[:, -1].std() > 0.01


def test_windows_laid_side_by_side_do_not_see_each_other():
    torch.manual_seed(0)
    x = torch.randn(6, 5, 3 * 8)
    together = kernels.causal_attention(x, 2)
    for b in range(6):
        alone = kernels.causal_attention(x[b : b + 1], 2)
        assert torch.allclose(together[b : b + 1], alone, atol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.ones(1001, 333)
    result = kernels.dropout(x, p)
    spread = math.sqrt(p * (1 - p) / x.numel())
    assert (result == 0).float().mean().item() == pytest.approx(p, abs=5 * spread)
    kept = result[result != 0]
    assert kept.min() == kept.max() == pytest.approx(1 / (1 - p), rel=1e-4)
    dropped = (result == 0).float()
    for shift in (1, 2, 3, 4):  # four decisions share a random number
        both = (dropped[:, shift:] * dropped[:, :-shift]).mean().item()
        assert both == pytest.approx(p * p, abs=0.005)


def test_dropout_near_one_is_finite():
    assert kernels.dropout(torch.ones(10_000), 1 - 1e-9).isfinite().all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(7,), (40, 13), (600,)])
def test_linear_is_its_formula(bias, rows, monkeypatch):
    """Through oneDNN whatever the size, with transposed inputs as layers give them."""
    monkeypatch.setattr(kernels, "ONEDNN_FROM", 0)
    torch.manual_seed(0)
    inputs = [torch.randn(*rows, 48), torch.randn(96, 48)] + [torch.randn(96)] * bias
    grad = torch.randn(96, *rows).movedim(0, -1)
    ours = with_gradient(
        lambda x, w, *b: kernels.linear(x, w, b[0] if b else None), *inputs, grad=grad
    )
    plain = with_gradient(lambda x, w, *b: F.linear(x, w, b[0] if b else None), *inputs, grad=grad)
    assert ours[0].grad_fn.name() == "_OneDNNLinearBackward"
    for one, other in zip(ours, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-3, rtol=1e-4)


def test_linear_leaves_other_number_formats_to_pytorch(monkeypatch):
    monkeypatch.setattr(kernels, "ONEDNN_FROM", 0)
    x, weight = torch.randn(4, 8), torch.randn(6, 8)
    assert kernels.linear(x.double(), weight.double(), None).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.linear(x, weight, None).dtype == torch.bfloat16
