"""Tokens of several bytes become text: whole characters, ends, repetitions."""

import pytest
import torch

from drakegpt.config import preset_model
from drakegpt.data.tokenizers.bpe import END, BPETokenizer
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.generation.sampling import (
    Sampling,
    apply_repetition_penalty,
    generate,
    generate_batch,
)
from drakegpt.generation.text import generate_text, generate_texts
from drakegpt.models.registry import build_model

TEXT = "señor 🦊 jumps over the lazy 🐕, naïve as ever.\n" * 5


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train([TEXT], 270)


def model_of(name, vocab_size):
    torch.manual_seed(1)
    return build_model(preset_model(name, "default", vocab_size)).eval()


def following(vocab_size, **after):
    """A model that always goes on from one token to a certain other."""
    model = model_of("BigramLM", vocab_size)
    with torch.no_grad():
        model.table.weight.zero_()
        for first, second in after.items():
            model.table.weight[int(first[1:]), second] = 100.0
    return model


@pytest.mark.parametrize("seed", range(5))
def test_no_half_character_is_ever_shown(tokenizer, seed):
    """Random weights draw random bytes; what is shown early is what the whole decodes to."""
    model = model_of("GPT1LM", tokenizer.vocab_size)
    pieces = list(generate_text(model, tokenizer, "señ", 300, seed=seed))
    tokens = list(generate(model, tokenizer.encode("señ").tolist(), 300, Sampling(), seed))
    assert "".join(pieces) == tokenizer.to_bytes(tokens).decode("utf-8", "replace")


def test_a_split_character_comes_with_its_last_token():
    """Nothing was joined, so a fox is four tokens."""
    tokenizer = BPETokenizer.train(["ab"], 261)
    fox = tokenizer.encode("🦊").tolist()
    assert len(fox) == 4
    start = tokenizer.encode("a").tolist()[0]
    chain = dict(zip([start, *fox], [*fox, start], strict=True))
    model = following(tokenizer.vocab_size, **{f"t{a}": b for a, b in chain.items()})
    greedy = Sampling(temperature=0)
    assert list(generate_text(model, tokenizer, "a", 5, greedy)) == ["", "", "", "🦊", "a", ""]
    assert list(generate_text(model, tokenizer, "a", 2, greedy)) == [
        "",
        "",
        "\N{REPLACEMENT CHARACTER}",
    ]


def test_the_line_that_an_empty_prompt_begins_is_no_repetition(tokenizer):
    """A model that would always break the line breaks the first one too, penalised or not."""
    newline, a = (tokenizer.encode(letter).tolist()[0] for letter in "\na")
    model = following(tokenizer.vocab_size, **{f"t{newline}": newline})
    with torch.no_grad():
        model.table.weight[newline, a] = 50.0
    how = Sampling(temperature=0, repetition_penalty=10.0)
    assert "".join(generate_text(model, tokenizer, "", 2, how)) == "\na"
    assert "".join(generate_text(model, tokenizer, "\n", 1, how)) == "a"


def test_a_text_stops_where_its_document_ends(tokenizer):
    a, b = (tokenizer.encode(letter).tolist()[0] for letter in "ab")
    model = following(tokenizer.vocab_size, **{f"t{a}": b, f"t{b}": END, f"t{END}": a})
    greedy = Sampling(temperature=0)
    assert "".join(generate_text(model, tokenizer, "a", 6, greedy)) == "b\nab\na"
    assert "".join(generate_text(model, tokenizer, "a", 6, greedy, stop=True)) == "b"
    texts = zip(*generate_texts(model, tokenizer, "a", 6, greedy, [1, 2], stop=True), strict=True)
    assert ["".join(pieces) for pieces in texts] == ["b", "b"]


def test_texts_of_a_batch_stop_each_for_itself(tokenizer):
    model = model_of("GPT1LM", tokenizer.vocab_size)
    with torch.no_grad():
        model.head.weight[END] = 0.3 * model.head.weight.mean(0)
        model.final_norm.bias.normal_(std=2.0)
    seeds = range(6)
    together = zip(
        *generate_texts(model, tokenizer, "", 80, Sampling(), seeds, stop=True), strict=True
    )
    alone = [
        "".join(generate_text(model, tokenizer, "", 80, seed=seed, stop=True)) for seed in seeds
    ]
    assert ["".join(pieces) for pieces in together] == alone
    assert len({len(text) for text in alone}) > 1


def test_an_empty_prompt_begins_a_line_where_the_first_token_is_in_no_text(tokenizer):
    line = tokenizer.encode("\n").tolist()
    model = following(tokenizer.vocab_size, **{f"t{line[-1]}": 77})
    assert next(
        iter(generate_text(model, tokenizer, "", 1, Sampling(temperature=0)))
    ) == tokenizer.decode([77])
    letters = CharTokenizer.from_text("abc")
    assert (
        "".join(generate_text(following(3, t0=2), letters, "", 1, Sampling(temperature=0))) == "c"
    )


def test_scores_of_what_was_seen_by_hand():
    scores = torch.tensor([[2.0, -2.0, 3.0, 0.0]])
    seen = torch.tensor([[True, True, False, True]])
    assert apply_repetition_penalty(scores, seen, 2.0).tolist() == [[1.0, -4.0, 3.0, 0.0]]


@pytest.mark.parametrize("name", ["BigramLM", "TransformerLM"])
def test_with_a_high_penalty_nothing_comes_twice(name):
    model = model_of(name, 20)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(3.0)  # so that scores are positive, where dividing tells
            if name == "BigramLM":
                parameter.abs_().add_(1.0)
    sampling = Sampling(temperature=0, repetition_penalty=1e6)
    written = list(generate(model, [3, 1], 18, sampling, 0))
    assert len({3, 1, *written}) == 20
    batch = list(generate_batch(model, [3, 1], 18, sampling, [1, 2]))
    assert [row[0] for row in batch] == [row[1] for row in batch] == written


def test_a_penalty_of_one_changes_nothing():
    model = model_of("TransformerLM", 20)
    texts = [
        list(generate(model, [1], 50, sampling, 3))
        for sampling in (Sampling(), Sampling(repetition_penalty=1.0), Sampling(0.7))
    ]
    assert texts[0] == texts[1] != texts[2]
