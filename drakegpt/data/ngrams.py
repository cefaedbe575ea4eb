"""N-grams: how often runs of tokens occur in a text, and the probabilities that follow from it.

The estimate is interpolated modified Kneser-Ney (Chen and Goodman, "An empirical
study of smoothing techniques for language modeling", Computer Speech and
Language 13, 1999, section 3). At level m, the probability of token w after the
context h, the m - 1 tokens before it, is

    P(w | h) = (c(h w) - D(c(h w))) / c(h)  +  S(h) P(w | h')

where c(h w) counts the n-gram h w, c(h) is the sum of that over all w, D(c) is
the discount of a count, S(h) the share that the discounts leave, the sum of
D(c(h w)) over all w divided by c(h), and h' is h without its oldest token. Where
h was never followed by anything, P(w | h) = P(w | h'). Below level 1 stands the
uniform distribution, 1 / V, so no token is impossible.

At the level a prediction begins with, c counts how often an n-gram occurs; at
the levels below, how many different tokens it follows, for that is what it is
asked there: how likely is w after a context that is new. A model of order n that
knows k tokens before a place begins at level m = min(n, k + 1). So each level but
the highest keeps two estimates.

Not here: the loss on the validation split (`evaluation.baseline`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.tokenizers.base import Tokens

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

KEY_BITS = 63  # of the integers that stand for n-grams
TOKENS_PER_PART = 2**20  # tokens counted together: what bounds the memory beside the counts
DEFAULT_DISCOUNTS = (0.5, 1.0, 1.5)  # of counts 1, 2, and 3 or more
LEAST_DISCOUNT = 0.05


@dataclass(frozen=True)
class Estimate:
    """What one level contributes, by one way of counting."""

    shares: FloatArray  # of each n-gram: its discounted count over that of its context, (G,)
    spare: FloatArray  # of each context: what the discounts leave to the level below, S(h), (H,)


NOTHING = Estimate(np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class Level:
    """The n-grams of one length in a text.

    An n-gram is one number, its tokens the digits in base V, the oldest in
    front; both lists are sorted and without repetition.
    """

    grams: IntArray  # h w, (G,)
    contexts: IntArray  # the h that something follows, (H,); at level 1 the empty context, 0
    first: Estimate  # for predictions that begin at this level: by occurrences
    lower: Estimate  # below another level: by different tokens in front; empty at the highest


@dataclass(frozen=True)
class NGrams:
    """The n-grams of a text, as `fit` counts them, and the probabilities they give any text."""

    vocab_size: int  # V
    levels: tuple[Level, ...]  # from 1 to the order

    @property
    def order(self) -> int:
        """The length of the longest n-grams (n): tokens are predicted from n - 1 before them."""
        return len(self.levels)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many different n-grams there are of each length, from 1 to the order."""
        return tuple(len(level.grams) for level in self.levels)

    def log_probabilities(self, tokens: Tokens, known: IntArray) -> FloatArray:
        """The natural logarithm of the probability of each token of a text, (N,).

        `tokens`: (N,). `known`: (N,), how many of the tokens right before each
        may be looked at, at most its place in the text; as
        `drakegpt.data.windows.count_known_tokens` gives it for windows side by side.
        """
        *_, highest = self.probabilities(tokens, np.arange(len(tokens)), known)
        return np.log(highest)

    def probabilities(
        self, tokens: Tokens, places: IntArray, known: IntArray
    ) -> Iterator[FloatArray]:
        """Yield for each order from 1 on the probabilities, (n,), of the tokens at `places`, (n,).

        `known`: (n,), how many of the tokens right before each may be looked at.
        """
        targets = tokens[places].astype(np.int64)
        contexts = np.zeros(len(places), np.int64)
        below = found = np.full(len(places), 1 / self.vocab_size)
        for length, level in enumerate(self.levels):  # of the context
            if length:
                oldest = tokens[np.maximum(places - length, 0)].astype(np.int64)
                contexts += oldest * self.vocab_size ** (length - 1)
            grams = _look_up(level.grams, contexts * self.vocab_size + targets)
            begun = _look_up(level.contexts, contexts)
            here = _interpolate(level.first, grams, begun, below)
            found = np.where(known >= length, here, found)
            yield found
            below = _interpolate(level.lower, grams, begun, below)

    def distribution(self, context: Sequence[int] | Tokens) -> FloatArray:
        """The probability of every token after a context of any length, (V,).

        Only the last n - 1 tokens are looked at; an empty context is one of which
        nothing is known.
        """
        probabilities = np.full(self.vocab_size, 1 / self.vocab_size)
        highest, key = min(self.order, len(context) + 1), 0
        for length, level in enumerate(self.levels[:highest]):
            if length:
                key += int(context[-length]) * self.vocab_size ** (length - 1)
            estimate = level.first if length + 1 == highest else level.lower
            is_begun, begun = _look_up(level.contexts, np.array([key]))
            if not is_begun[0]:
                continue
            smallest = key * self.vocab_size
            start = np.searchsorted(level.grams, smallest)
            end = np.searchsorted(level.grams, smallest + self.vocab_size - 1, side="right")
            probabilities *= estimate.spare[begun[0]]
            probabilities[level.grams[start:end] - smallest] += estimate.shares[start:end]
        return probabilities


