"""Surprise against models whose every probability is known."""

import math

import pytest
import torch
from learning import prepare, train
from report_pages import ending_with

from drakegpt.config import resolve
from drakegpt.evaluation.surprisal import (
    MAX_LENGTH,
    MIN_LENGTH,
    compute_token_surprisals,
    compute_verse_surprisals,
    find_verse,
)
from drakegpt.models.registry import build_model
from drakegpt.runs.checkpoint import save_checkpoint
from drakegpt.runs.scores import score_run

STANZA = "a line of some length, made for this\n" * 5


def with_end(end, name="d", **how):
    """A dataset whose validation split is `end`."""
    data = prepare(ending_with(end), name, **how)
    assert data.text("val", 10**6) == end
    return data


def surprise_of_run(run, verse):
    return compute_verse_surprisals(run.load_model(torch.device("cpu")), run.load_dataset(), verse)


def model_of(name="TransformerLM", vocab_size=7, **settings):
    torch.manual_seed(3)
    config = resolve(name, "default", "", settings).model_settings(vocab_size)
    return build_model(config).eval()


def test_a_model_that_knows_nothing_needs_the_logarithm_of_the_vocabulary():
    model = model_of("BigramLM")
    torch.nn.init.zeros_(model.table.weight)
    bits = compute_token_surprisals(model, torch.randint(7, (50,)), 40)
    assert bits.shape == (40,)
    assert bits.tolist() == pytest.approx([math.log2(7)] * 40)


def test_a_table_of_pairs_is_read_as_it_stands():
    model = model_of("BigramLM", vocab_size=2)
    chances = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    with torch.no_grad():
        model.table.weight.copy_(chances.log())
    bits = compute_token_surprisals(model, torch.tensor([0, 0, 1, 0, 1, 1]), 5)
    expected = [2, -math.log2(0.75), 1, -math.log2(0.75), 1]
    assert bits.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("length", [2, 5, 8, 9, 10, 30])
@pytest.mark.parametrize("count", [1, 4, 29])
def test_each_token_is_seen_from_as_many_before_it_as_the_model_can_take(length, count):
    """Against one window for each token."""
    model, T = model_of(), 8
    tokens = torch.randint(7, (length,), generator=torch.Generator().manual_seed(1))
    count = min(count, length - 1)
    expected = []
    for place in range(length - count, length):
        with torch.no_grad():
            logits = model(tokens[None, max(0, place - T) : place])[0, -1]
        expected.append(-logits.double().log_softmax(-1)[tokens[place]].item() / math.log(2))
    assert compute_token_surprisals(model, tokens, count).tolist() == pytest.approx(
        expected, abs=1e-5
    )


def test_the_mean_agrees_with_the_score_where_the_windows_do(prepared):
    """A table looks at one token, so its windows make no difference."""
    run = train(prepared, "BigramLM", iters=30)
    val = torch.cat([prepared.split("train")[-1:], prepared.split("val")])
    bits = compute_token_surprisals(run.load_model(torch.device("cpu")), val, len(val) - 1)
    assert bits.mean().item() == pytest.approx(score_run(run).val.bits_per_character, abs=1e-5)


def test_the_verse_is_the_first_whole_stanza_that_is_long_enough():
    data = with_end("rest of a song\n\ntoo short\n\n" + STANZA + "\nanother\n\n" + STANZA)
    verse = find_verse(data)
    assert verse.text == STANZA.rstrip()
    assert verse.before == "rest of a song\n\ntoo short\n\n"
    assert find_verse(data) == verse


def test_a_long_stanza_is_cut_at_a_lines_end():
    verse = find_verse(with_end("x\n\n" + STANZA * 5))
    assert MIN_LENGTH <= len(verse.text) <= MAX_LENGTH
    assert (STANZA * 5).startswith(verse.text + "\n")


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("first\n" + "second line\n" * 12, ("second line\n" * 12).rstrip()),  # no blank line
        ("tiny\n\n" + "text\ntiny\n\n" * 14, ("text\ntiny\n\n" * 14).rstrip()),  # no long stanza
        ("w" * 900, "w" * MAX_LENGTH),  # one word
        ("word " * 200, ("word " * 80).rstrip()),  # one line
        ("twenty letters here.", "twenty letters here."),  # hardly anything
    ],
    ids=["lines", "couplets", "word", "line", "short"],
)
def test_texts_without_stanzas_have_a_verse_too(end, expected):
    data = with_end(end)
    verse = find_verse(data)
    assert verse.text == expected
    assert end.startswith(verse.before + verse.text)


