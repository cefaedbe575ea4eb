"""No run of the training text is longer than allowed: beside plain searches of the texts."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drakegpt.config import preset_model
from drakegpt.data.suffix_array import build_suffix_array
from drakegpt.data.tokenizers.bpe import BPETokenizer
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.generation.copy_limit import CopyLimit
from drakegpt.generation.sampling import Sampling, generate_batch
from drakegpt.generation.text import generate_text, generate_texts
from drakegpt.models.mixture import Mixture
from drakegpt.models.registry import build_model

CPU = torch.device("cpu")
SONG = "la la la, the night is long\nla la la, the road is long\nöl, oil, 🎵🎵 la la\n" * 3

# Repeats, NUL, a carriage return, and characters of two and four bytes.
pieces = st.sampled_from(
    ["a", "b", "ab", "aaa", "\0", "\r\n", "é", "🎵", "🎵🎶", "\N{REPLACEMENT CHARACTER}"]
)
texts = st.lists(pieces, max_size=20).map("".join)
alphabet = "".join(sorted(set("ab\0\r\né🎵🎶\N{REPLACEMENT CHARACTER}")))


def completes_run(text, piece, source, longest):
    """Whether a piece makes a run in the text that is too long, and ends in the piece."""
    whole = text + piece
    ends = range(max(len(text) + 1, longest + 1), len(whole) + 1)
    return any(whole[end - longest - 1 : end] in source for end in ends)


def expected(text, pieces, source, longest):
    while True:
        found = [i for i, piece in enumerate(pieces) if completes_run(text, piece, source, longest)]
        if len(found) < len(pieces):
            return found
        longest += 1


@given(texts, texts, st.integers(1, 6))
def test_characters_are_forbidden_that_would_complete_a_run(source, text, longest):
    limit = CopyLimit(build_suffix_array(source.encode()), CharTokenizer(alphabet), longest)
    assert limit.forbid(text, b"") == expected(text, alphabet, source, longest)
    all_forbidden = all(completes_run(text, piece, source, longest) for piece in alphabet)
    assert limit.exceeded == all_forbidden


BPE = BPETokenizer.train([SONG], 300)


@given(
    st.sampled_from([SONG, "la the road 🎵\0", ""]), texts | st.just(SONG[:50]), st.integers(1, 12)
)
def test_so_are_tokens_of_several_characters_and_parts_of_one(source, text, longest):
    limit = CopyLimit(build_suffix_array(source.encode()), BPE, longest)
    for pending in (b"", "ö".encode()[:1], "🎵".encode()[:3]):
        completed = [limit.read(pending, token)[0] for token in range(BPE.vocab_size)]
        assert limit.forbid(text, pending) == expected(text, completed, source, longest)


def lively(name, vocab_size):
    torch.manual_seed(2)
    config = replace(preset_model(name, "default", vocab_size), context_length=8)
    return build_model(config).eval()


def longest_run(text, source, start):
    """The longest run that ends after `start` characters of the text."""
    return max(
        (
            end - begin
            for end in range(start + 1, len(text) + 1)
            for begin in range(end)
            if text[begin:end] in source
        ),
        default=0,
    )


@pytest.mark.parametrize("name", ["BigramLM", "TransformerLM"])
@pytest.mark.parametrize("tokenizer", [CharTokenizer.from_text(SONG), BPE], ids=["char", "bpe"])
@pytest.mark.parametrize("longest", [2, 5])
@pytest.mark.parametrize("how", [Sampling(), Sampling(0), Sampling(0.8, 4, 0.9)], ids=str)
def test_texts_hold_no_longer_run(name, tokenizer, longest, how):
    model, source = lively(name, tokenizer.vocab_size), build_suffix_array(SONG.encode())
    for prompt in ("", "la la la, the"):
        limit = CopyLimit(source, tokenizer, longest)
        ask = (model, tokenizer, prompt, 60, how, [1, 2, 3], "exact")
        steps = list(generate_texts(*ask, limit=limit))
        together = ["".join(step[index] for step in steps) for index in range(3)]
        assert limit.exceeded == 0
        for seed, text in enumerate(together, 1):
            assert longest_run(prompt + text, SONG, len(prompt)) <= longest
            one = (model, tokenizer, prompt, 60, how, seed, "exact")
            assert "".join(generate_text(*one, limit=CopyLimit(source, tokenizer, longest))) == text


def test_a_limit_that_is_never_reached_changes_nothing():
    tokenizer = CharTokenizer.from_text(SONG)
    model = lively("TransformerLM", tokenizer.vocab_size)
    limit = CopyLimit(build_suffix_array(SONG.encode()), tokenizer, 900)
    ask = (model, [], 400, Sampling(), [1, 2])
    assert list(generate_batch(*ask, limit=limit)) == list(generate_batch(*ask))


def test_texts_of_several_models_are_watched_too():
    tokenizer = CharTokenizer.from_text(SONG)
    model = lively("TransformerLM", tokenizer.vocab_size)
    limit = CopyLimit(build_suffix_array(SONG.encode()), tokenizer, 2)
    text = "".join(generate_text(Mixture((model, model)), tokenizer, "", 300, seed=1, limit=limit))
    assert longest_run(text, SONG, 0) <= 2
    free = "".join(generate_text(Mixture((model, model)), tokenizer, "", 300, seed=1))
    assert longest_run(free, SONG, 0) > 2


def test_where_every_token_is_forbidden_the_shortest_run_is_written():
    tokenizer = CharTokenizer("ab")
    source = build_suffix_array(b"ab aa ba bb aab")  # all pairs stand in it, and one of three
    limit = CopyLimit(source, tokenizer, 1)
    assert limit.forbid("aa", b"") == [1]
    assert limit.exceeded == 1
