"""The rule of what suits a text and a time."""

import pytest

from drakegpt.config import resolve
from drakegpt.config.text_settings import choose_model, choose_text_settings, choose_vocab_size


@pytest.mark.parametrize(
    ("characters", "operations", "vocab_size"),
    [(100, 1e15, 0), (299_999, 1e15, 0), (300_000, 1e15, 1024), (2_999_999, 6e12, 1024),
     (3_000_000, 6e12, 2048), (10**9, 1e15, 2048), (10**9, 1.4e12, 0)],
)  # fmt: skip
def test_the_tokens_follow_from_the_text_and_the_time(characters, operations, vocab_size):
    assert choose_vocab_size(characters, operations) == vocab_size


@pytest.mark.parametrize("bpe", [False, True])
@pytest.mark.parametrize("operations", [0, 1e10, 1.3e13, 1e16])
def test_the_settings_are_those_of_a_run_with_a_time(bpe, operations):
    settings = choose_text_settings(operations, bpe=bpe)
    config = resolve(choose_model(bpe=bpe), "default", "d", settings | {"minutes": 1.0})
    assert config.recipe == "best"
    assert config.tie_embeddings == bpe
    assert config.max_epochs > 0


@pytest.mark.parametrize("bpe", [False, True])
def test_more_time_is_a_longer_context(bpe):
    short, long = (choose_text_settings(operations, bpe=bpe) for operations in (1e12, 1e14))
    assert short["context_length"] < long["context_length"]
