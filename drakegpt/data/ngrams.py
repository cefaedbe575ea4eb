"""N-gram counts of a text, and the probabilities estimated from them.

The estimate is interpolated modified Kneser-Ney (Chen and Goodman, "An empirical
study of smoothing techniques for language modeling", Computer Speech and
Language 13, 1999, section 3). At level m, the probability of token w after the
context h, the m - 1 tokens before it, is

    P(w | h) = (c(h w) - D(c(h w))) / c(h)  +  S(h) P(w | h')

where c(h w) is the count of the n-gram h w, c(h) its sum over all w, D(c) the
discount of a count, S(h) the mass freed by the discounts (the sum of D(c(h w)) over
all w, divided by c(h)), and h' is h without its oldest token. If h was never followed
by anything, P(w | h) = P(w | h'). Below level 1 is the uniform distribution, 1 / V, so
no token has probability 0.

At the highest level of a prediction, c counts occurrences; at the levels below, it
counts the different tokens that precede the n-gram, which estimates how likely w is
after a new context. With k tokens known, a model of order n starts at level
m = min(n, k + 1). So each level but the highest keeps two estimates.

Not here: the loss on the validation split (`evaluation.baseline`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.tokenizers.base import Tokens

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

KEY_BITS = 63  # of the integers that encode n-grams
TOKENS_PER_PART = 2**20  # tokens counted together, which bounds the memory besides the counts
DEFAULT_DISCOUNTS = (0.5, 1.0, 1.5)  # of counts 1, 2, and 3 or more
LEAST_DISCOUNT = 0.05
KEPT_LENGTH = 3  # of contexts whose predictions are kept
KEPT_NUMBERS = 2**20  # of kept predictions, at most
NONE = np.array(0)  # of the followers and occurrences of an unknown context


@dataclass(frozen=True)
class Estimate:
    """The estimate of one level, by one way of counting."""

    shares: FloatArray  # of each n-gram: its discounted count over that of its context, (G,)
    backoff: FloatArray  # of each context: the mass left to the level below, S(h), (H,)


EMPTY = Estimate(np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class Level:
    """The n-grams of one length in a text.

    An n-gram is encoded as one number with its tokens as digits in base V, the oldest
    first; both arrays are sorted and have no duplicates.
    """

    grams: IntArray  # h w, (G,)
    contexts: IntArray  # all h that a token follows, (H,); at level 1 the empty context, 0
    starts: IntArray  # index of the first n-gram of each context, and G, (H + 1,)
    occurrences: IntArray  # of each context, before any token, (H,)
    first: Estimate  # for predictions that start at this level: by occurrences
    lower: Estimate  # below another level: by different preceding tokens; empty at the highest


class Predictions(NamedTuple):
    """Probabilities of tokens, and how much is known of what they follow.

    That is said of the longest context before each token that a token ever followed: each
    array is (n,), or () if one context precedes the whole vocabulary, (V,).
    """

    probabilities: FloatArray
    followers: IntArray  # how many different tokens followed that context
    occurrences: IntArray  # how often any did


@dataclass(frozen=True)
class NGrams:
    """An n-gram model: the n-grams of a text, as `fit` counts them, predict any text."""

    vocab_size: int  # V
    levels: tuple[Level, ...]  # from 1 to the order
    # Predictions from the last `KEPT_LENGTH` tokens of longer contexts, by their key.
    _kept: dict[int, "Predictions"] = field(default_factory=dict, repr=False, compare=False)

    @property
    def order(self) -> int:
        """Length of the longest n-grams (n): a token is predicted from the n - 1 before it."""
        return len(self.levels)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of different n-grams of each length, from 1 to the order."""
        return tuple(len(level.grams) for level in self.levels)

    def log_probabilities(self, tokens: Tokens, known: IntArray) -> FloatArray:
        """Compute the natural log probability of each token of a text, (N,).

        `tokens`: (N,). `known`: (N,), how many of the preceding tokens may be used, at
        most the token's position, as `drakegpt.data.windows.count_known_tokens` returns.
        """
        *_, highest = self.predict(tokens, np.arange(len(tokens)), known)
        return np.log(highest.probabilities)

    def predict(
        self, tokens: Tokens, positions: IntArray, known: IntArray
    ) -> Iterator[Predictions]:
        """Yield, for each order from 1 on, the predictions of the tokens at `positions`.

        `positions`: (n,). `known`: (n,), how many of the preceding tokens may be used.
        """
        targets = tokens[positions].astype(np.int64)
        contexts = np.zeros(len(positions), np.int64)
        followers, occurrences = np.zeros((2, len(positions)), np.int64)
        below = found = np.full(len(positions), 1 / self.vocab_size)
        for length, level in enumerate(self.levels):  # length of the context
            if length:
                oldest = tokens[np.maximum(positions - length, 0)].astype(np.int64)
                contexts += oldest * self.vocab_size ** (length - 1)
            grams = _look_up(level.grams, contexts * self.vocab_size + targets)
            found_contexts = _look_up(level.contexts, contexts)
            first = _interpolate(level.first, grams, found_contexts, below)
            found = np.where(known >= length, first, found)
            if len(level.contexts):
                is_known, index = found_contexts
                different = level.starts[index + 1] - level.starts[index]
                followers = np.where(is_known & (known >= length), different, followers)
                times = level.occurrences[index]
                occurrences = np.where(is_known & (known >= length), times, occurrences)
            yield Predictions(found, followers, occurrences)
            below = _interpolate(level.lower, grams, found_contexts, below)

    def distribution(self, context: "Sequence[int] | Tokens") -> FloatArray:
        """Compute the probability of every token after a context of any length, (V,).

        Only the last n - 1 tokens are used.
        """
        return self.predict_next(context).probabilities

    def predict_next(self, context: "Sequence[int] | Tokens") -> Predictions:
        """Predict every token after a context: its `distribution`, and what is known of it.

        What the last few tokens of a longer context predict is computed once and kept.
        """
        highest = min(self.order, len(context) + 1)
        nothing = Predictions(np.full(self.vocab_size, 1 / self.vocab_size), NONE, NONE)
        if highest <= KEPT_LENGTH + 1:
            return self._extend(nothing, context, range(highest), highest)
        key = self._encode(context, KEPT_LENGTH)
        if (short := self._kept.get(key)) is None:
            short = self._extend(nothing, context, range(KEPT_LENGTH + 1), highest)
            if len(self._kept) * self.vocab_size < KEPT_NUMBERS:
                self._kept[key] = short
        return self._extend(short, context, range(KEPT_LENGTH + 1, highest), highest)

    def _extend(
        self, below: Predictions, context: "Sequence[int] | Tokens", lengths: range, highest: int
    ) -> Predictions:
        """Add the levels of contexts of these `lengths` to a prediction by shorter ones.

        `highest`: the last level of the prediction. Where a context is unknown, all longer
        ones are, so the search ends there.
        """
        probabilities, followers, occurrences = below
        probabilities, base = probabilities.copy(), self.vocab_size
        key = self._encode(context, lengths.start - 1)
        for length in lengths:
            level = self.levels[length]
            if length:
                key += int(context[-length]) * base ** (length - 1)
            index = int(level.contexts.searchsorted(key))
            if index == len(level.contexts) or level.contexts[index] != key:
                break
            estimate = level.first if length + 1 == highest else level.lower
            start, end = level.starts[index], level.starts[index + 1]
            known, followers, occurrences = slice(start, end), end - start, level.occurrences[index]
            probabilities *= estimate.backoff[index]
            probabilities[level.grams[known] - key * base] += estimate.shares[known]
        return Predictions(probabilities, followers, occurrences)

    def _encode(self, context: "Sequence[int] | Tokens", length: int) -> int:
        """Encode the last tokens of a context as a key."""
        key = 0
        for place in range(length, 0, -1):
            key = key * self.vocab_size + int(context[-place])
        return key


