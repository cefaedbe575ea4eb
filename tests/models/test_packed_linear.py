"""Packed weights come back exactly, and compute what the model computed before."""

import copy
import dataclasses
import importlib.util
import itertools
import os
import subprocess
import sys
import types
from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from drakegpt import compute
from drakegpt.compute.replay import KernelTrace
from drakegpt.config import preset_model
from drakegpt.models import packed_linear as packed
from drakegpt.models.bitlinear import BitLinear, quantize_, quantize_activations
from drakegpt.models.packed_linear import (
    PackedLinear,
    count_bytes,
    count_packed_bytes,
    load_packed_,
    multiply_integers,
    pack_,
    pack_bytes,
    prepare_packed_,
    quantize_after_training_,
    unpack_bytes,
)
from drakegpt.models.registry import build_model

BLOCKS = ("BlocksLM", "ResidualBlocksLM", "TransformerLM")
VALUES = {"8": list(range(-127, 128)), "1.58": [-1, 0, 1], "1": [-1, 1]}
every_width = pytest.mark.parametrize("bits", list(VALUES))


def build(name="TransformerLM", seed=0, **changes):
    torch.manual_seed(seed)
    config = dataclasses.replace(preset_model(name, "default", 80), **changes)
    model = build_model(config).eval()
    for parameter in model.parameters():  # norms and biases too shall be something of their own
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def tokens(batch=4):
    return torch.randint(80, (batch, 8), generator=torch.Generator().manual_seed(batch))


# --- Bytes --------------------------------------------------------------------------------------


def test_five_ternary_codes_by_hand():
    """Digits 2, 1, 0, 1, 2, the lowest first: 2 + 1 * 3 + 0 * 9 + 1 * 27 + 2 * 81 = 194."""
    assert pack_bytes(torch.tensor([1, 0, -1, 0, 1], dtype=torch.int8), "1.58").tolist() == [194]


def test_eight_signs_by_hand():
    """Digits 1, 0, 0, 1, 0, 0, 0, 1, the lowest first: 1 + 8 + 128 = 137."""
    codes = torch.tensor([1, -1, -1, 1, -1, -1, -1, 1], dtype=torch.int8)
    assert pack_bytes(codes, "1").tolist() == [137]


def test_every_byte_of_five_codes():
    every = list(itertools.product(VALUES["1.58"], repeat=5))
    codes = torch.tensor(every, dtype=torch.int8)
    packed = pack_bytes(codes, "1.58")
    assert sorted(packed.tolist()) == list(range(243))
    assert torch.equal(unpack_bytes(packed, "1.58", codes.shape), codes)


