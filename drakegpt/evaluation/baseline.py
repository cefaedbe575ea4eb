"""N-gram baselines: the losses that counting alone reaches.

Counts come from the training split; the validation split is scored on all its tokens, in
the same windows as models are. The bigram baseline is the best that BigramLM can learn.
Longer n-grams are hard to beat, but store every n-gram of the training split, so their
number is reported beside their loss.

Not here: counts and their probabilities (`data.ngrams`), scores of models (`scoring`).
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
from drakegpt.evaluation.score import Score
from drakegpt.evaluation.scoring import count_characters, get_validation_tokens

HIGHEST_ORDER = 7

BIGRAM, TRIGRAM = 2, 3  # orders of n-gram counts; the first is what BigramLM can learn


@dataclass(frozen=True)
class Baseline:
    """The score of n-grams of up to `order` tokens on the validation split."""

    order: int
    context_length: int  # T, of the windows it was scored in
    score: Score
    ngrams: int  # number of distinct ones that it stores, of 1 to `order` tokens

    @property
    def label(self) -> str:
        """Its name in a figure."""
        return f"{self.order}-gram counts"

    @property
    def unit(self) -> str:
        """The unit that is counted, in the plural."""
        return "characters" if self.per_character else "tokens"

    @property
    def per_character(self) -> bool:
        """Whether its loss per token is also its loss per character."""
        return self.score.tokens == self.score.characters

    def to_json(self) -> dict[str, Any]:
        """Return the order, the context, the number of n-grams and the score's figures."""
        return {
            "order": self.order,
            "context_length": self.context_length,
            "ngrams": self.ngrams,
            **self.score.to_json(),
        }


def score_ngram_baselines(
    data: Dataset, context_length: int, highest_order: int = HIGHEST_ORDER
) -> tuple[Baseline, ...]:
    """Score the n-gram models of orders 1, 2, ... on the whole validation split.

    As for models, windows of `context_length` tokens (T) do not overlap, and the first
    token is predicted from the training split's last. With T as long as the split there
    is one window, and every token sees all its context.

    The highest order is the least of `highest_order`, T + 1, which looks at a whole
    window, and the longest n-gram that fits a key (`fit`). Raises `CorpusError` if the
    dataset is damaged.
    """
    data.verify()
    vocab_size = data.tokenizer.vocab_size
    order = min(highest_order, context_length + 1)
    counts = fit(data.split("train").numpy(), vocab_size, order)
    tokens = get_validation_tokens(data)
    characters = count_characters(tokens[1:], data.tokenizer)
    losses = compute_losses(counts, tokens.numpy(), context_length)
    return tuple(
        Baseline(order, context_length, Score(loss, len(tokens) - 1, characters), ngrams)
        for order, (loss, ngrams) in enumerate(
            zip(losses, accumulate(counts.sizes), strict=True), 1
        )
    )


def compute_losses(counts: NGrams, tokens: Tokens, context_length: int) -> list[float]:
    """Compute the mean loss of each order, in nats per token, over all tokens but the first.

    `tokens`: (N,), read in the windows of `sequential_windows`.
    """
    sums: list[list[float]] = [[] for _ in counts.levels]
    for start in range(1, len(tokens), TOKENS_PER_PART):
        places = np.arange(start, min(start + TOKENS_PER_PART, len(tokens)))
        known = count_known_tokens(places, context_length)
        by_order = counts.predict(tokens, places, known)
        for parts, predicted in zip(sums, by_order, strict=True):
            parts.append(-float(np.log(predicted.probabilities).sum()))
    return [math.fsum(parts) / (len(tokens) - 1) for parts in sums]
