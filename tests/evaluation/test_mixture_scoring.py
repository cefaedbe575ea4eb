"""Scores of mixtures: against probabilities worked out one token at a time."""

import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from drakegpt.config import preset_model
from drakegpt.data.ngrams import fit
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.evaluation import mixture_scoring as scoring
from drakegpt.evaluation.mixture_scoring import fit_mixture_weights, score_mixture
from drakegpt.evaluation.scoring import score_tokens
from drakegpt.models.mixture import FOLLOWERS, OCCURRENCES, Mixture, MixtureWeights, WeightedCounts
from drakegpt.models.registry import build_model

CPU = torch.device("cpu")
TOKENIZER = CharTokenizer("abcde")
RANDOM = np.random.default_rng(5)
TRAIN, TEXT = RANDOM.integers(5, size=300), torch.from_numpy(RANDOM.integers(5, size=40))


def model_of(context_length, seed=1, name="TransformerLM"):
    torch.manual_seed(seed)
    config = replace(preset_model(name, "default", 5), context_length=context_length)
    return build_model(config).eval()


MODELS = model_of(4), model_of(7, seed=2), model_of(8, name="BigramLM")


def window(place, context_length):
    """What is read before the token at `place`: from the start of its window."""
    return TEXT[(place - 1) // context_length * context_length : place]


@torch.no_grad()
def probability(model, place):
    context = window(place, model.config.context_length)
    return model(context[None])[0, -1].double().softmax(-1)[TEXT[place]].item()


def mixture_of(models, order=3):
    table = RANDOM.random((len(FOLLOWERS), len(OCCURRENCES)))
    return Mixture(models, WeightedCounts(fit(TRAIN, 5, order), MixtureWeights(table)))


@pytest.mark.parametrize("part", [1, 3, 2**18])
def test_scores_are_those_of_single_tokens(part):
    mixture = mixture_of(MODELS)
    counts, weights = mixture.counts.counts, mixture.counts.weights
    losses = {"models": [[], [], []], "ensemble": [], "counts": [], "mixture": []}
    for place in range(1, len(TEXT)):
        each = [probability(model, place) for model in MODELS]
        distribution, *known = counts.predict_next(window(place, 8).tolist())
        counted, weight = distribution[TEXT[place]], weights.look_up(*known)
        for parts, p in zip(losses["models"], each, strict=True):
            parts.append(-math.log(p))
        losses["ensemble"].append(-math.log(sum(each) / 3))
        losses["counts"].append(-math.log(counted))
        losses["mixture"].append(-math.log(weight * sum(each) / 3 + (1 - weight) * counted))
    with patch.object(scoring, "TOKENS_PER_PART", part):
        found = score_mixture(mixture, TEXT, TOKENIZER, CPU)
    for name in ("ensemble", "counts", "mixture"):
        assert getattr(found, name).loss == pytest.approx(np.mean(losses[name]), abs=1e-6)
    for score, parts in zip(found.models, losses["models"], strict=True):
        assert score.loss == pytest.approx(np.mean(parts), abs=1e-6)
    assert found.ensemble.tokens == found.mixture.characters == len(TEXT) - 1


def test_an_ensemble_of_equals_is_each_of_them():
    model = MODELS[0]
    alone = score_tokens(model, TEXT, TOKENIZER, CPU)
    single = score_mixture(Mixture((model,)), TEXT, TOKENIZER, CPU)
    assert single.models == (alone,)
    assert single.ensemble == alone
    assert single.counts is single.mixture is None
    several = score_mixture(Mixture((model, model, model)), TEXT, TOKENIZER, CPU)
    assert several.models == (alone, alone, alone)
    assert several.ensemble.loss == pytest.approx(alone.loss, abs=1e-12)


def test_an_ensemble_is_better_than_its_mean_member():
    found = score_mixture(Mixture(MODELS), TEXT, TOKENIZER, CPU)
    assert found.ensemble.loss < np.mean([score.loss for score in found.models])


def test_the_fitted_order_and_weights_have_the_lowest_loss():
    chain = torch.from_numpy(np.arange(60) % 5)  # each token follows from the one before
    ngrams = fit(np.arange(300) % 5, 5, 4)
    fitted = fit_mixture_weights(MODELS, ngrams, chain, CPU)
    assert fitted.order > 1
    assert fitted.tokens == len(chain) - 1
    counts = fit(np.arange(300) % 5, 5, fitted.order)
    mixture = Mixture(MODELS, WeightedCounts(counts, fitted.weights))
    found = score_mixture(mixture, chain, TOKENIZER, CPU)
    assert found.mixture.loss == pytest.approx(fitted.loss, abs=1e-12)
    assert found.mixture.loss < found.ensemble.loss


def test_the_text_to_fit_on_is_bounded():
    with patch.object(scoring, "MAX_FITTED_TOKENS", 10):
        some = fit_mixture_weights(MODELS, fit(TRAIN, 5, 2), TEXT, CPU)
    same = fit_mixture_weights(MODELS, fit(TRAIN, 5, 2), TEXT[:11], CPU)
    assert (some.loss, some.weights.to_json()) == (same.loss, same.weights.to_json())
    assert some.tokens == 10
