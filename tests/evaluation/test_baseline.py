"""What counting reaches: known figures, losses counted slowly, and a source of known entropy."""

import json
import math
import os
from itertools import accumulate
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kneser_ney import KneserNey
from markov import known_loss, markov_dataset, sampling_error

from drakegpt.data.ngrams import fit
from drakegpt.data.prepare import prepare_dataset
from drakegpt.data.sources import fetch
from drakegpt.data.windows import sequential_windows
from drakegpt.errors import CorpusError
from drakegpt.evaluation import baseline
from drakegpt.evaluation.baseline import compute_losses, score_ngram_baselines
from drakegpt.evaluation.scoring import get_validation_tokens

PAGES = Path(__file__).parents[2] / ".readme"
RESULTS = json.loads((PAGES / "results.json").read_text(encoding="utf-8"))


def slow_loss(train, val, vocab_size, context_length, order):
    """Window by window, token by token; the first is predicted from the last of `train`."""
    counts = KneserNey(train, vocab_size, order)
    tokens, total = torch.tensor([train[-1], *val]), 0.0
    for inputs, targets in sequential_windows(tokens, context_length, 5):
        for window, following in zip(inputs.tolist(), targets.tolist(), strict=True):
            for t, target in enumerate(following):
                total -= math.log(counts.probability(window[: t + 1], target))
    return total / len(val)


letters = st.integers(0, 3)


@given(
    train=st.lists(letters, min_size=1, max_size=60),
    val=st.lists(letters, min_size=1, max_size=20),
    context_length=st.integers(1, 9),
    at_once=st.integers(1, 12),
    highest=st.integers(1, 5),
)
@settings(deadline=None)
def test_losses_are_those_of_dictionaries(train, val, context_length, at_once, highest):
    """Whatever is scored at once: it bounds the memory and nothing else."""
    with patch.object(baseline, "TOKENS_PER_PART", at_once):
        counts = fit(np.array(train, np.uint8), 4, highest)
        found = compute_losses(counts, np.array([train[-1], *val], np.uint8), context_length)
    slow = [slow_loss(train, val, 4, context_length, n) for n in range(1, highest + 1)]
    assert found == pytest.approx(slow, abs=1e-12)


def test_floors_of_a_dataset(prepared):
    train, val = (prepared.split(name).numpy() for name in ("train", "val"))
    found = score_ngram_baselines(prepared, 8)
    assert [baseline.order for baseline in found] == [1, 2, 3, 4, 5, 6, 7]
    counts = fit(train, prepared.tokenizer.vocab_size, 7)
    expected = compute_losses(counts, np.concatenate([train[-1:], val]), 8)
    assert [baseline.score.loss for baseline in found] == expected
    assert {baseline.score.tokens for baseline in found} == {prepared.metadata.val_tokens}
    text = train.tolist()
    runs = [len({tuple(text[at : at + n]) for at in range(len(text) - n + 1)}) for n in range(1, 8)]
    assert [baseline.ngrams for baseline in found] == list(accumulate(runs))
    bits = expected[0] / math.log(2)
    assert found[0].score.bits_per_character == pytest.approx(bits)
    assert all(baseline.per_character for baseline in found)
    # Bigrams look at one token, which every window has.
    for context_length in (1, 3):
        shorter = score_ngram_baselines(prepared, context_length)
        assert [baseline.order for baseline in shorter] == list(range(1, context_length + 2))
        assert [f.score.loss for f in shorter[:2]] == [f.score.loss for f in found[:2]]
    assert score_ngram_baselines(prepared, 3)[3].score.loss > found[3].score.loss


def test_floors_over_tokens_of_several_characters(corpus):
    data = prepare_dataset(
        corpus, name="pieces", source="", provenance="", source_sha256="",
        tokenizer="bpe", vocab_size=300,
    )  # fmt: skip
    for counts in score_ngram_baselines(data, 8):
        score = counts.score
        assert score.characters == len(corpus) - int(len(corpus) * 0.9) > score.tokens
        bits = score.loss / math.log(2) * score.tokens / score.characters
        assert score.bits_per_character == pytest.approx(bits)
        assert not counts.per_character


def test_damaged_tokens_are_not_counted(prepared):
    path = prepared.folder / "train.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorpusError, match="another checksum"):
        score_ngram_baselines(prepared, 8)


