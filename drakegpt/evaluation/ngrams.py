"""What counting reaches: n-gram models, the floors under every other loss.

A model that does no better than counts of pairs has learnt no more than pairs.
The counts come from the training split; the validation split is scored on all
its tokens, in the windows in which models are scored.

The probability of token w after the context h, the n - 1 tokens before it, is
Witten and Bell's estimate ("The zero-frequency problem", IEEE Transactions on
Information Theory 37, 1991, method C), interpolated as in Chen and Goodman
("An empirical study of smoothing techniques for language modeling", Computer
Speech and Language 13, 1999, equation 17):

    P(w | h) = (c(h w) + N(h) P(w | h')) / (c(h) + N(h))

where c(h w) is how often w follows h in the training split, c(h) the sum of
that over all w, N(h) how many different tokens follow h, and h' is h without
its oldest token. Where h was never followed by anything, P(w | h) = P(w | h').
The recursion ends below order 1 at the uniform distribution, 1 / V, so no
token is impossible.

Not here: how models are scored (`scoring`), what is made of it (`comparison`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.dataset import Dataset
from drakegpt.data.tokens import Tokens
from drakegpt.evaluation.scoring import Score, characters_in, validation_tokens

Whole = NDArray[np.int64]

HIGHEST_ORDER = 6
KEY_BITS = 63  # of the integers that stand for runs of tokens
AT_ONCE = 2**20  # tokens counted or scored together: what bounds the memory beside the counts


@dataclass(frozen=True)
class Floor:
    """How well the counts of `order` neighbouring tokens predict the validation split."""

    order: int
    context_length: int  # of the windows it was scored in (T)
    score: Score

    @property
    def label(self) -> str:
        """What it is called in a figure."""
        return f"{self.order}-gram counts"

    @property
    def per_character(self) -> bool:
        """Whether its loss per token is one per character too."""
        return self.score.tokens == self.score.characters

    def to_json(self) -> dict[str, Any]:
        """The order, the context and the score's figures."""
        place = {"order": self.order, "context_length": self.context_length}
        return place | self.score.to_json()


@dataclass(frozen=True)
class Counts:
    """The n-grams of one order in a text: which there are, and what follows each context.

    A run of tokens is one number, its tokens the digits in base V, the oldest
    in front; both lists of runs are sorted and without repetition.
    """

    grams: Whole  # h w, (G,)
    times: Whole  # c(h w), (G,)
    contexts: Whole  # the h of which something follows, (H,); at order 1 the empty run, 0
    followed: Whole  # c(h), (H,)
    followers: Whole  # N(h), (H,)


def floors(
    data: Dataset, context_length: int, highest_order: int = HIGHEST_ORDER
) -> tuple[Floor, ...]:
    """Score the counted models of orders 1, 2, ... on the whole validation split.

    As models are scored: in windows side by side of `context_length` tokens
    (T), the first token predicted from the training split's last. At place t of
    its window, counted from 0, a token has t + 1 tokens before it, so order n
    looks at min(n - 1, t + 1). With T as long as the split there is one window,
    and nothing is held back.

    The orders end at `highest_order`; at T + 1, which looks at a whole window;
    and where n tokens out of V no longer fit a key, V^n > 2^63: at order 5 for
    V = 2,048, at 4 for 20,000, and never below 3. Raises `CorpusError` when
    the dataset is damaged.
    """
    data.verify()
    vocab_size = data.tokenizer.vocab_size
    highest_order = longest_key(vocab_size, min(highest_order, context_length + 1))
    counted = count(data.split("train").numpy(), vocab_size, highest_order)
    tokens = validation_tokens(data)
    characters = characters_in(tokens[1:], data.tokenizer)
    return tuple(
        Floor(order, context_length, Score(loss, len(tokens) - 1, characters))
        for order, loss in enumerate(losses(counted, tokens.numpy(), vocab_size, context_length), 1)
    )


def longest_key(vocab_size: int, length: int) -> int:
    """How many tokens fit a key: the largest n with V^n <= 2^63, and at most `length`."""
    return next(n for n in range(length, 0, -1) if vocab_size**n <= 2**KEY_BITS)


