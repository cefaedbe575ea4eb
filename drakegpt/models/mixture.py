"""Mixtures: averages of the probabilities of several models, and of models and n-gram counts.

An ensemble is the mean of its members' probabilities:

    p = (p_1 + ... + p_n) / n

Its loss is at most the mean of their losses, as -log is convex. Logits are not averaged:
that would be a geometric mean, which forgets what a single member is sure of.

Counts know some contexts well and others hardly, so the model's weight, w, depends on the
longest context before a token that the counts know: how often it occurred, and how many
different tokens followed it. After one that was often followed, and always by the same token,
counts are nearly certain, and right.

    p = w p_model + (1 - w) p_counts

These few weights are fitted by expectation-maximization (Jelinek and Mercer, "Interpolated
estimation of Markov source parameters from sparse data", 1980), on a text that neither the
model nor the counts have seen: on one that they have seen, counts would look perfect.

Not here: the counts (`data.ngrams`), scores (`evaluation.mixture_scoring`), and which text the
weights are fitted on (`runs.mixtures`).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drakegpt.models.layers import LanguageModel

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# Where classes of contexts begin, by their different followers and their occurrences.
FOLLOWERS = (1, 2, 4, 8, 16)
OCCURRENCES = (1, 2, 4, 8, 16, 32, 64)
# All but the first, as arrays.
_FOLLOWERS, _OCCURRENCES = np.array(FOLLOWERS[1:]), np.array(OCCURRENCES[1:])
GENERAL_WEIGHTS = Path(__file__).with_name("mixture_weights.json")
ITERATIONS = 60  # of expectation-maximization
PRIOR_TOKENS = 20.0  # each weight is fitted as if it had these at the weight of all contexts


@dataclass(frozen=True)
class MixtureWeights:
    """The weight of the model in a mixture with counts, by what they know of a context."""

    table: FloatArray  # by class of `FOLLOWERS` and of `OCCURRENCES`

    def look_up(self, followers: IntArray, occurrences: IntArray) -> FloatArray:
        """Return the weight after each context, (n,)."""
        return self.table.reshape(-1)[_classify(followers, occurrences)]

    def to_json(self) -> dict[str, Any]:
        """Return the weights, and where the classes of contexts begin."""
        return {
            "followers": list(FOLLOWERS),
            "occurrences": list(OCCURRENCES),
            "model_weights": self.table.tolist(),
        }


def weights_from_json(values: Mapping[str, Any]) -> MixtureWeights:
    """Read what `to_json` returns; raises `ValueError` if it is anything else."""
    try:
        table = np.array(values["model_weights"], np.float64)
        classes = tuple(values["followers"]), tuple(values["occurrences"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"they are not a table of numbers: {error}") from error
    if classes != (FOLLOWERS, OCCURRENCES) or table.shape != tuple(map(len, classes)):
        raise ValueError("they are of other classes of contexts")
    if not ((table >= 0) & (table <= 1)).all():
        raise ValueError("they are not between 0 and 1")
    return MixtureWeights(table)


@cache
def load_general_weights() -> MixtureWeights:
    """Load weights for any run: means, as log-odds, of weights fitted on the tails of three texts.

    `GENERAL_WEIGHTS` names the texts and the runs.
    """
    return weights_from_json(json.loads(GENERAL_WEIGHTS.read_text(encoding="utf-8")))


class Counts(Protocol):
    """N-gram counts, as `data.ngrams` has them; each result is as its `Predictions`."""

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""

    def predict_next(self, context: Sequence[int]) -> tuple[FloatArray, IntArray, IntArray]:
        """Compute the probability of every token after a context, (V,)."""

    def predict(
        self, tokens: NDArray[Any], positions: IntArray, known: IntArray
    ) -> Iterator[tuple[FloatArray, IntArray, IntArray]]:
        """Yield, for each order from 1 on, the probabilities of the tokens at `positions`."""


@dataclass(frozen=True)
class WeightedCounts:
    """N-gram counts, and the weights of a model that is mixed with them."""

    counts: Counts
    weights: MixtureWeights


@dataclass(frozen=True)
class Mixture:
    """Models with one vocabulary, whose probabilities are averaged, and counts, if any.

    There may be no models: then it generates by counting alone.
    """

    models: tuple[LanguageModel, ...]
    counts: WeightedCounts | None = None

    @property
    def context_length(self) -> int:
        """That of the model with the longest."""
        return max(model.config.context_length for model in self.models)


def list_models(model: LanguageModel | Mixture) -> tuple[LanguageModel, ...]:
    """List the models of a mixture, or the one that is none."""
    return model.models if isinstance(model, Mixture) else (model,)


def average_probabilities(log_probabilities: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the mean of probabilities, all (...), given their logarithms."""
    if len(log_probabilities) == 1:
        return log_probabilities[0]
    return torch.stack(list(log_probabilities)).logsumexp(0) - math.log(len(log_probabilities))


def mix_with_counts(model: FloatArray, counts: FloatArray, weights: FloatArray) -> FloatArray:
    """Return log(w p_model + (1 - w) p_counts), given log p_model, p_counts and w, (n,) each."""
    with np.errstate(divide="ignore"):  # a weight may be 0 or 1
        return np.logaddexp(model + np.log(weights), np.log(counts) + np.log1p(-weights))


def fit_weights(
    model: FloatArray, counts: FloatArray, followers: IntArray, occurrences: IntArray
) -> MixtureWeights:
    """Fit the weights that give the tokens of a text, (N,), the highest probability.

    `model`: log p_model of each token; `counts`: p_counts; `followers`, `occurrences`: of the
    longest context before each that the counts know.
    """
    ratios = np.exp(np.clip(model - np.log(counts), -700, 700))  # p_model / p_counts
    one_class = np.zeros(len(ratios), np.int64)
    shared = _maximize(ratios, one_class, np.array([0.5]))
    shape = len(FOLLOWERS), len(OCCURRENCES)
    prior = np.repeat(shared, math.prod(shape))
    weights = _maximize(ratios, _classify(followers, occurrences), prior)
    return MixtureWeights(weights.reshape(shape))


def _maximize(ratios: FloatArray, classes: IntArray, prior: FloatArray) -> FloatArray:
    """Fit one weight to each class, (K,), given its prior, (K,).

    `ratios`: p_model / p_counts of each token, (N,); `classes`: the class of each, (N,).
    """
    tokens = np.bincount(classes, minlength=len(prior)) + PRIOR_TOKENS
    weights = prior
    for _ in range(ITERATIONS):
        odds = weights[classes] * ratios
        expected = odds / (odds + 1 - weights[classes])  # probability that it is the model's
        of_model = np.bincount(classes, expected, minlength=len(prior))
        weights = (of_model + PRIOR_TOKENS * prior) / tokens
    return weights


def _classify(followers: IntArray, occurrences: IntArray) -> IntArray:
    """Return the class of each context, (n,): its place in the flattened table of weights."""
    row = _FOLLOWERS.searchsorted(followers, side="right")
    return row * len(OCCURRENCES) + _OCCURRENCES.searchsorted(occurrences, side="right")
