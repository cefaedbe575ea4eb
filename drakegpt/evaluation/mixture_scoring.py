"""Scores ensembles and mixtures with counts on whole splits, and fits the weights of counts.

Each model reads windows of its own context length, as its own score does (`scoring`); counts
read windows of the longest. A text is scored in parts, which bounds the memory.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drakegpt.data.ngrams import FloatArray, IntArray, NGrams
from drakegpt.data.tokenizers.base import Tokenizer, Tokens
from drakegpt.data.windows import count_known_tokens, sequential_windows
from drakegpt.evaluation.score import Score
from drakegpt.evaluation.scoring import count_characters
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import choose_batch_tokens, token_losses
from drakegpt.models.mixture import (
    Mixture,
    MixtureWeights,
    average_probabilities,
    fit_weights,
    mix_with_counts,
)

TOKENS_PER_PART = 2**18
MAX_FITTED_TOKENS = 2**20  # enough for a handful of weights


@dataclass(frozen=True)
class MixtureScores:
    """The scores of a mixture and its parts on the same tokens."""

    models: tuple[Score, ...]
    ensemble: Score  # the mean of the models' probabilities
    counts: Score | None = None
    mixture: Score | None = None  # the ensemble and the counts


@dataclass(frozen=True)
class FittedWeights:
    """Weights of a model that is mixed with counts, and how well it then predicts."""

    order: int  # of the counts
    weights: MixtureWeights
    loss: float | None = None  # nats per token, on the text that they were fitted on
    tokens: int = 0  # number of tokens in it; none if they were fitted on other texts


def score_mixture(
    mixture: Mixture, tokens: Tensor, tokenizer: Tokenizer, device: torch.device
) -> MixtureScores:
    """Score a mixture, whose models are on `device`, on all tokens, (N,), but the first."""
    sums: dict[str | int, list[float]] = {}
    start = 1
    for models in _read_in_parts(mixture.models, tokens, device):
        ensemble = average_probabilities(models)
        positions = np.arange(start, start + len(ensemble))
        scored: dict[str | int, Tensor | FloatArray] = {"ensemble": ensemble}
        scored |= enumerate(models)
        scored |= _mix_in_counts(mixture, ensemble.numpy(), tokens.numpy(), positions)
        for name, log_probabilities in scored.items():
            sums.setdefault(name, []).append(-float(log_probabilities.sum()))
        start += len(ensemble)
    number, characters = len(tokens) - 1, count_characters(tokens[1:], tokenizer)
    scores = {
        name: Score(math.fsum(parts) / number, number, characters) for name, parts in sums.items()
    }
    return MixtureScores(
        tuple(scores[index] for index in range(len(mixture.models))),
        scores["ensemble"],
        scores.get("counts"),
        scores.get("mixture"),
    )


def fit_mixture_weights(
    models: Sequence[LanguageModel], ngrams: NGrams, tokens: Tensor, device: torch.device
) -> FittedWeights:
    """Fit the order of counts, and the weights of the mean of `models` beside them.

    `tokens`: (N,), of which all but the first are predicted, at most `MAX_FITTED_TOKENS` of
    them; neither `models` nor `ngrams` may have seen them. The order is the one with the lowest
    loss, of those that `ngrams` have.
    """
    tokens = tokens[: MAX_FITTED_TOKENS + 1]
    parts = [average_probabilities(part) for part in _read_in_parts(models, tokens, device)]
    ensemble = torch.cat(parts).numpy()
    context_length = max(model.config.context_length for model in models)
    positions = np.arange(1, len(tokens))
    known = count_known_tokens(positions, context_length)
    fitted = []
    for order, predicted in enumerate(ngrams.predict(tokens.numpy(), positions, known), 1):
        weights = fit_weights(ensemble, *predicted)
        mixed = mix_with_counts(ensemble, predicted[0], weights.look_up(*predicted[1:]))
        fitted.append(FittedWeights(order, weights, -float(mixed.mean()), len(positions)))
    return min(fitted, key=lambda each: each.loss or 0.0)


def _mix_in_counts(
    mixture: Mixture, ensemble: FloatArray, tokens: Tokens, positions: IntArray
) -> dict[str | int, Tensor | FloatArray]:
    """Return the log probabilities of counts and of the mixture at `positions`, (n,) each."""
    if not mixture.counts:
        return {}
    known = count_known_tokens(positions, mixture.context_length)
    *_, predicted = mixture.counts.counts.predict(tokens, positions, known)
    probabilities, *contexts = predicted
    weights = mixture.counts.weights.look_up(*contexts)
    return {
        "counts": np.log(probabilities),
        "mixture": mix_with_counts(ensemble, probabilities, weights),
    }


def _read_in_parts(
    models: Sequence[LanguageModel], tokens: Tensor, device: torch.device
) -> Iterator[list[Tensor]]:
    """Yield the log probabilities of consecutive tokens, (n,) for each model, in float64."""
    return map(list, zip(*(_read(model, tokens, device) for model in models), strict=True))


def _read(model: LanguageModel, tokens: Tensor, device: torch.device) -> Iterator[Tensor]:
    """Yield the log probabilities of all tokens but the first, `TOKENS_PER_PART` at a time."""
    context_length = model.config.context_length
    batch_size = max(1, choose_batch_tokens(device, model.config) // context_length)
    batches = sequential_windows(tokens, context_length, batch_size)
    waiting, number = [], 0
    for losses in token_losses(model, batches, device):
        waiting.append(-losses.cpu())
        number += len(losses)
        if number >= TOKENS_PER_PART:
            *parts, rest = torch.cat(waiting).split(TOKENS_PER_PART)
            yield from parts
            waiting, number = [rest], len(rest)
    if number:
        yield from torch.cat(waiting).split(TOKENS_PER_PART)