def test_a_split_of_line_feeds_is_a_verse_of_line_feeds():
    verse = find_verse(with_end("\n" * 500))
    assert 0 < len(verse.text) <= MAX_LENGTH
    assert verse.text == "\n" * len(verse.text)


OLD = "a line that the training text has too\n" * 4
NEW = "a line of which the training text has none\n" * 4


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (f"x\n\n{OLD}\n{NEW}\n{NEW}", NEW.rstrip()),  # a stanza
        (f"x\n\n{OLD}{NEW}{OLD}", NEW.rstrip()),  # lines of one
        (f"x\n{OLD}{NEW}{OLD}", NEW.rstrip()),  # lines of a text without stanzas
        ("x\n\n" + "old lines\n" * 20 + "\n" + NEW, NEW.rstrip()),  # short ones, known by chance
    ],
    ids=["stanza", "in a stanza", "no stanza", "short lines"],
)
@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_the_verse_is_of_new_lines(end, expected, tokenizer):
    before = (OLD + "old lines\n") * 60
    data = prepare(before[-9 * len(end) :] + end, "d", tokenizer=tokenizer)
    assert data.text("val", 10**6) == end
    verse = find_verse(data)
    assert (verse.text, verse.new) == (expected, True)
    assert end.startswith(verse.before + verse.text)


def test_a_verse_that_is_not_new_says_so():
    data = prepare(OLD * 10, "d")
    verse = find_verse(data)
    assert not verse.new
    assert OLD.endswith(verse.text + "\n")


def test_pieces_of_characters_are_the_characters():
    data = with_end("x\n\n" + STANZA)
    run, verse = train(data, "TransformerLM"), find_verse(data)
    pieces = surprise_of_run(run, verse)
    assert [piece.text for piece in pieces] == list(verse.text)
    assert all(piece.bits > 0 for piece in pieces)
    tokens = torch.cat([data.split("train"), data.split("val")])
    end = len(data.split("train")) + len(verse.before + verse.text)
    again = compute_token_surprisals(
        run.load_model(torch.device("cpu")), tokens[:end], len(verse.text)
    )
    assert [piece.bits for piece in pieces] == pytest.approx(again.tolist())


HARD = "שלום 😀😀 naïve “quotes” 日本語\n" * 6  # up to four bytes a character


@pytest.mark.parametrize("vocab_size", [261, 300, 600])
def test_no_character_is_lost_where_tokens_are_parts_of_characters(vocab_size):
    data = with_end("x\n\n" + HARD + "\nend", tokenizer="bpe", vocab_size=vocab_size)
    verse = find_verse(data)
    pieces = surprise_of_run(train(data, "TransformerLM"), verse)
    assert "".join(piece.text for piece in pieces) == verse.text == HARD.rstrip()
    if vocab_size == 261:  # a token is a byte
        assert [piece.text for piece in pieces] == list(verse.text)
        face = next(piece for piece in pieces if piece.text == "😀")
        assert face.bits > 2 * min(piece.bits for piece in pieces)


def test_tokens_that_reach_beyond_the_verse_are_cut_to_it():
    data = prepare("abc abc abc abc " * 60, tokenizer="bpe", vocab_size=280)
    verse = find_verse(data)
    for text, before in (("bc ab", "a"), ("c", "ab"), ("b", "a"), ("abc abc", "")):
        start = verse.text.index(text, len(before))
        part = type(verse)(text, verse.text[:start])
        pieces = surprise_of_run(train(data, "TransformerLM"), part)
        assert "".join(piece.text for piece in pieces) == text


def test_other_tokens_of_the_same_text_have_the_same_verse():
    end = "x\n\n" + STANZA + "\nend\n"
    letters, bpe = with_end(end), with_end(end, name="bpe", tokenizer="bpe", vocab_size=300)
    verse = find_verse(letters)
    assert find_verse(bpe).text == verse.text
    pieces = surprise_of_run(train(bpe, "TransformerLM"), verse)
    assert "".join(piece.text for piece in pieces) == verse.text
    assert len(pieces) < len(verse.text)


def test_a_diverged_model_is_no_reason_to_stop():
    data = with_end("x\n\n" + STANZA)
    run = train(data, "BigramLM")
    size = data.tokenizer.vocab_size
    weights = {"table.weight": torch.full((size, size), math.nan)}
    save_checkpoint(run.folder / "checkpoints", 9, weights, {}, {})
    assert all(math.isnan(piece.bits) for piece in surprise_of_run(run, find_verse(data)))
