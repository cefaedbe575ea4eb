"""Roles of attention heads: places found by hand, weights made by hand, models made by hand."""

import math
from dataclasses import replace

import pytest
import torch
from learning import prepare, small_text

from drakegpt.config import MODEL_NAMES, preset_model
from drakegpt.data.tokenizers.bpe import BPETokenizer
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.evaluation import attribution
from drakegpt.evaluation.attribution import (
    compute_attention_weights,
    find_head_roles,
    judge_heads,
    list_places,
    sum_excess,
)
from drakegpt.models.bitlinear import quantize_
from drakegpt.models.packed_linear import pack_
from drakegpt.models.registry import build_model

CPU = torch.device("cpu")
PREVIOUS = "the previous character"


def model_of(name, vocab_size, **changes):
    torch.manual_seed(3)
    config = preset_model(name, "default", vocab_size)
    return build_model(replace(config, **changes)).eval()


def places_in(text):
    """Of each named place, what each position of a text may look at."""
    tokenizer = CharTokenizer.from_text(text)
    windows = torch.from_numpy(tokenizer.encode(text)).long()[None]
    return {name: find(windows)[0].tolist() for name, find in list_places(tokenizer).items()}


def test_places_are_those_found_by_hand():
    #         0123 45678
    found = places_in("aÉb\nba xa")
    assert found == {
        PREVIOUS: [-1, 0, 1, 2, 3, 4, 5, 6, 7],
        # at the line feed and before no line has started in the window, and b starts one itself
        "the start of the line": [-1, -1, -1, -1, -1, 4, 4, 4, 4],
        "the same character before": [-1, -1, -1, -1, 2, 0, -1, -1, 5],
        "the last vowel or space": [-1, 0, 1, 1, 1, 1, 5, 6, 6],
    }


def test_a_line_without_characters_starts_at_its_line_feed():
    found = places_in("a\n\nbb\nc")["the start of the line"]
    assert found == [-1, -1, -1, -1, 3, 3, -1]  # the second line feed is where its line starts


def test_vowels_are_letters_with_any_accent_and_spaces_of_any_width():
    text = "AeIoUåñç\u00a0\u3000\tyéÿx"
    tokenizer = CharTokenizer.from_text(text)
    find = list_places(tokenizer)["the last vowel or space"]

    def is_marked(letter):
        windows = torch.from_numpy(tokenizer.encode(f"{letter}x")).long()[None]
        return find(windows)[0, 1] == 0

    assert [letter for letter in text if is_marked(letter)] == list("AeIoUå\u00a0\u3000é")


def test_places_of_bpe_are_of_tokens():
    tokenizer = BPETokenizer.train(["the fox\nthe dog the\n" * 50], 300)
    tokens = torch.from_numpy(tokenizer.encode("the fox\nthe dog the")).long()
    pieces = [tokenizer.decode([token]) for token in tokens.tolist()]
    assert pieces == ["the", " fox", "\n", "the", " dog", " the"]
    found = {name: find(tokens[None])[0].tolist() for name, find in list_places(tokenizer).items()}
    assert found == {
        "the previous token": [-1, 0, 1, 2, 3, 4],
        "the start of the line": [-1, -1, -1, -1, 3, 3],
        "the same token before": [-1, -1, -1, 0, -1, -1],
        "the start of the word": [-1, -1, 1, 2, 2, 4],
    }


def test_the_score_is_attention_above_that_of_uniform_weights():
    """Of two heads: positions 1 and 2 have a place, and uniform weights are 1/2 and 1/3."""
    place = torch.tensor([[-1, 0, 1]])
    weights = torch.zeros(1, 2, 3, 3)
    weights[0, 0] = torch.tensor([[1, 0, 0], [0.75, 0.25, 0], [0, 1, 0]])
    weights[0, 1] = torch.tensor([[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])
    found = sum_excess(weights, place)
    assert found.tolist() == pytest.approx([0.25 + 2 / 3, 0], abs=1e-7)


def look_at_previous_(model, positions):
    """Let the only head of a model look at the position before, whatever stands there."""
    T, C = model.config.context_length, model.config.embedding_dim
    weight = torch.zeros(3, C, C)
    embedding = model.embedding
    embedding.token.weight.data.zero_()
    if positions == "learned":
        # Position t is unit vector t, and asks for unit vector t - 1.
        embedding.position.weight.data.copy_(torch.eye(T, C))
        weight[0] = 200 * torch.eye(C).roll(1, 1)  # row t - 1 is 1 at t
        weight[1] = torch.eye(C)
    else:
        # All positions have one key; the query is the key turned back by one position.
        embedding.token.weight.data[:, 0] = 1
        weight[1, 0, 0] = 1
        weight[0, 0, 0], weight[0, C // 2, 0] = 5000 * math.cos(1), -5000 * math.sin(1)
    model.attention.query_key_value.weight.data.copy_(weight.flatten(0, 1))


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_head_made_to_look_at_the_previous_character_is_found(positions):
    T = 6  # fewer than the positions after which the first angle of rotary ones comes again
    text = "abba\ncab aab\n" * 30
    tokenizer = CharTokenizer.from_text(text)
    model = model_of(
        "SingleHeadAttentionLM",
        tokenizer.vocab_size,
        context_length=T,
        embedding_dim=8,
        positions=positions,
    )
    look_at_previous_(model, positions)
    tokens = torch.from_numpy(tokenizer.encode(text)).long()
    (role,) = judge_heads(model, tokens, list_places(tokenizer), CPU)
    assert (role.layer, role.head, role.role) == (0, 0, PREVIOUS)
    assert role.score == role.scores[PREVIOUS] == max(role.scores.values())
    # In each window of six the weight is 1 and uniform weights are 1/2 to 1/6.
    expected = 1 - sum(1 / n for n in range(2, T + 1)) / (T - 1)
    assert role.score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if name != "BigramLM"])
