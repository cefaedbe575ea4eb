"""N-grams and their probabilities: worked by hand, counted slowly, and as distributions."""

import math
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kneser_ney import KneserNey, discounts_of

from drakegpt.data import ngrams
from drakegpt.data.ngrams import estimate_discounts, fit, limit_order

F = Fraction

# By hand, for the text a b a b b a over the letters a, b and c. Nowhere is there an n-gram that
# was counted three times, so all discounts are the defaults: 1/2 of 1, 1 of 2, 3/2 of 3.
A, B, C = range(3)
TRAIN = [A, B, A, B, B, A]
WORKED = {
    # a and b occur three times each; the uniform distribution gives 1/3
    (A,): (3 - F(3, 2)) / 6 + F(3, 6) * F(1, 3),
    (C,): F(1, 6),
    # below: a follows b alone, b follows a and b; so a has (1 - 1/2)/3 + 1/2 · 1/3 = 1/3, b 1/2
    # after a comes b, twice
    (A, B): F(2 - 1, 2) + F(1, 2) * F(1, 2),
    (A, A): F(1, 6),
    (A, C): F(1, 12),
    # after b comes a twice and b once
    (B, A): F(2 - 1, 3) + F(1, 2) * F(1, 3),
    (B, B): F(5, 12),
    # c was never followed by anything
    (C, A): F(1, 3),
    # below: ba follows a and b, ab follows b, bb follows a; so after b, a has 1/2 and b 5/12
    # after ab comes a once and b once
    (A, B, A): F(1, 2) / 2 + F(1, 2) * F(1, 2),
    (A, B, B): F(11, 24),
    (A, B, C): F(1, 24),
    # after ba comes b, once: the text's last two letters are followed by nothing
    (B, A, B): F(1, 2) + F(1, 2) * F(3, 4),
    (B, B, A): F(3, 4),
    (A, A, B): F(3, 4),
    (C, C, C): F(1, 6),
}


@pytest.mark.parametrize("tokens", WORKED, ids=lambda tokens: "".join("abc"[t] for t in tokens))
def test_probabilities_are_those_worked_by_hand(tokens):
    *context, target = tokens
    assert KneserNey(TRAIN, 3, len(tokens)).probability(context, target) == WORKED[tokens]
    found = fit(np.array(TRAIN), 3, len(tokens)).distribution(context)[target]
    assert found == pytest.approx(float(WORKED[tokens]), abs=1e-15)


@pytest.mark.parametrize(
    ("counts_of_counts", "expected"),
    [
        ((8, 4, 2, 1), (0.5, 1.25, 2)),  # Y = 1/2
        ((8, 4, 2, 0), (0.5, 1.25, 1.5)),
        ((0, 4, 2, 1), (0.5, 1, 1.5)),
        ((8, 0, 2, 1), (0.5, 1, 1.5)),
        ((8, 4, 0, 1), (0.5, 1, 1.5)),
        ((1, 20, 20, 1), (0.05, 2 - 3 / 41, 3 - 4 / 41 / 20)),
        ((10, 1, 9, 27), (1 - 2 / 12, 0.05, 0.05)),
        ((0, 0, 0, 0), (0.5, 1, 1.5)),
    ],
)
def test_discounts_come_from_the_counts_of_counts(counts_of_counts, expected):
    times = [r for r, many in enumerate(counts_of_counts, 1) for _ in range(many)]
    times = np.array([*times, 0, 0, 5, 17])  # which neither move nor need one of their own
    assert estimate_discounts(times).tolist() == pytest.approx([0, *expected], abs=1e-15)
    assert [float(d) for d in discounts_of(times.tolist())] == pytest.approx([0, *expected])


letters = st.integers(0, 3)


