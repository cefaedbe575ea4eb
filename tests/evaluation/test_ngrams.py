"""Counted n-grams: worked by hand, counted slowly, and on a source of known entropy."""

import json
import math
import os
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markov import known_loss, markov_dataset, sampling_error

from drakegpt.data import dataset
from drakegpt.data.windows import sequential_windows
from drakegpt.errors import CorpusError
from drakegpt.evaluation import ngrams
from drakegpt.evaluation.ngrams import chances_of, count, floors, longest_key, losses
from drakegpt.evaluation.scoring import validation_tokens

F = Fraction


def chance(train, context, target, vocab_size):
    """P(target | context) of the highest order, by the public functions for many places."""
    counted = count(np.array(train), vocab_size, len(context) + 1)
    tokens, place = np.array([*context, target]), np.array([len(context)])
    *_, last = (float(c[0]) for c in chances_of(counted, tokens, vocab_size, place, place))
    return last


def slow_chance(train, context, target, vocab_size):
    """The same by the recursion as it is written down, with dictionaries and fractions."""
    order = len(context) + 1
    following = defaultdict(Counter)
    for end in range(order, len(train) + 1):
        *before, last = train[end - order : end]
        following[tuple(before)][last] += 1
    shorter = F(1, vocab_size)
    if context:
        shorter = slow_chance(train, context[1:], target, vocab_size)
    after = following[tuple(context)]
    if not after:
        return shorter
    return (after[target] + len(after) * shorter) / (after.total() + len(after))


def slow_loss(train, val, vocab_size, context_length, order):
    """Window by window, token by token; the first is predicted from the last of `train`."""
    tokens, total = torch.tensor([train[-1], *val]), 0.0
    for inputs, targets in sequential_windows(tokens, context_length, 5):
        for window, following in zip(inputs.tolist(), targets.tolist(), strict=True):
            for t, target in enumerate(following):
                context = window[max(0, t + 1 - (order - 1)) : t + 1]
                total -= math.log(slow_chance(train, context, target, vocab_size))
    return total / len(val)


# By hand, for the text a b a b b a over the letters a, b and c.
A, B, C = range(3)
TRAIN = [A, B, A, B, B, A]
WORKED = {
    # c(a) = c(b) = 3, two different letters, 1/3 each from the uniform distribution
    (A,): (3 + 2 * F(1, 3)) / (6 + 2),
    (C,): F(1, 12),
    # after a comes b, twice
    (A, B): (2 + 1 * F(11, 24)) / (2 + 1),
    (A, C): F(1, 36),
    # after b comes a twice and b once
    (B, A): F(7, 12),
    (B, B): F(23, 60),
    (B, C): F(1, 30),
    # c was never followed by anything
    (C, A): F(11, 24),
    # after ab comes a once and b once
    (A, B, A): (1 + 2 * F(7, 12)) / (2 + 2),
    (A, B, C): F(1, 60),
    # after ba comes b, once: the text's last two letters are followed by nothing
    (B, A, B): F(131, 144),
    (B, A, C): F(1, 72),
    (B, B, A): F(19, 24),
    (A, A, B): F(59, 72),
    (C, C, C): F(1, 12),
}


@pytest.mark.parametrize("tokens", WORKED, ids=lambda tokens: "".join("abc"[t] for t in tokens))
def test_probabilities_are_those_worked_by_hand(tokens):
    *context, target = tokens
    assert slow_chance(TRAIN, context, target, 3) == WORKED[tokens]
    assert chance(TRAIN, context, target, 3) == pytest.approx(float(WORKED[tokens]), abs=1e-15)


@pytest.mark.parametrize(
    ("context_length", "of_order_3"),
    [
        (1, (F(59, 72), F(7, 12), F(1, 36))),  # one token of context, always
        (2, (F(59, 72), F(13, 24), F(1, 36))),  # the third target begins a window
        (3, (F(59, 72), F(13, 24), F(1, 72))),  # only the first does
    ],
)
def test_losses_are_those_worked_by_hand(context_length, of_order_3):
    """The letters b a c after the text, in windows of each length."""
    tokens = np.array([TRAIN[-1], B, A, C])
    found = losses(count(np.array(TRAIN), 3, 3), tokens, 3, context_length)
    of_orders_1_and_2 = (F(11, 24), F(11, 24), F(1, 12)), (F(59, 72), F(7, 12), F(1, 36))
    for loss, chances in zip(found, (*of_orders_1_and_2, of_order_3), strict=True):
        assert loss == pytest.approx(-math.log(math.prod(chances)) / 3, abs=1e-15)


letters = st.integers(0, 3)


@given(st.lists(letters, min_size=1, max_size=60), st.lists(letters, max_size=5))
@settings(deadline=None)
def test_probabilities_of_all_tokens_sum_to_one(train, context):
    chances = [chance(train, context, target, 4) for target in range(4)]
    assert math.fsum(chances) == pytest.approx(1, abs=1e-12)
    assert min(chances) > 0