def count(tokens: Tokens, vocab_size: int, highest_order: int) -> list[Counts]:
    """Count the n-grams of a text, (N,), for all orders from 1 to the highest."""
    return [_count(tokens, vocab_size, order) for order in range(1, highest_order + 1)]


def losses(
    counted: Sequence[Counts], tokens: Tokens, vocab_size: int, context_length: int
) -> list[float]:
    """The mean loss of each order, in nats per token, over all tokens but the first.

    `tokens`: (N,), in windows side by side as `sequential_windows` cuts them.
    """
    sums: list[list[float]] = [[] for _ in counted]
    for start in range(1, len(tokens), AT_ONCE):
        places = np.arange(start, min(start + AT_ONCE, len(tokens)))
        known = (places - 1) % context_length + 1
        for parts, chances in zip(
            sums, chances_of(counted, tokens, vocab_size, places, known), strict=True
        ):
            parts.append(-float(np.log(chances).sum()))
    return [math.fsum(parts) / (len(tokens) - 1) for parts in sums]


def chances_of(
    counted: Sequence[Counts], tokens: Tokens, vocab_size: int, places: Whole, known: Whole
) -> Iterator[NDArray[np.float64]]:
    """Yield for each order the probabilities, (n,), of the tokens at `places`, (n,).

    `known`, (n,): how many of the tokens right before each may be looked at;
    there must be so many. Order n looks at n - 1 of them, or at all there are.
    What is yielded is overwritten for the next order.
    """
    chances = np.full(len(places), 1 / vocab_size)
    targets = tokens[places].astype(np.int64)
    contexts = np.zeros(len(places), np.int64)
    for order, counts in enumerate(counted, 1):
        if order > 1:
            enough = np.flatnonzero(known >= order - 1)
            oldest = tokens[places[enough] - (order - 1)].astype(np.int64)
            contexts[enough] += oldest * vocab_size ** (order - 2)
        else:
            enough = np.arange(len(places))
        found, at = _find(counts.contexts, contexts[enough])
        seen, at = enough[found], at[found]
        is_gram, gram_at = _find(counts.grams, contexts[seen] * vocab_size + targets[seen])
        times = np.where(is_gram, counts.times[gram_at], 0)
        followers = counts.followers[at]
        chances[seen] = (times + followers * chances[seen]) / (counts.followed[at] + followers)
        yield chances


def _count(tokens: Tokens, vocab_size: int, order: int) -> Counts:
    """Count the n-grams of one order, a part of the text at a time."""
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for start in range(0, len(tokens) - order + 1, AT_ONCE):
        part = tokens[start : start + AT_ONCE + order - 1]
        parts.append(np.unique(_keys(part, vocab_size, order), return_counts=True))
        # Joined only with what is hardly longer, so that no n-gram is moved often.
        while len(parts) > 1 and len(parts[-2][0]) < 2 * len(parts[-1][0]):
            parts[-2:] = [_joined(parts[-2:])]
    grams, times = _joined(parts)
    begun_by = grams // vocab_size  # sorted as the n-grams are, so equal ones are neighbours
    first = np.flatnonzero(np.diff(begun_by, prepend=-1))
    followed = np.add.reduceat(times, first) if len(first) else times
    return Counts(grams, times, begun_by[first], followed, np.diff(first, append=len(grams)))


def _keys(tokens: Tokens, vocab_size: int, order: int) -> Whole:
    """The n-grams of a text, (N,) -> (N - n + 1,), as numbers in base V (Horner's rule)."""
    length = len(tokens) - order + 1
    keys = np.zeros(length, np.int64)
    for place in range(order):
        keys *= vocab_size
        keys += tokens[place : place + length]
    return keys


def _joined(parts: Sequence[tuple[Whole, Whole]]) -> tuple[Whole, Whole]:
    """Several lists of n-grams and their counts as one."""
    if len(parts) == 1:
        return parts[0]
    grams, places = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    times = np.zeros(len(grams), np.int64)
    np.add.at(times, places, np.concatenate([part[1] for part in parts]))
    return grams, times


def _find(keys: Whole, wanted: Whole) -> tuple[NDArray[np.bool_], Whole]:
    """Which of the `wanted`, (n,), are among the sorted `keys`, and where each is or would be."""
    if not len(keys):
        return np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return keys[places] == wanted, places