@given(
    train=st.lists(letters, max_size=150),
    text=st.lists(letters, min_size=1, max_size=20),
    order=st.integers(1, 5),
    at_once=st.integers(1, 160),
    chooser=st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_probabilities_are_those_of_dictionaries(train, text, order, at_once, chooser):
    """Whatever is counted at once: it bounds the memory and nothing else."""
    known = np.array([chooser.randint(0, place) for place in range(len(text))])
    with patch.object(ngrams, "TOKENS_PER_PART", at_once):
        counts = fit(np.array(train, np.uint8), 4, order)
    slow = KneserNey(train, 4, order)
    contexts = [text[place - k : place] for place, k in enumerate(known)]
    expected = [slow.probability(*of) for of in zip(contexts, text, strict=True)]
    found = counts.log_probabilities(np.array(text, np.uint8), known)
    assert np.exp(found).tolist() == pytest.approx([float(p) for p in expected], abs=1e-12)
    drawn_from = [counts.distribution(c)[w] for c, w in zip(contexts, text, strict=True)]
    assert drawn_from == pytest.approx(np.exp(found).tolist(), abs=1e-15)


@pytest.mark.parametrize(("vocab_size", "length"), [(2, 300), (65, 5000), (3000, 5000)])
def test_each_distribution_sums_to_one(vocab_size, length):
    """After contexts that are known, unknown, short, and longer than the order."""
    chooser = np.random.default_rng(vocab_size)
    # Most tokens are rare, as in a text, and some never occur.
    train = (vocab_size * chooser.random(length) ** 4 * 0.9).astype(np.int64)
    counts = fit(train, vocab_size, 7)
    for size in range(10):
        for _ in range(20):
            start = chooser.integers(length - size)
            known, unknown = train[start : start + size], chooser.integers(vocab_size, size=size)
            for context in (known, unknown, [*unknown[: size // 2], *known[size // 2 :]]):
                found = counts.distribution(context)
                assert found.shape == (vocab_size,)
                assert math.fsum(found) == pytest.approx(1, abs=1e-12)
                assert found.min() > 0


def test_each_order_is_what_it_is_alone():
    chooser = np.random.default_rng(1)
    train, text = chooser.integers(3, size=400), chooser.integers(3, size=50)
    places = np.arange(50)
    together = list(fit(train, 3, 4).predict(text, places, places))
    for order, (found, *_) in enumerate(together, 1):
        alone = fit(train, 3, order)
        assert alone.order == order
        assert np.log(found).tolist() == alone.log_probabilities(text, places).tolist()
        assert alone.sizes == fit(train, 3, 4).sizes[:order]


def test_sizes_are_of_different_ngrams():
    assert fit(np.array(TRAIN), 3, 7).sizes == (2, 3, 4, 3, 2, 1, 0)


@pytest.mark.parametrize(
    ("vocab_size", "order"), [(2, 63), (65, 10), (128, 9), (2048, 5), (20_000, 4), (2**20, 3)]
)
def test_the_longest_keys_fit_and_no_longer_ones(vocab_size, order):
    assert limit_order(vocab_size, 99) == order
    assert limit_order(vocab_size, 2) == 2
    assert vocab_size**order <= 2**63 < vocab_size ** (order + 1)
    chooser = np.random.default_rng(3)
    kind = np.int32 if vocab_size > 2**15 else np.int16 if vocab_size > 2**8 else np.uint8
    # The last tokens of the vocabulary, whose keys are the largest.
    train = vocab_size - 1 - chooser.integers(2, size=400)
    counts = fit(train.astype(kind), vocab_size, 99)
    assert counts.order == order
    # By the same text of the first tokens, whose keys are small.
    small = fit((vocab_size - 1 - train).astype(kind), vocab_size, order)
    for context in (train[:5], train[-9:], train[:0], train[::-1][:70]):
        found = counts.distribution(context)
        assert np.abs(found[::-1] - small.distribution(vocab_size - 1 - context)).max() < 1e-15


@pytest.mark.parametrize("order", [1, 6])
def test_a_vocabulary_of_one_token(order):
    counts = fit(np.zeros(9, np.uint8), 1, order)
    text = np.zeros(5, np.uint8)
    assert counts.log_probabilities(text, np.arange(5)).tolist() == pytest.approx([0] * 5)


def test_a_text_of_nothing_knows_nothing():
    counts = fit(np.zeros(0, np.uint8), 4, 3)
    assert counts.distribution([1, 2]).tolist() == [0.25] * 4
    assert counts.log_probabilities(np.array([3, 1]), np.arange(2)).tolist() == [-math.log(4)] * 2