@given(
    train=st.lists(letters, min_size=1, max_size=40),
    val=st.lists(letters, min_size=1, max_size=20),
    context_length=st.integers(1, 9),
    at_once=st.integers(1, 12),
    highest=st.integers(1, 5),
)
@settings(deadline=None)
def test_losses_are_those_of_dictionaries(train, val, context_length, at_once, highest):
    """Whatever is counted and scored at once: it bounds the memory and nothing else."""
    with patch.object(ngrams, "AT_ONCE", at_once):
        counted = count(np.array(train, np.uint8), 4, highest)
        tokens = np.array([train[-1], *val], np.uint8)
        found = losses(counted, tokens, 4, context_length)
    slow = [slow_loss(train, val, 4, context_length, n) for n in range(1, highest + 1)]
    assert found == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize(
    ("vocab_size", "order"), [(2, 63), (128, 9), (2048, 5), (20_000, 4), (2**20, 3)]
)
def test_the_longest_keys_fit_and_no_longer_ones(vocab_size, order):
    assert longest_key(vocab_size, 99) == order
    assert longest_key(vocab_size, 2) == 2
    assert vocab_size**order <= 2**63 < vocab_size ** (order + 1)
    chooser = np.random.default_rng(3)
    kind = np.int32 if vocab_size > 2**15 else np.int16 if vocab_size > 2**8 else np.uint8
    # The last tokens of the vocabulary, whose keys are the largest.
    train = (vocab_size - 1 - chooser.integers(2, size=400)).astype(kind)
    val = train[-60:][::-1]
    tokens = np.concatenate([train[-1:], val])
    found = losses(count(train, vocab_size, order), tokens, vocab_size, 99)
    slow = slow_loss(train.tolist(), val.tolist(), vocab_size, 99, order)
    assert found[-1] == pytest.approx(slow, abs=1e-12)


def test_a_vocabulary_of_one_token():
    assert (
        losses(count(np.zeros(9, np.uint8), 1, longest_key(1, 6)), np.zeros(5, np.uint8), 1, 8)
        == [0] * 6
    )


def test_floors_of_a_dataset(prepared):
    train, val = (prepared.split(name).tolist() for name in ("train", "val"))
    vocab_size = prepared.tokenizer.vocab_size
    found = floors(prepared, 8)
    assert [floor.order for floor in found] == [1, 2, 3, 4, 5, 6]
    tokens = np.array([train[-1], *val])
    expected = losses(count(np.array(train), vocab_size, 6), tokens, vocab_size, 8)
    assert [floor.score.loss for floor in found] == expected
    assert {floor.score.tokens for floor in found} == {prepared.metadata.val_tokens}
    # The unigram is the smoothed one: counts, and a share of the uniform distribution.
    counts, kinds = Counter(train), len(set(train))
    chances = [(counts[w] + kinds / vocab_size) / (len(train) + kinds) for w in val]
    by_counts = -math.fsum(map(math.log, chances)) / len(val)
    assert found[0].score.loss == pytest.approx(by_counts, abs=1e-12)
    assert found[0].score.bits_per_character == pytest.approx(by_counts / math.log(2))
    assert all(floor.per_character for floor in found)
    # Bigrams look at one token, which every window has.
    for context_length in (1, 3):
        shorter = floors(prepared, context_length)
        assert [floor.order for floor in shorter] == list(range(1, context_length + 2))
        assert [f.score.loss for f in shorter[:2]] == [f.score.loss for f in found[:2]]
    assert floors(prepared, 3)[3].score.loss > found[3].score.loss


def test_floors_over_tokens_of_several_characters(corpus):
    data = dataset.prepare(
        corpus, name="pieces", source="", provenance="", source_sha256="",
        tokenizer="bpe", vocab_size=300,
    )  # fmt: skip
    for floor in floors(data, 8):
        score = floor.score
        assert score.characters == len(corpus) - int(len(corpus) * 0.9) > score.tokens
        bits = score.loss / math.log(2) * score.tokens / score.characters
        assert score.bits_per_character == pytest.approx(bits)
        assert not floor.per_character


def test_damaged_tokens_are_not_counted(prepared):
    path = prepared.folder / "train.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorpusError, match="another checksum"):
        floors(prepared, 8)


@pytest.mark.parametrize("context_length", [2, 8, 30_000])
def test_on_a_markov_source_the_right_order_reaches_its_entropy(context_length):
    data = markov_dataset(300_000)
    found = {f.order: f.score.loss for f in floors(data, context_length)}
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
    letters = validation_tokens(data).tolist()
    own = [math.log(4)] + [
        -math.log(0.85 if (a + b) % 4 == c else 0.05)
        for a, b, c in zip(letters, letters[1:], letters[2:], strict=False)
    ]
    best = math.fsum(own) / len(own)
    found = {f.order: f.score.loss for f in floors(data, len(own))}
    # 48 free parameters from 270,000 letters cost some 48 / 2 / 270,000 nats.
    assert best - 0.0005 < found[3] < best + 0.0005
    assert min(found.values()) > best - 0.0005


@pytest.mark.skipif("TINY_SHAKESPEARE" not in os.environ, reason="needs tiny Shakespeare")
def test_the_floors_in_the_readme_are_those_of_tiny_shakespeare():
    text = Path(os.environ["TINY_SHAKESPEARE"]).read_text(encoding="utf-8")
    data = dataset.prepare(text, name="s", source="", provenance="", source_sha256="")
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for floor in floors(data, 8):
        figures = floor.score.loss, floor.score.bits_per_character
        assert f"│ {floor.order}     │     {figures[0]:.4f} │     {figures[1]:.3f} │" in readme
    runs_of_five = count(data.split("train").numpy(), data.tokenizer.vocab_size, 5)[-1].grams
    assert f"{len(runs_of_five):,} different runs of five" in " ".join(readme.split())


def test_json_has_all_figures(prepared):
    floor = floors(prepared, 8)[1]
    shown = json.loads(json.dumps(floor.to_json(), allow_nan=False))
    assert shown == {"order": 2, "context_length": 8, **floor.score.to_json()}
