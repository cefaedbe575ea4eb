"""Layers of few bits compute what the papers say, and learn through the rounding."""

import dataclasses

import pytest
import torch
from learning import losses_on_one_batch
from torch import nn

from drakegpt.compute.replay import KernelTrace
from drakegpt.config import preset_model
from drakegpt.models.bitlinear import (
    BitLinear,
    quantize_,
    quantize_activations,
    quantize_binary,
    quantize_ternary,
    quantize_weight,
)
from drakegpt.models.layers import Linear
from drakegpt.models.loss import next_token_loss
from drakegpt.models.registry import build_model

WITH_LAYERS = (
    "SingleHeadAttentionLM",
    "MultiHeadAttentionLM",
    "BlocksLM",
    "ResidualBlocksLM",
    "TransformerLM",
)
both = pytest.mark.parametrize("bits", ["1.58", "1"])


def build(name="TransformerLM", seed=0, **changes):
    torch.manual_seed(seed)
    return build_model(dataclasses.replace(preset_model(name, "default", 80), **changes))


def layer(weight, bias=None, bits="1.58", parts=1, normed=False):
    linear = Linear(len(weight[0]), len(weight), bias=bias is not None)
    linear.weight.data = torch.tensor(weight)
    if bias is not None:
        linear.bias.data = torch.tensor(bias)
    return BitLinear(linear, bits, parts, normed=normed)


# --- Rounding -----------------------------------------------------------------------------------


def test_ternary_by_hand():
    """Mean of sizes: (2 + 0.5 + 0.1 + 1.4) / 4 = 1; ratios 2, -0.5, 0.1, 1.4; half goes to even."""
    codes, scales = quantize_ternary(torch.tensor([[2.0, -0.5], [0.1, 1.4]]))
    assert codes.tolist() == [[1, 0], [0, 1]]
    assert scales.tolist() == [1.0]


def test_signs_by_hand():
    """Mean (3 + 1 - 1 + 1) / 4 = 1, of sizes 1.5: what equals the mean is positive."""
    codes, scales = quantize_binary(torch.tensor([[3.0, 1.0], [-1.0, 1.0]]))
    assert codes.tolist() == [[1, 1], [-1, 1]]
    assert scales.tolist() == [1.5]


@both
def test_the_sign_of_nothing_is_positive_and_no_scale_is_zero(bits):
    codes, scales = quantize_weight(torch.zeros(2, 3), bits)
    assert codes.tolist() == [[1.0 if bits == "1" else 0.0] * 3] * 2
    assert scales.item() == pytest.approx(1e-5)


def test_activations_by_hand():
    """Each token by its own largest: s = 127 / 2 and 127 / 4; 31.75 is rounded, 63.5 to even."""
    codes, scales = quantize_activations(torch.tensor([[2.0, -2.0, 0.5], [-4.0, 2.0, 0.0]]))
    assert codes.tolist() == [[127, -127, 32], [-127, 64, 0]]
    assert scales.tolist() == [[63.5], [31.75]]


def test_activations_of_zero_stay_zero():
    codes, scales = quantize_activations(torch.zeros(2, 3))
    assert codes.tolist() == [[0.0] * 3] * 2
    assert scales[0].item() == pytest.approx(127e5)


def test_activations_need_no_clipping():
    torch.manual_seed(0)
    x = torch.randn(10_000, 7) * torch.logspace(-30, 30, 10_000)[:, None]
    assert quantize_activations(x)[0].abs().max() == 127


@both
def test_parts_have_scales_of_their_own(bits):
    torch.manual_seed(0)
    weights = [torch.randn(4, 6) * size for size in (0.1, 1.0, 10.0)]
    codes, scales = quantize_weight(torch.cat(weights), bits, parts=3)
    for part, weight in enumerate(weights):
        own_codes, own_scale = quantize_weight(weight, bits)
        assert torch.equal(codes[4 * part : 4 * part + 4], own_codes)
        assert torch.equal(scales[part : part + 1], own_scale)


# --- The layer ----------------------------------------------------------------------------------


def test_forward_by_hand():
    """x: s = 63.5, codes 127, -127, 32. W: scale 1, codes 1, 0, 0 and 0, -1, 1. y = sum / s + b."""
    bit = layer([[2.0, 0.25, 0.25], [-0.5, -1.0, 2.0]], bias=[10.0, 20.0])
    y = bit(torch.tensor([[2.0, -2.0, 0.5]]))
    assert y.tolist() == [[pytest.approx(127 / 63.5 + 10), pytest.approx((127 + 32) / 63.5 + 20)]]


def test_forward_of_signs_by_hand():
    """The same x; W has mean 0.5 and sizes of mean 1: codes 1, -1, -1 and -1, -1, 1."""
    bit = layer([[2.0, 0.25, 0.25], [-0.5, -1.0, 2.0]], bits="1")
    y = bit(torch.tensor([[2.0, -2.0, 0.5]]))
    expected = [(127 + 127 - 32) / 63.5, (-127 + 127 + 32) / 63.5]
    assert y.tolist() == [[pytest.approx(value) for value in expected]]


def test_backward_by_hand():
    """Of y = W x as rounded: dx = W' dy, dW = dy x', db = dy, with x = 2, -2, 32 / 63.5."""
    bit = layer([[2.0, 0.25, 0.25], [-0.5, -1.0, 2.0]], bias=[10.0, 20.0])
    x = torch.tensor([[2.0, -2.0, 0.5]], requires_grad=True)
    bit(x).backward(torch.tensor([[3.0, 5.0]]))
    third = 32 / 63.5
    assert torch.allclose(x.grad, torch.tensor([[3.0, -5.0, 5.0]]))
    expected = torch.tensor([[6.0, -6.0, 3 * third], [10.0, -10.0, 5 * third]])
    assert torch.allclose(bit.weight.grad, expected)
    assert bit.bias.grad.tolist() == [3.0, 5.0]


