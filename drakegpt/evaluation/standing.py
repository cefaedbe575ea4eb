"""Measures where a model's loss stands: beside counting, and mixed with it.

One pass over the validation split gives the model's loss, the share of tokens that it ranks
first, the losses of n-gram counts of each order in the same windows, and that of the mixture.
All are of the same tokens, so that they can be compared.

Not here: what these figures mean (`verdict`), and which run and counts they are of
(`runs.verdicts`).
"""

import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from drakegpt.data.ngrams import FloatArray, NGrams
from drakegpt.data.windows import count_known_tokens, sequential_windows
from drakegpt.evaluation.baseline import compute_losses
from drakegpt.evaluation.mixture_scoring import FittedWeights
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import choose_batch_tokens, token_losses_and_hits
from drakegpt.models.mixture import mix_with_counts

# Length of the windows in which counts are scored again, to see what a longer context is worth.
LONG_CONTEXT = 64


@dataclass(frozen=True)
class Counting:
    """What counting n-grams of up to `order` tokens reaches."""

    order: int
    loss: float  # nats per token
    ngrams: int  # number of distinct ones that it stores, of 1 to `order` tokens


@dataclass(frozen=True)
class Standing:
    """A model beside counting, on the same tokens. Losses in nats per token."""

    tokens: int  # number scored
    loss: float
    right: float  # share of the tokens to which the model gave the highest probability
    countings: tuple[Counting, ...]  # of orders 1, 2, ...; empty if nothing was counted
    mixture: float | None = None  # the model and the counts together
    # The lowest loss of counts in windows of `LONG_CONTEXT` tokens; not for longer contexts.
    long_counting: float | None = None

    @property
    def lowest_counting(self) -> Counting | None:
        """The counting with the lowest loss, if any."""
        return min(self.countings, key=lambda counting: counting.loss, default=None)


def measure_standing(
    model: LanguageModel,
    tokens: Tensor,
    device: torch.device,
    counts: NGrams | None = None,
    fitted: FittedWeights | None = None,
) -> Standing:
    """Measure a model, which is on `device`, on all tokens, (N,), but the first.

    `counts`: of the training split; `fitted`: the weights of a mixture of both.
    """
    context_length = model.config.context_length
    losses, right = _score_model(model, tokens, device)
    countings, mixture = (
        _score_counts(counts, fitted, tokens, context_length, losses) if counts else ((), None)
    )
    long_counting = None
    if counts and context_length < LONG_CONTEXT:
        long_counting = min(compute_losses(counts, tokens.numpy(), LONG_CONTEXT))
    mean = math.fsum(losses) / len(losses)
    return Standing(len(losses), mean, right, countings, mixture, long_counting)


def _score_model(
    model: LanguageModel, tokens: Tensor, device: torch.device
) -> tuple[FloatArray, float]:
    """Return the loss of each token but the first, (N - 1,), and the share ranked first."""
    context_length = model.config.context_length
    batch_size = max(1, choose_batch_tokens(device, model.config) // context_length)
    batches = sequential_windows(tokens, context_length, batch_size)
    pairs = [
        (losses.cpu(), int(hits.sum()))
        for losses, hits in token_losses_and_hits(model, batches, device)
    ]
    losses = torch.cat([each for each, _ in pairs]).numpy()
    return losses, sum(hits for _, hits in pairs) / len(losses)


def _score_counts(
    counts: NGrams,
    fitted: FittedWeights | None,
    tokens: Tensor,
    context_length: int,
    losses: FloatArray,
) -> tuple[tuple[Counting, ...], float | None]:
    """Score counts of each order, and the mixture with a model that has these `losses`."""
    positions = np.arange(1, len(tokens))
    known = count_known_tokens(positions, context_length)
    countings: list[Counting] = []
    mixture = None
    sizes = accumulate(counts.sizes)
    by_order = zip(counts.predict(tokens.numpy(), positions, known), sizes, strict=True)
    for order, (predicted, ngrams) in enumerate(by_order, 1):
        probabilities, *contexts = predicted
        if order <= context_length + 1:  # longer ones see no more in these windows
            countings.append(Counting(order, -float(np.log(probabilities).mean()), ngrams))
        if fitted and order == fitted.order:
            weights = fitted.weights.look_up(*contexts)
            mixture = -float(mix_with_counts(-losses, probabilities, weights).mean())
    return tuple(countings), mixture