@pytest.mark.parametrize("context_length", [2, 8, 30_000])
def test_on_a_markov_source_the_right_order_reaches_its_entropy(context_length):
    data = markov_dataset(300_000)
    found = {f.order: f.score.loss for f in score_ngram_baselines(data, context_length)}
    tokens = data.metadata.val_tokens
    entropy = known_loss(context_length)
    error = 4 * sampling_error(context_length, tokens)
    assert error < 0.03
    assert found[1] == pytest.approx(math.log(4), abs=0.01)
    assert found[2] == pytest.approx(math.log(4), abs=0.01)
    assert found[3] == pytest.approx(entropy, abs=error)
    assert all(loss > entropy - error for loss in found.values())
    # Beyond the right order the counts are only thinner; by the same tokens, without that error.
    longer = [loss for order, loss in found.items() if order > 3]
    assert all(found[3] < loss < found[3] + 0.01 for loss in longer)


def test_on_the_same_tokens_nothing_beats_the_source():
    """Given the very letters drawn, the source's own loss leaves hardly any chance."""
    data = markov_dataset(300_000)
    letters = get_validation_tokens(data).tolist()
    own = [math.log(4)] + [
        -math.log(0.85 if (a + b) % 4 == c else 0.05)
        for a, b, c in zip(letters, letters[1:], letters[2:], strict=False)
    ]
    best = math.fsum(own) / len(own)
    found = {f.order: f.score.loss for f in score_ngram_baselines(data, len(own))}
    # 48 free parameters from 270,000 letters cost some 48 / 2 / 270,000 nats.
    assert best - 0.0005 < found[3] < best + 0.0005
    assert min(found.values()) > best - 0.0005


@pytest.mark.parametrize(
    ("context_length", "expected"),
    [(8, [1.8639, 1.8177, 1.8131, 1.8149]), (64, [1.7551, 1.6881, 1.6774, 1.6773])],
)
def test_known_losses_of_the_bundled_lyrics(home, context_length, expected):
    """Of orders 4 to 7."""
    baselines = score_ngram_baselines(fetch("sample").dataset, context_length)
    found = [each.score.loss for each in baselines]
    assert found[3:] == pytest.approx(expected, abs=1e-4)


@pytest.mark.skipif("TINY_SHAKESPEARE" not in os.environ, reason="needs tiny Shakespeare")
@pytest.mark.parametrize(
    ("context_length", "expected", "error"),
    [
        (8, [1.8548, 1.7561, 1.7379, 1.7361], 1e-4),
        (64, [1.7359, 1.5844, 1.5483, 1.5424], 1e-4),
        (128, [1.7272, 1.5724, 1.5348, 1.5289], 1e-4),
        (111_540, [1.7191, 1.5612, 1.5226, 1.5165], 1e-3),  # one window
    ],
)
def test_known_losses_of_tiny_shakespeare(home, context_length, expected, error):
    data = tiny_shakespeare()
    found = score_ngram_baselines(data, context_length)
    assert [baseline.score.loss for baseline in found][3:] == pytest.approx(expected, abs=error)


def tiny_shakespeare():
    text = Path(os.environ["TINY_SHAKESPEARE"]).read_text(encoding="utf-8")
    return prepare_dataset(text, name="s", source="", provenance="", source_sha256="")


@pytest.mark.skipif("TINY_SHAKESPEARE" not in os.environ, reason="needs tiny Shakespeare")
def test_the_baselines_on_the_pages_are_those_of_tiny_shakespeare(home):
    data = tiny_shakespeare()
    found = score_ngram_baselines(data, 8)
    shown = RESULTS["n-grams"]["rows"]
    assert [str(baseline.order) for baseline in found] == list(shown)
    for counts, row in zip(found, shown.values(), strict=True):
        assert f"{counts.score.loss:.4f}" == row["validation"]
        assert f"{counts.score.bits_per_character:.3f}" == row["bits"]
        assert f"{counts.ngrams:,}" == row["n-grams"]
    best = min(float(row["validation"]) for row in RESULTS["ladder"]["rows"].values())
    assert found[3].score.loss < best < found[2].score.loss
    longer = score_ngram_baselines(data, 128)[-1]
    ((order, row),) = RESULTS["n-grams, context 128"]["rows"].items()
    assert (str(longer.order), f"{longer.ngrams:,}") == (order, row["n-grams"])
    assert f"{longer.score.bits_per_character:.3f}" == row["bits"]


def test_json_has_all_figures(prepared):
    first, second, *_ = score_ngram_baselines(prepared, 8)
    shown = json.loads(json.dumps(second.to_json(), allow_nan=False))
    place = {"order": 2, "context_length": 8, "ngrams": second.ngrams}
    assert shown == place | second.score.to_json()
    assert second.ngrams > first.ngrams == prepared.tokenizer.vocab_size