@every_width
@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 13), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_any_shape_comes_back(bits, shape, seed):
    chance = torch.Generator().manual_seed(seed)
    values = torch.tensor(VALUES[bits], dtype=torch.int8)
    codes = values[torch.randint(len(values), shape, generator=chance)]
    packed = pack_bytes(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == count_packed_bytes(codes.numel(), bits)
    back = unpack_bytes(packed, bits, tuple(shape))
    assert back.dtype == torch.int8
    assert torch.equal(back, codes)


@pytest.mark.parametrize("byte", [243, 255])
def test_a_byte_that_is_not_five_codes_is_refused(byte):
    with pytest.raises(ValueError, match=f"byte {byte}"):
        unpack_bytes(torch.tensor([7, byte], dtype=torch.uint8), "1.58", (2, 5))


@every_width
def test_bytes_of_another_number_or_type_are_refused(bits):
    packed = pack_bytes(torch.ones(3, 7, dtype=torch.int8), bits)
    for wrong in (packed[1:], torch.cat([packed, packed]), packed.view(torch.int8), packed[None]):
        with pytest.raises(ValueError, match="21 weights"):
            unpack_bytes(wrong, bits, (3, 7))


# --- The product --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 24, 16), (1, 1, 16), (3, 1, 5), (1, 24, 1), (1, 1, 1)])
@pytest.mark.parametrize("strides", [(0, 1), (1, 1), (7, 1), (None, 1)])
def test_strides_that_mean_nothing_change_nothing(shape, strides):
    """Unguarded, `torch._int_mm` returns garbage for these."""
    M, K, N = shape
    torch.manual_seed(0)
    x = torch.randint(-127, 128, (M, K), dtype=torch.int8)
    weight = torch.randint(-1, 2, (N, K), dtype=torch.int8)
    expected = x.int() @ weight.int().t()
    row = strides[0] if strides[0] is not None else K
    some_x = x.as_strided((M, K), (row, 1)) if M == 1 else x
    some_weight = weight.as_strided((N, K), (row, 1)) if N == 1 else weight
    assert torch.equal(multiply_integers(some_x, some_weight), expected)


def test_the_guard_is_needed():
    """Where this is skipped everywhere, PyTorch has mended `_int_mm`, and `_dense` may go."""
    x, weight = torch.full((1, 24), 3, dtype=torch.int8), torch.ones(16, 24, dtype=torch.int8)
    garbage = torch._int_mm(x.as_strided((1, 24), (0, 1)), weight.t())
    if torch.equal(garbage, x.int() @ weight.int().t()):
        pytest.skip("this processor's kernel reads the strides rightly")


@every_width
def test_a_layer_reads_a_single_token_however_it_lies(bits):
    """A row repeated over a batch of one has stride 0, as `torch.compile` too makes them."""
    model = quantize_after_training_(build(), bits)
    layer = model.blocks[0].feed_forward.widen
    x = torch.randn(32)
    expected = layer(x.view(1, 1, 32))
    for odd in (x.expand(1, 1, 32), x.as_strided((1, 1, 32), (0, 0, 1)), x[None]):
        assert torch.equal(layer(odd).view(-1), expected.view(-1))


# --- In a model ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("bits", ["1.58", "1"])
@pytest.mark.parametrize("name", ["SingleHeadAttentionLM", "MultiHeadAttentionLM", *BLOCKS])
def test_packed_models_compute_what_trained_ones_do(name, bits, batch):
    """Not only within 1e-4: sums of whole numbers are exact, whoever adds them up."""
    model = quantize_(build(name), bits)
    expected = model(tokens(batch))
    packed = pack_(model)
    assert not any(isinstance(module, BitLinear) for module in packed.modules())
    assert torch.equal(packed(tokens(batch)), expected)


@torch.no_grad()
@pytest.mark.parametrize("bits", ["1.58", "1"])
@pytest.mark.parametrize("name", BLOCKS)
def test_rounding_after_training_changes_weights_only(name, bits):
    """The same as layers of few bits in which no norms were added."""
    model = build(name)
    rounded = copy.deepcopy(model)
    for part, linear in list(rounded.named_modules()):
        if isinstance(linear, nn.Linear) and part != "head":
            parts = 3 if part.endswith("query_key_value") else 1
            rounded.set_submodule(part, BitLinear(linear, bits, parts=parts, normed=False))
    packed = quantize_after_training_(model, bits)
    assert torch.equal(packed(tokens()), rounded(tokens()))


@torch.no_grad()
@pytest.mark.parametrize("name", BLOCKS)
def test_eight_bits_after_training_change_little(name):
    model = build(name)
    expected = model(tokens())
    packed = quantize_after_training_(model, "8")
    error = (packed(tokens()) - expected).std() / expected.std()
    assert 0 < error < 0.03


def test_eight_bits_by_hand():
    """The largest of each row is 127: rows of 2, -1 and of 0, 0.5."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    model[0].weight.data = torch.tensor([[2.0, -1.0], [0.0, 0.5]])
    layer = quantize_after_training_(model, "8")[0]
    assert layer.codes.tolist() == [[127, -64], [0, 127]]
    assert layer.scales.tolist() == [pytest.approx(2 / 127), pytest.approx(0.5 / 127)]


@torch.no_grad()
@every_width
def test_packed_models_can_be_played_from_a_tape(bits):
    model = quantize_after_training_(build(), bits)
    window = tokens(1)[:, :1].clone()
    tape = KernelTrace(lambda: model(window))
    for token in (3, 77):
        window.fill_(token)
        assert torch.equal(tape(), model(window))


def test_weights_are_never_floats():
    """Neither in memory nor while computing: no float tensor is as large as a weight."""
    model = pack_(quantize_(build(), "1.58"))
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in tree_iter(out):
                new = tensor.untyped_storage().data_ptr() not in known
                seen.append(tensor.numel() if new and tensor.is_floating_point() else 0)
            return out

    with Watch():
        model(tokens(1)[:, :1])
    assert max(seen) < model.blocks[0].projection.codes.numel()
    assert not any(parameter.requires_grad for parameter in model.parameters())


# --- State --------------------------------------------------------------------------------------


def make(bits, normed, name="TransformerLM"):
    model = build(name)
    return pack_(quantize_(model, bits)) if normed else quantize_after_training_(model, bits)


def skeleton(bits, normed, name="TransformerLM"):
    return prepare_packed_(build(name, seed=9), bits, normed=normed).eval()


@pytest.mark.parametrize(
    ("bits", "normed"), [("8", False), ("1.58", False), ("1.58", True), ("1", False), ("1", True)]
)
@pytest.mark.parametrize("name", BLOCKS)
def test_saved_and_loaded_gives_the_same_logits(name, bits, normed, tmp_path):
    from safetensors.torch import load_file, save_file

    model = make(bits, normed, name)
    state = model.state_dict()
    assert not any(name.endswith((".codes", "value.weight")) for name in state)
    save_file(state, tmp_path / "w.safetensors")
    loaded = load_packed_(skeleton(bits, normed, name), load_file(tmp_path / "w.safetensors"))
    assert torch.equal(loaded(tokens()), model(tokens()))
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in state.items())


WIDEN = "blocks.1.feed_forward.widen"


@pytest.mark.parametrize(
    ("part", "damage", "message"),
    [
        ("packed", lambda t: t[:-1], "bytes, not"),
        ("packed", lambda t: t.to(torch.int16), "int16"),
        ("packed", lambda t: t.index_fill(0, torch.tensor([3]), 250), "byte 250"),
        ("packed", lambda t: None, "missing"),
        ("scales", lambda t: t * torch.nan, "positive"),
        ("scales", lambda t: -t, "positive"),
        ("scales", lambda t: t.repeat(2), "size mismatch"),
        ("scales", lambda t: t.double(), "float64"),
        ("scales", lambda t: None, "missing"),
        ("bias", lambda t: t[1:], "size mismatch"),
        ("bias", lambda t: None, "Missing"),
        ("extra", lambda t: torch.ones(1), "Unexpected"),
    ],
)
def test_damaged_states_are_refused(part, damage, message):
    state = dict(make("1.58", True).state_dict())
    state[f"{WIDEN}.{part}"] = damage(state.get(f"{WIDEN}.{part}"))
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    with pytest.raises(ValueError, match=message) as caught:
        load_packed_(skeleton("1.58", True), state)
    assert WIDEN in str(caught.value)


@pytest.mark.parametrize("other", [("1", True), ("8", True), ("1.58", False)])
def test_a_state_of_another_kind_is_refused(other):
    with pytest.raises(ValueError, match=r"blocks\.0"):
        load_packed_(skeleton(*other), make("1.58", True).state_dict())


def test_models_that_cannot_be_packed_are_refused():
    with pytest.raises(ValueError, match="not trained with low-bit weights"):
        pack_(build())
    with pytest.raises(ValueError, match="no linear layers"):
        quantize_after_training_(build("BigramLM"), "8")
    with pytest.raises(ValueError, match="no linear layers"):
        prepare_packed_(build("BigramLM"), "1", normed=True)
    with pytest.raises(ValueError, match="not 2"):
        quantize_after_training_(build(), "2")


# --- Counting -----------------------------------------------------------------------------------


def test_bytes_of_the_scaled_model():
    """10,616,832 weights in 24 layers: 1.6 bits each on disk, 8 in memory."""
    model = build_model(preset_model("TransformerLM", "scaled", 80))
    assert count_bytes(model).packed == 0
    assert count_bytes(model).resident == count_bytes(model).remainder == 4 * 10_800_464
    count = count_bytes(prepare_packed_(model, "1.58", normed=False))
    lengths = [-(-n // 5) for n in (384 * 1152, 384 * 384, 384 * 1536, 384 * 1536)]
    scales = 4 * (3 + 1 + 1 + 1)
    assert count.packed == 6 * (sum(lengths) + scales)
    assert count.remainder == 4 * (10_800_464 - 10_616_832)
    assert count.resident == count.remainder + 10_616_832 + 6 * scales


@every_width
def test_what_is_counted_is_what_is_stored(bits):
    model = quantize_after_training_(build(), bits)
    stored = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert count_bytes(model).packed + count_bytes(model).remainder == stored
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    assert len(layers) == 12


def test_where_int8_products_overflow_floats_take_over(monkeypatch):
    """As on a processor without VNNI; the same whole numbers, also for many columns."""
    torch.manual_seed(0)
    x, weight = (torch.randint(-127, 128, (n, 2500), dtype=torch.int8) for n in (3, 5))
    x[0], weight[0] = 127, 127
    expected = x.long() @ weight.long().t()
    assert torch.equal(packed.multiply_integers(x, weight).long(), expected)
    monkeypatch.setattr(packed, "_int_mm_is_exact", lambda: False)
    assert torch.equal(packed.multiply_integers(x, weight).long(), expected)


def test_a_processor_without_vnni_is_found_out():
    """Run by oneDNN as if on one: 8-bit weights still multiply exactly."""
    code = (
        "import torch\n"
        "from drakegpt.models.packed_linear import multiply_integers\n"
        "x = torch.full((4, 127), 127, dtype=torch.int8)\n"
        "assert (multiply_integers(x, x) == 127**3).all()\n"
    )
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=60)


# --- On a GPU -----------------------------------------------------------------------------------


def gpu(test):
    here = torch.cuda.is_available()
    return pytest.mark.gpu(pytest.mark.skipif(not here, reason="needs an NVIDIA GPU")(test))


@pytest.mark.parametrize("scale", [0.0, 1e-7, 1.0, 1e6])
def test_activations_are_rounded_in_fewer_kernels_alike(scale):
    x = scale * torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(1))
    codes, scales = packed.quantize_activations_to_bfloat16(x)
    expected, expected_scales = quantize_activations(x)
    assert codes.dtype == torch.bfloat16
    assert torch.equal(codes.float(), expected)
    assert torch.equal(scales, expected_scales)


@pytest.mark.parametrize("levels", [1, 127])
@pytest.mark.parametrize("columns", [1, 1024, 2500])
def test_parts_of_a_bfloat16_product_are_summed_exactly(levels, columns, monkeypatch):
    """By the largest numbers there are; a CPU multiplies in float32 what a GPU does there."""
    monkeypatch.setattr(packed, "_multiply_to_float32", lambda x, w: x.float() @ w.float().t())
    x, weight = torch.full((2, columns), 127), torch.full((3, columns), levels)
    weight[0, 0] = -levels
    exact = packed.EXACT if levels == 127 else packed.EXACT_LOW_BIT
    assert exact * 127 * levels < 2**24
    product = packed.multiply_in_bfloat16(x.bfloat16(), weight.bfloat16(), exact)
    assert torch.equal(product.long(), x @ weight.t())


def one_layer(bits, N, K, bias=True, parts=1):
    torch.manual_seed(N)
    name = "layer" if parts == 1 else "query_key_value"
    linear = nn.ModuleDict({name: nn.Linear(K, N, bias=bias)})
    return quantize_after_training_(linear, bits)[name]


@gpu
@torch.no_grad()
@every_width
@pytest.mark.parametrize("with_kernels", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (32, 1), (3, 1), (2, 8), (1, 256), (2, 257)])
@pytest.mark.parametrize(
    ("N", "K"), [(1152, 384), (384, 1536), (768, 3072), (96, 33), (5, 1), (16, 5000)]
)
def test_a_gpu_computes_what_a_cpu_does(bits, shape, N, K, with_kernels, monkeypatch):
    """A layer without a norm, to the last bit: sums are whole numbers, all else is elementwise."""
    if not with_kernels:
        monkeypatch.setattr(packed, "_load_packed_kernels", lambda _: None)
    layer = one_layer(bits, N, K, bias=N != 1152, parts=3 if N == 1152 else 1)
    x = torch.randn(*shape, K)
    expected = layer(x)
    assert torch.equal(layer.cuda()(x.cuda()).cpu(), expected)


ODD_ACTIVATIONS = {
    "ties": lambda x: (2 * x).round().clamp(-253, 253).index_fill(-1, torch.tensor(0), 254) / 2,
    "zeros": torch.zeros_like,
    "below the floor": lambda x: 1e-6 * x,
    "tiny": lambda x: 1e-41 * x,
    "huge": lambda x: 1e36 * x,
    "largest": lambda x: torch.full_like(x, 127),
    "not a number": lambda x: x.index_fill(0, torch.tensor(0), torch.nan),
}


@gpu
@torch.no_grad()
@every_width
@pytest.mark.parametrize("rows", [1, 32])
@pytest.mark.parametrize("odd", list(ODD_ACTIVATIONS))
def test_a_gpu_rounds_odd_activations_as_a_cpu_does(bits, rows, odd):
    layer = one_layer(bits, 96, 384)
    x = ODD_ACTIVATIONS[odd](50 * torch.randn(rows, 384))
    expected = layer(x)
    found = layer.cuda()(x.cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@gpu
@torch.no_grad()
@every_width
def test_few_rows_on_a_gpu_are_for_triton(bits, monkeypatch):
    """Where it is there it is used, and nothing else computes a thing."""
    pytest.importorskip("triton")
    layer = one_layer(bits, 384, 384).cuda()
    monkeypatch.delattr(packed, "quantize_activations_to_bfloat16")
    for rows in (1, 32):
        assert layer(torch.randn(rows, 384, device="cuda")).shape == (rows, 384)
    with pytest.raises(NameError):
        layer(torch.randn(4096, 384, device="cuda"))


class OnGPU(torch.Tensor):
    """A tensor on the CPU that says it is on a GPU."""

    is_cuda = True


@torch.no_grad()
def test_few_rows_on_a_gpu_are_given_to_the_kernel(monkeypatch):
    """The module of the kernel is the real one, though Triton is not: its names are called."""
    for name in ("triton", "triton.language"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    spec = importlib.util.find_spec("drakegpt.compute.packed_kernels")
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    monkeypatch.setattr(kernels, "packed_linear", lambda *given: given)
    monkeypatch.setattr(packed, "_load_packed_kernels", lambda _: kernels)
    layer, x = one_layer("1.58", 8, 16), torch.randn(2, 16).as_subclass(OnGPU)
    activations, codes, scales, bias = layer(x)
    assert torch.equal(activations, x)
    assert (codes is layer.codes, scales is layer.scales, bias is layer.bias) == (True,) * 3


def test_without_triton_nothing_is_said(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "drakegpt.compute.packed_kernels", raising=False)
    monkeypatch.delattr(compute, "packed_kernels", raising=False)
    assert packed._load_packed_kernels.__wrapped__(torch.device("cuda", 0)) is None
    assert not caplog.records


def test_where_triton_cannot_compile_it_is_said_and_done_without(monkeypatch, caplog):
    def compile_kernel(device):
        raise RuntimeError("Failed to find C compiler.\nPlease specify one.")

    monkeypatch.delattr(compute, "packed_kernels", raising=False)
    kernels = types.SimpleNamespace(compile_kernel=compile_kernel)
    monkeypatch.setitem(sys.modules, "drakegpt.compute.packed_kernels", kernels)
    assert packed._load_packed_kernels.__wrapped__(torch.device("cuda", 0)) is None
    (warning,) = caplog.messages
    assert warning.endswith("slower on cuda:0: Failed to find C compiler.")


@gpu
@torch.no_grad()
@every_width
def test_a_gpu_and_back(bits):
    """Codes stay what they are: in bytes, in the state, and on the way back."""
    model = quantize_after_training_(build(), bits)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    codes = model.blocks[0].projection.codes.clone()
    logits, size = model(tokens()), count_bytes(model)
    on_gpu = copy.deepcopy(model).cuda()
    assert count_bytes(on_gpu) == size
    torch.testing.assert_close(on_gpu(tokens().cuda()).cpu(), logits, rtol=0.05, atol=0.05)
    for name, tensor in on_gpu.state_dict().items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor.cpu(), state[name])
    back = on_gpu.cpu()
    assert back.blocks[0].projection.codes.dtype == torch.int8
    assert torch.equal(back.blocks[0].projection.codes, codes)
    assert torch.equal(back(tokens()), logits)