def fit(tokens: Tokens, vocab_size: int, order: int) -> NGrams:
    """Count the n-grams of a text, (N,), for all lengths from 1 to `order`.

    The order is lower if n-grams do not fit a key, V^n > 2^63: it is at most 10 for
    V = 65, 5 for 2,048 and 4 for 20,000.
    """
    levels: list[Level] = []
    longer: IntArray | None = None
    for length in range(limit_order(vocab_size, order), 0, -1):
        grams, counts = count_ngrams(tokens, vocab_size, length)
        contexts = grams // vocab_size  # sorted as the n-grams are, so equal ones are adjacent
        starts = np.flatnonzero(np.diff(contexts, prepend=-1))
        lower = EMPTY
        if longer is not None:
            suffixes = np.searchsorted(grams, longer % vocab_size**length)
            lower = _estimate(np.bincount(suffixes, minlength=len(grams)), starts)
        occurrences = np.add.reduceat(counts, starts) if len(starts) else counts
        ends = np.append(starts, len(grams))
        first = _estimate(counts, starts)
        levels.append(Level(grams, contexts[starts], ends, occurrences, first, lower))
        longer = grams
    return NGrams(vocab_size, tuple(reversed(levels)))


def limit_order(vocab_size: int, at_most: int) -> int:
    """Return the largest n <= `at_most` whose n-grams fit a key: V^n <= 2^63."""
    return next(n for n in range(at_most, 0, -1) if vocab_size**n <= 2**KEY_BITS)


