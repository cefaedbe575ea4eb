"""What is remembered gives the scores that the whole forward pass gives."""

from dataclasses import replace

import pytest
import torch

from drakegpt.config import MODEL_NAMES, preset_model
from drakegpt.generation import kv_cache
from drakegpt.generation.context_window import ContextReader
from drakegpt.generation.kv_cache import CachedModel, uses_attention
from drakegpt.models.registry import build_model

T = 40
READERS = [name for name in MODEL_NAMES if name != "BigramLM"]

each_reader = pytest.mark.parametrize("name", READERS)
# The last block takes the last token apart from the others, or never does.
apart_or_not = pytest.mark.parametrize("apart_from", [0, 10**9])


def model_of(name, context_length=T, **changes):
    torch.manual_seed(1)
    config = preset_model(name, "default", 20)
    return build_model(replace(config, context_length=context_length, **changes)).eval()


def tokens_of(texts, length=T):
    return torch.randint(20, (texts, length), generator=torch.Generator().manual_seed(texts))


def close(ours, expected):
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_only_attention_looks_back():
    assert [name for name in MODEL_NAMES if uses_attention(model_of(name))] == READERS


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@each_reader
@apart_or_not
@pytest.mark.parametrize("start", [1, 2, 3, 17, T])
@torch.no_grad()
def test_every_step_gives_the_logits_of_the_whole_window(
    name, positions, apart_from, start, monkeypatch
):
    monkeypatch.setattr(kv_cache, "MIN_SEPARATE_ACTIVATIONS", apart_from)
    model, tokens = model_of(name, positions=positions), tokens_of(3)
    expected = model(tokens)
    cached = CachedModel(model, 3)
    for _ in range(2):  # what a longer text left behind must not be seen
        cached.restart(start)
        close(cached.read(tokens[:, :start]), expected[:, start - 1])
        for t in range(start, T):
            close(cached.read_next(tokens[:, t : t + 1]), expected[:, t])


@each_reader
@apart_or_not
@torch.no_grad()
def test_one_prompt_serves_all_texts(name, apart_from, monkeypatch):
    monkeypatch.setattr(kv_cache, "MIN_SEPARATE_ACTIVATIONS", apart_from)
    model = model_of(name)
    tokens = tokens_of(4)
    tokens[:, :9] = tokens[0, :9]
    expected = model(tokens)
    cached = CachedModel(model, 4)
    cached.restart(9)
    close(cached.read(tokens[:1, :9]).expand(4, -1), expected[:, 8])
    for t in range(9, T):
        close(cached.read_next(tokens[:, t : t + 1]), expected[:, t])


@each_reader
@pytest.mark.parametrize("window", ["exact", "cached"])
@pytest.mark.parametrize("context_length", [1, 2, 3, 8, 33])
@torch.no_grad()
def test_a_reader_sees_the_right_window_at_every_step(name, window, context_length):
    """Played from tapes too: scores of texts three times as long as the context."""
    model = model_of(name, context_length)
    tokens = tokens_of(2, 3 * context_length + 5)
    tokens[:, :2] = tokens[0, :2]
    reader = ContextReader(model, 2, window)
    seen = tokens[:, :2][:, -context_length:]
    close(reader.start(tokens[0, :2].tolist()), model(seen)[:, -1])
    for t in range(2, tokens.shape[1]):
        if seen.shape[1] == context_length:
            keep = context_length if window == "exact" else max(1, context_length // 2)
            seen = torch.cat([seen, tokens[:, t : t + 1]], dim=1)[:, -keep:]
        else:
            seen = torch.cat([seen, tokens[:, t : t + 1]], dim=1)
        close(reader(tokens[:, t : t + 1]), model(seen)[:, -1])


@torch.no_grad()
def test_the_weights_are_shared_and_the_model_is_left_alone():
    model = model_of("TransformerLM")
    parts = [type(module) for module in model.modules()]
    cached = CachedModel(model, 1)
    assert [type(module) for module in model.modules()] == parts
    cached.restart(3)
    before = cached.read(tokens_of(1, 3))
    model.blocks[0].attention.query_key_value.weight.mul_(2)
    model.head.bias.add_(1)
    close(cached.read(tokens_of(1, 3)), model(tokens_of(1, 3))[:, -1])
    assert not torch.equal(cached.read(tokens_of(1, 3)), before)


@torch.no_grad()
def test_large_layers_with_many_outputs_store_them_by_column(monkeypatch):
    """In the copy only: the model may still be trained, and its layers stay as they are."""
    monkeypatch.setattr(kv_cache, "STORED_BY_COLUMN_FROM", 0)
    model, tokens = model_of("TransformerLM"), tokens_of(2)
    cached = CachedModel(model, 2)
    cached.restart(T)
    close(cached.read(tokens), model(tokens)[:, -1])
    ours = dict(cached._model.named_parameters())
    other = {name for name, weight in model.named_parameters() if ours.get(name) is not weight}
    assert {name.split(".", 2)[2] for name in other if "blocks.0" in name} == {
        "attention.query_key_value.weight", "feed_forward.widen.weight"
    }  # fmt: skip
    assert all(weight.is_contiguous() for weight in model.parameters())


class Halved(torch.nn.Module):
    """Some other kind of linear layer."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x) / 2


@torch.no_grad()
def test_linear_layers_may_be_of_any_kind():
    model = model_of("TransformerLM")
    for block in model.blocks:
        block.attention.query_key_value = Halved(block.attention.query_key_value)
        block.feed_forward.widen = Halved(block.feed_forward.widen)
    tokens = tokens_of(2)
    expected = model(tokens)
    cached = CachedModel(model, 2)
    cached.restart(5)
    close(cached.read(tokens[:, :5]), expected[:, 4])
    for t in range(5, T):
        close(cached.read_next(tokens[:, t : t + 1]), expected[:, t])


@torch.no_grad()
def test_what_is_known_is_not_computed_again(monkeypatch):
    """Up to the context length each layer sees each token of each text once."""
    model = model_of("TransformerLM")
    rows = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            rows[name] = 0

            def count(module, inputs, name=name):
                rows[name] += inputs[0].shape[:-1].numel()

            module.register_forward_pre_hook(count)
    monkeypatch.setattr(kv_cache, "MIN_SEPARATE_ACTIVATIONS", 0)
    cached = CachedModel(model, 2)
    tokens = tokens_of(2)
    cached.restart(T // 2)
    cached.read(tokens[:, : T // 2])
    for t in range(T // 2, T):
        cached.read_next(tokens[:, t : t + 1])
    results = 2 * (T // 2 + 1)  # those of the last block that are read
    expected = dict.fromkeys(rows, 2 * T)
    expected |= {name: results for name in rows if name.startswith("blocks.2") or name == "head"}
    expected["blocks.2.attention.query_key_value"] = 2 * T
    assert rows == expected
