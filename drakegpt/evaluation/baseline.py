"""What counting alone reaches: the n-gram models that stand beside every other loss.

The counts come from the training split; the validation split is scored on all
its tokens, in the windows in which models are scored. Pairs are all that BigramLM
can learn. Counts of longer n-grams are hard to beat, but keep every n-gram of
the training split: how many those are stands beside their loss.

Not here: the counts and their probabilities (`data.ngrams`), how models are
scored (`scoring`), what is made of it (`comparison`).
"""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from drakegpt.data.dataset import Dataset
from drakegpt.data.ngrams import TOKENS_PER_PART, NGrams, fit
from drakegpt.data.tokenizers.base import Tokens
from drakegpt.data.windows import count_known_tokens
from drakegpt.evaluation.scoring import Score, characters_in, validation_tokens

HIGHEST_ORDER = 7


@dataclass(frozen=True)
class Baseline:
    """How well n-grams of up to `order` tokens predict the validation split."""

    order: int
    context_length: int  # of the windows it was scored in (T)
    score: Score
    ngrams: int  # how many different ones it keeps, of 1 to `order` tokens

    @property
    def label(self) -> str:
        """What it is called in a figure."""
        return f"{self.order}-gram counts"

    @property
    def unit(self) -> str:
        """What is counted, in the plural."""
        return "characters" if self.per_character else "tokens"

    @property
    def per_character(self) -> bool:
        """Whether its loss per token is one per character too."""
        return self.score.tokens == self.score.characters

    def to_json(self) -> dict[str, Any]:
        """The order, the context, the number of n-grams and the score's figures."""
        place = {"order": self.order, "context_length": self.context_length, "ngrams": self.ngrams}
        return place | self.score.to_json()


def ngram_baselines(
    data: Dataset, context_length: int, highest_order: int = HIGHEST_ORDER
) -> tuple[Baseline, ...]:
    """Score the n-gram models of orders 1, 2, ... on the whole validation split.

    As models are scored: in windows side by side of `context_length` tokens
    (T), the first token predicted from the training split's last. With T as
    long as the split there is one window, and nothing is held back.

    The orders end at `highest_order`; at T + 1, which looks at a whole window;
    and where n tokens no longer fit a key (`fit`). Raises `CorpusError` when
    the dataset is damaged.
    """
    data.verify()
    vocab_size = data.tokenizer.vocab_size
    order = min(highest_order, context_length + 1)
    counts = fit(data.split("train").numpy(), vocab_size, order)
    tokens = validation_tokens(data)
    characters = characters_in(tokens[1:], data.tokenizer)
    found = losses(counts, tokens.numpy(), context_length)
    return tuple(
        Baseline(order, context_length, Score(loss, len(tokens) - 1, characters), ngrams)
        for order, (loss, ngrams) in enumerate(zip(found, accumulate(counts.sizes), strict=True), 1)
    )


def losses(counts: NGrams, tokens: Tokens, context_length: int) -> list[float]:
    """The mean loss of each order, in nats per token, over all tokens but the first.

    `tokens`: (N,), in windows side by side as `sequential_windows` cuts them.
    """
    sums: list[list[float]] = [[] for _ in counts.levels]
    for start in range(1, len(tokens), TOKENS_PER_PART):
        places = np.arange(start, min(start + TOKENS_PER_PART, len(tokens)))
        known = count_known_tokens(places, context_length)
        by_order = counts.probabilities(tokens, places, known)
        for parts, probabilities in zip(sums, by_order, strict=True):
            parts.append(-float(np.log(probabilities).sum()))
    return [math.fsum(parts) / (len(tokens) - 1) for parts in sums]