def test_a_head_that_looks_everywhere_has_no_role(name, positions):
    data = prepare(small_text())
    model = model_of(name, data.tokenizer.vocab_size, positions=positions)
    for part, parameter in model.named_parameters():
        if part.endswith("query_key_value.weight"):
            parameter.data.zero_()
    roles = find_head_roles(model, data, CPU)
    layers = 1 if "Attention" in name else model.config.num_layers
    heads = 1 if name == "SingleHeadAttentionLM" else model.config.num_heads
    places = [(layer, head) for layer in range(layers) for head in range(heads)]
    assert [(role.layer, role.head) for role in roles] == places
    for role in roles:
        assert role.role is None
        assert len(role.scores) == 4
        assert all(abs(score) < 1e-7 for score in role.scores.values())


def test_a_model_without_attention_has_no_heads():
    data = prepare(small_text())
    assert find_head_roles(model_of("BigramLM", data.tokenizer.vocab_size), data, CPU) == ()


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("kind", ["full", "quantized", "packed"])
def test_the_weights_are_those_that_the_layer_uses(kind, positions):
    """Applied to its values, they give what the layer gives."""
    model = model_of("TransformerLM", 20, positions=positions)
    if kind != "full":
        quantize_(model, "1.58")
    if kind == "packed":
        pack_(model)
    attention = model.blocks[0].attention
    x = torch.randn(2, 7, model.config.embedding_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        weights = compute_attention_weights(attention, x)
        value = attention.query_key_value(x).chunk(3, 2)[2]
        heads = value.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        gathered = (weights @ heads).transpose(1, 2).flatten(2)
        torch.testing.assert_close(gathered, attention(x), atol=1e-5, rtol=1e-5)
    assert torch.equal(weights, weights.tril())


def test_roles_do_not_depend_on_how_many_windows_are_read_at_once(monkeypatch):
    data = prepare(small_text())
    model = model_of("TransformerLM", data.tokenizer.vocab_size, context_length=9)
    together = find_head_roles(model, data, CPU)
    monkeypatch.setattr(attribution, "MAX_WEIGHTS", 1)
    for one, other in zip(together, find_head_roles(model, data, CPU), strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-6)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_heads_are_judged_on_the_beginning_of_the_validation_split(kind, monkeypatch):
    """On its first characters, which are fewer tokens with BPE."""
    monkeypatch.setattr(attribution, "CHARACTERS", 25)
    data = prepare(small_text(), tokenizer=kind, vocab_size=300 if kind == "bpe" else None)
    model = model_of("MultiHeadAttentionLM", data.tokenizer.vocab_size, context_length=8)
    read = []
    model.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].flatten()))
    find_head_roles(model, data, CPU)
    tokens = torch.cat(read)
    assert tokens.tolist() == data.split("val")[: len(tokens)].tolist()
    characters = data.tokenizer.count_characters()[tokens].sum()
    following = data.tokenizer.count_characters()[data.split("val")[len(tokens)]]
    assert characters <= 25 < characters + following


def test_judging_leaves_the_model_as_it_was():
    data = prepare(small_text())
    model = model_of("TransformerLM", data.tokenizer.vocab_size, positions="rotary").train()
    find_head_roles(model, data, CPU)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    tokens = data.split("val")[None, :8].long()
    model(tokens).sum().backward()  # also with the tables of rotary positions that were made


def test_a_window_of_one_character_has_no_places():
    data = prepare(small_text())
    model = model_of("MultiHeadAttentionLM", data.tokenizer.vocab_size, context_length=1)
    for role in find_head_roles(model, data, CPU):
        assert (role.role, role.score, role.scores) == (None, 0.0, {})


def test_a_role_can_be_written_as_json():
    role = attribution.HeadRole(1, 2, PREVIOUS, 0.5, {PREVIOUS: 0.5})
    assert role.to_json() == {
        "layer": 1, "head": 2, "role": PREVIOUS, "score": 0.5, "scores": {PREVIOUS: 0.5},
    }  # fmt: skip