@both
@pytest.mark.parametrize("parts", [1, 3])
def test_gradients_are_those_of_a_plain_layer_of_the_rounded_values(bits, parts):
    torch.manual_seed(0)
    bit = BitLinear(Linear(10, 12), bits, parts, normed=False)
    x = torch.randn(2, 5, 10, requires_grad=True)
    grad = torch.randn(2, 5, 12)
    ours = torch.autograd.grad(bit(x), [x, bit.weight, bit.bias], grad)
    with torch.no_grad():
        (codes, scales), (whole, s) = bit.quantize(), quantize_activations(x)
        plain = nn.Linear(10, 12)
        plain.weight.copy_(codes * scales.repeat_interleave(12 // parts)[:, None])
        plain.bias.copy_(bit.bias)
    rounded = (whole / s).requires_grad_()
    expected = torch.autograd.grad(plain(rounded), [rounded, plain.weight, plain.bias], grad)
    assert torch.allclose(bit(x), plain(rounded), atol=1e-5)
    for one, other in zip(ours, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_layer_takes_over_weights_and_throws_no_dice():
    linear = Linear(4, 3)
    state = torch.get_rng_state()
    bit = BitLinear(linear, "1.58", normed=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert bit.weight is linear.weight
    assert bit.bias is linear.bias
    assert list(bit.state_dict()) == ["weight", "bias", "norm.weight", "norm.bias"]


# --- In a model ---------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("name", WITH_LAYERS)
def test_every_weight_in_the_blocks_is_of_few_values(name, bits):
    model = quantize_(build(name), bits)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "head"}
    assert layers
    for module in layers.values():
        assert isinstance(module, BitLinear)
        codes, _ = module.quantize()
        assert set(codes.unique().tolist()) == ({-1, 0, 1} if bits == "1.58" else {-1, 1})
    assert type(model.head) is Linear


def test_the_layout_of_a_block():
    block = quantize_(build(), "1.58").blocks[1]
    assert block.attention.query_key_value.parts == 3
    assert block.projection.parts == block.feed_forward.widen.parts == 1
    normed = [n for n, m in block.named_modules() if isinstance(m, nn.LayerNorm)]
    assert normed == [
        "attention_norm",
        "projection.norm",
        "feed_forward_norm",
        "feed_forward.narrow.norm",
    ]


def test_weights_and_embeddings_stay():
    before = build().state_dict()
    after = quantize_(build(), "1").state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    added = sorted(set(after) - set(before))
    assert len(added) == 12
    assert all(".norm." in name for name in added)


@both
def test_a_model_of_few_bits_learns(bits):
    losses = losses_on_one_batch(quantize_(build(dropout=0.0), bits))
    assert losses[-1] < losses[0] - 0.5


@both
def test_training_steps_can_be_played_from_a_tape(bits):
    """The weights change between plays, and with them all scales and codes."""
    model = quantize_(build(), bits)
    parameters = list(model.parameters())
    tokens, targets = torch.randint(80, (2, 32, 8))

    def step():
        loss = next_token_loss(model(tokens), targets)
        gradients = torch.autograd.grad(loss, parameters)
        return torch.cat([loss.view(1), *(gradient.flatten() for gradient in gradients)])

    tape = KernelTrace(step)
    for seed in range(3):
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        torch.manual_seed(seed)
        played = tape().clone()
        torch.manual_seed(seed)
        assert torch.equal(played, step())


@both
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from within torch.compile
def test_a_block_compiles_in_one_piece(bits):
    """Traced whole, rounding and its gradient included; no code is made of it here."""
    block = quantize_(build(dropout=0.0), bits).blocks[0]
    x = torch.randn(4, 8, block.projection.in_features, requires_grad=True)
    inputs, grad = [x, *block.parameters()], torch.randn_like(x)
    expected = [block(x), *torch.autograd.grad(block(x), inputs, grad)]
    block.compile(backend="aot_eager", fullgraph=True)
    results = [block(x), *torch.autograd.grad(block(x), inputs, grad)]
    for result, wanted in zip(results, expected, strict=True):
        assert torch.allclose(result, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@both
@pytest.mark.parametrize("parts", [1, 3])
def test_a_gpu_rounds_as_a_cpu_does(bits, parts):
    torch.manual_seed(0)
    bit = BitLinear(Linear(64, 96), bits, parts, normed=False)
    x = torch.randn(2, 5, 64, requires_grad=True)
    grad = torch.randn(2, 5, 96)
    codes, scales = quantize_activations(x)
    expected = [bit(x), *torch.autograd.grad(bit(x), [x, bit.weight, bit.bias], grad)]
    moved, there = bit.cuda(), x.detach().cuda().requires_grad_()
    for result, wanted in zip(quantize_activations(there), (codes, scales), strict=True):
        assert torch.equal(result.cpu(), wanted)
    inputs = [there, moved.weight, moved.bias]
    results = [moved(there), *torch.autograd.grad(moved(there), inputs, grad.cuda())]
    for result, wanted in zip(results, expected, strict=True):
        assert torch.allclose(result.cpu(), wanted, rtol=1e-4, atol=1e-5)


def test_a_model_without_layers_to_replace_is_refused():
    for model in (build("BigramLM"), quantize_(build(), "1.58")):
        with pytest.raises(ValueError, match="no linear layers"):
            quantize_(model, "1.58")


def test_a_rounding_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="must be 1.58 or 1, not 2"):
        quantize_(build(), "2")