def fit(tokens: Tokens, vocab_size: int, order: int) -> NGrams:
    """Count the n-grams of a text, (N,), for all lengths from 1 to `order`.

    The order is less where n tokens out of V no longer fit a key, V^n > 2^63:
    it is at most 10 for V = 65, 5 for 2,048 and 4 for 20,000.
    """
    levels: list[Level] = []
    longer: IntArray | None = None
    for length in range(limit_order(vocab_size, order), 0, -1):
        grams, times = _count_ngrams(tokens, vocab_size, length)
        begun_by = grams // vocab_size  # sorted as the n-grams are, so equal ones are neighbours
        starts = np.flatnonzero(np.diff(begun_by, prepend=-1))
        lower = NOTHING
        if longer is not None:
            suffixes = np.searchsorted(grams, longer % vocab_size**length)
            lower = _estimate(np.bincount(suffixes, minlength=len(grams)), starts)
        levels.append(Level(grams, begun_by[starts], _estimate(times, starts), lower))
        longer = grams
    return NGrams(vocab_size, tuple(reversed(levels)))


def limit_order(vocab_size: int, at_most: int) -> int:
    """The longest n-grams that fit a key: the largest n with V^n <= 2^63, up to `at_most`."""
    return next(n for n in range(at_most, 0, -1) if vocab_size**n <= 2**KEY_BITS)


def estimate_discounts(times: IntArray) -> FloatArray:
    """What is taken off counts of 0, 1, 2, and 3 or more, (4,); chosen by `times`, all counts.

    With n_r the number of n-grams counted r times, and Y = n_1 / (n_1 + 2 n_2):
    D(r) = r - (r + 1) Y n_(r+1) / n_r (Chen and Goodman's equation 26). The
    defaults stand where small texts or small vocabularies leave an n_r at 0.
    """
    one, two, three, four = np.bincount(np.minimum(times, 5), minlength=5)[1:5].tolist()
    found = DEFAULT_DISCOUNTS
    if one and two and three:
        y = one / (one + 2 * two)
        of_many = 3 - 4 * y * four / three if four else DEFAULT_DISCOUNTS[2]
        found = 1 - 2 * y * two / one, 2 - 3 * y * three / two, of_many
    return np.array([0.0, *(max(LEAST_DISCOUNT, discount) for discount in found)])


def _estimate(times: IntArray, starts: IntArray) -> Estimate:
    """The shares of n-grams that were counted so often, and what is left of their contexts.

    `times`: (G,). `starts`: (H,), where the n-grams of each context begin.
    """
    if not len(times):
        return NOTHING
    taken = estimate_discounts(times)[np.minimum(times, 3)]
    # An n-gram that only begins the text follows nothing: a context may have no counts at all.
    total = np.add.reduceat(times, starts)
    seen = np.maximum(total, 1)
    spare = np.where(total > 0, np.add.reduceat(taken, starts) / seen, 1.0)
    of_gram = np.repeat(seen, np.diff(starts, append=len(times)))
    return Estimate((times - taken) / of_gram, spare)


def _interpolate(
    estimate: Estimate,
    grams: tuple[NDArray[np.bool_], IntArray],
    contexts: tuple[NDArray[np.bool_], IntArray],
    below: FloatArray,
) -> FloatArray:
    """The probabilities at a level, (n,), where its n-grams and contexts are found as given."""
    if not len(estimate.shares):
        return below
    shares = np.where(grams[0], estimate.shares[grams[1]], 0.0)
    return shares + np.where(contexts[0], estimate.spare[contexts[1]], 1.0) * below


def _count_ngrams(tokens: Tokens, vocab_size: int, length: int) -> tuple[IntArray, IntArray]:
    """The n-grams of one length and how often each occurs, a part of the text at a time."""
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for start in range(0, len(tokens) - length + 1, TOKENS_PER_PART):
        part = tokens[start : start + TOKENS_PER_PART + length - 1]
        parts.append(np.unique(_encode_keys(part, vocab_size, length), return_counts=True))
        # Joined only with what is hardly longer, so that no n-gram is moved often.
        while len(parts) > 1 and len(parts[-2][0]) < 2 * len(parts[-1][0]):
            parts[-2:] = [_merge_counts(parts[-2:])]
    return _merge_counts(parts)


def _encode_keys(tokens: Tokens, vocab_size: int, length: int) -> IntArray:
    """The n-grams of a text, (N,) -> (N - n + 1,), as numbers in base V (Horner's rule)."""
    number = len(tokens) - length + 1
    keys = np.zeros(number, np.int64)
    for place in range(length):
        keys *= vocab_size
        keys += tokens[place : place + number]
    return keys


def _merge_counts(parts: Sequence[tuple[IntArray, IntArray]]) -> tuple[IntArray, IntArray]:
    """Several lists of n-grams and their counts as one."""
    if len(parts) == 1:
        return parts[0]
    grams, places = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    times = np.zeros(len(grams), np.int64)
    np.add.at(times, places, np.concatenate([part[1] for part in parts]))
    return grams, times


def _look_up(keys: IntArray, wanted: IntArray) -> tuple[NDArray[np.bool_], IntArray]:
    """Which of the `wanted`, (n,), are among the sorted `keys`, and where each is or would be."""
    if not len(keys):
        return np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return keys[places] == wanted, places