def estimate_discounts(counts: IntArray) -> FloatArray:
    """Estimate the discounts of counts 0, 1, 2, and 3 or more, (4,), from all counts.

    With n_r the number of n-grams counted r times, and Y = n_1 / (n_1 + 2 n_2):
    D(r) = r - (r + 1) Y n_(r+1) / n_r (Chen and Goodman's equation 26). The defaults
    are used if n_r is 0, as in small texts or with small vocabularies.
    """
    one, two, three, four = np.bincount(np.minimum(counts, 5), minlength=5)[1:5].tolist()
    found = DEFAULT_DISCOUNTS
    if one and two and three:
        y = one / (one + 2 * two)
        of_many = 3 - 4 * y * four / three if four else DEFAULT_DISCOUNTS[2]
        found = 1 - 2 * y * two / one, 2 - 3 * y * three / two, of_many
    return np.array([0.0, *(max(LEAST_DISCOUNT, discount) for discount in found)])


def _estimate(counts: IntArray, starts: IntArray) -> Estimate:
    """Estimate the shares of n-grams and the mass their contexts leave to the level below.

    `counts`: (G,). `starts`: (H,), the index of the first n-gram of each context.
    """
    if not len(counts):
        return EMPTY
    discounts = estimate_discounts(counts)[np.minimum(counts, 3)]
    # An n-gram that occurs only at the start of the text follows nothing: totals may be 0.
    total = np.add.reduceat(counts, starts)
    divisor = np.maximum(total, 1)
    backoff = np.where(total > 0, np.add.reduceat(discounts, starts) / divisor, 1.0)
    per_gram = np.repeat(divisor, np.diff(starts, append=len(counts)))
    return Estimate((counts - discounts) / per_gram, backoff)


def _interpolate(
    estimate: Estimate,
    grams: tuple[NDArray[np.bool_], IntArray],
    contexts: tuple[NDArray[np.bool_], IntArray],
    below: FloatArray,
) -> FloatArray:
    """Compute the probabilities at a level, (n,), from those of the level below.

    `grams`, `contexts`: whether each n-gram and context exists, and its index.
    """
    if not len(estimate.shares):
        return below
    shares = np.where(grams[0], estimate.shares[grams[1]], 0.0)
    return shares + np.where(contexts[0], estimate.backoff[contexts[1]], 1.0) * below


def count_ngrams(tokens: Tokens, vocab_size: int, length: int) -> tuple[IntArray, IntArray]:
    """Count the n-grams of one length in a text, (N,): their sorted keys and counts, (G,) each.

    They are counted one part of the text after another. The keys must fit `limit_order`.
    """
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for start in range(0, len(tokens) - length + 1, TOKENS_PER_PART):
        part = tokens[start : start + TOKENS_PER_PART + length - 1]
        parts.append(np.unique(_encode_keys(part, vocab_size, length), return_counts=True))
        # Merge only lists of similar length, so that no n-gram is moved often.
        while len(parts) > 1 and len(parts[-2][0]) < 2 * len(parts[-1][0]):
            parts[-2:] = [_merge_counts(parts[-2:])]
    return _merge_counts(parts)


def _encode_keys(tokens: Tokens, vocab_size: int, length: int) -> IntArray:
    """Encode the n-grams of a text as numbers in base V: (N,) -> (N - n + 1,)."""
    number = len(tokens) - length + 1
    keys = np.zeros(number, np.int64)
    for place in range(length):
        keys *= vocab_size
        keys += tokens[place : place + number]
    return keys


def _merge_counts(parts: Sequence[tuple[IntArray, IntArray]]) -> tuple[IntArray, IntArray]:
    """Merge several lists of n-grams and their counts into one."""
    if len(parts) == 1:
        return parts[0]
    grams, indices = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    counts = np.zeros(len(grams), np.int64)
    np.add.at(counts, indices, np.concatenate([part[1] for part in parts]))
    return grams, counts


def _look_up(keys: IntArray, wanted: IntArray) -> tuple[NDArray[np.bool_], IntArray]:
    """Look up `wanted`, (n,), in sorted `keys`: whether each is there, and its index, (n,) each."""
    if not len(keys):
        return np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
    indices = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return keys[indices] == wanted, indices
