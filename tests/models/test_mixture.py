"""Averages of probabilities, and the weights fitted for them: against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drakegpt.data.ngrams import fit
from drakegpt.models import mixture
from drakegpt.models.mixture import (
    FOLLOWERS,
    OCCURRENCES,
    MixtureWeights,
    average_probabilities,
    fit_weights,
    mix_with_counts,
    weights_from_json,
)

SHAPE = len(FOLLOWERS), len(OCCURRENCES)


def test_probabilities_are_averaged_and_not_logits():
    members = [torch.tensor([0.9, 0.1]).double(), torch.tensor([0.5, 0.5]).double()]
    found = average_probabilities([member.log() for member in members])
    assert found.exp().tolist() == pytest.approx([0.7, 0.3], abs=1e-7)
    assert average_probabilities([LIKELY, LIKELY]).tolist() == pytest.approx(LIKELY.tolist())


LIKELY = torch.tensor([-0.1, -300.0, -900.0], dtype=torch.float64)


@given(
    train=st.lists(st.integers(0, 4), max_size=80),
    context=st.lists(st.integers(0, 4), max_size=6),
    order=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_a_mixture_is_a_distribution(train, context, order, seed):
    random = np.random.default_rng(seed)
    weights = MixtureWeights(random.integers(0, 3, SHAPE) / 2)  # never and always the model, too
    model = torch.from_numpy(random.normal(size=5) * 20).log_softmax(-1).numpy()
    distribution, *known = fit(np.array(train, np.uint8), 5, order).predict_next(context)
    mixed = np.exp(mix_with_counts(model, distribution, weights.look_up(*known)))
    assert math.fsum(mixed) == pytest.approx(1, abs=1e-9)
    weight = float(weights.look_up(*known))
    expected = [
        weight * math.exp(m) + (1 - weight) * c for m, c in zip(model, distribution, strict=True)
    ]
    assert mixed.tolist() == pytest.approx(expected, rel=1e-12)


def test_weights_are_looked_up_by_powers_of_two():
    table = np.arange(math.prod(SHAPE)).reshape(SHAPE) / 100
    contexts = [(0, 0), (1, 1), (1, 2), (1, 3), (2, 4), (3, 7), (4, 8), (16, 64), (99, 10**9)]
    expected = [(0, 0), (0, 0), (0, 1), (0, 1), (1, 2), (1, 2), (2, 3), (4, 6), (4, 6)]
    found = MixtureWeights(table).look_up(*np.array(contexts).T)
    assert found.tolist() == [table[place] for place in expected]


def test_the_fitted_weight_is_the_likeliest(monkeypatch):
    """Against a search over all weights, in each class of contexts."""
    monkeypatch.setattr(mixture, "PRIOR_TOKENS", 1e-9)
    monkeypatch.setattr(mixture, "ITERATIONS", 3000)
    random = np.random.default_rng(3)
    model, counts = np.log(random.random(900)), random.random(900)
    followers = random.choice(FOLLOWERS, 900)
    occurrences = np.full(900, 64)
    table = fit_weights(model, counts, followers, occurrences).table
    candidates = np.linspace(0, 1, 2001)
    for row, number in enumerate(FOLLOWERS):
        p, q = np.exp(model[followers == number]), counts[followers == number]
        losses = [-np.log(w * p + (1 - w) * q).sum() for w in candidates]
        assert table[row, -1] == pytest.approx(candidates[np.argmin(losses)], abs=2e-3)


def test_contexts_without_tokens_get_the_weight_of_all():
    model, counts = np.log(np.full(5000, 0.2)), np.full(5000, 0.1)  # the model is always right
    weights = fit_weights(model, counts, np.full(5000, 2), np.full(5000, 4)).table
    seen = weights[1, 2]
    others = np.delete(weights.ravel(), SHAPE[1] + 2)
    assert 0.9 < others[0] < seen < 1
    assert np.ptp(others) == 0


def test_stored_weights_are_read_as_they_were():
    weights = MixtureWeights(np.random.default_rng(1).random(SHAPE))
    assert (weights_from_json(weights.to_json()).table == weights.table).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"model_weights": [[0.5]]},
        {"model_weights": "x"},
        {"model_weights": np.full(SHAPE, 1.5).tolist()},
        {"model_weights": np.full(SHAPE, math.nan).tolist()},
        {"followers": [1, 2]},
        {"occurrences": None},
    ],
)
def test_stored_weights_are_checked(changed):
    good = MixtureWeights(np.full(SHAPE, 0.5)).to_json()
    with pytest.raises(ValueError, match="they are"):
        weights_from_json(good | changed)
