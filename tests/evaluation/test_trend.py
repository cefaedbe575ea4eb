"""Judging a curve: made ones of which the answer is known, with noise of known size."""

import random

import pytest

from drakegpt.evaluation.trend import find_overfitting, judge_trend


def curve(losses, train=None, rates=None):
    train = train or [loss - 0.1 for loss in losses]
    rates = rates or [1e-3] * len(losses)
    return [
        {"iteration": 10 * (k + 1), "val_loss": v, "train_loss": t, "learning_rate": r}
        for k, (v, t, r) in enumerate(zip(losses, train, rates, strict=True))
    ]


def noisy(losses, deviation, seed):
    numbers = random.Random(seed)
    return [loss + numbers.gauss(0, deviation) for loss in losses]


DOWN = [3 - 0.05 * k for k in range(20)]
LEVEL = [3 - 0.1 * k for k in range(8)] + [2.2] * 12
UP_AGAIN = [2 + 0.05 * abs(k - 9) for k in range(20)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("deviation", [0.0, 0.01])
def test_a_falling_and_a_level_curve(deviation, seed):
    falls = judge_trend(curve(noisy(DOWN, deviation, seed)))
    assert falls.kind == "falls"
    assert falls.nats == pytest.approx(0.5, abs=0.05)
    level = judge_trend(curve(noisy(LEVEL, deviation, seed)))
    assert level.kind == "level"
    assert 60 <= level.since <= 110


def test_noise_alone_is_no_fall():
    kinds = [judge_trend(curve(noisy([2.2] * 20, 0.03, seed))).kind for seed in range(200)]
    assert kinds.count("falls") <= 20


def test_rising_validation_loss_is_overfitting_or_divergence_by_the_training_loss():
    train = [3 - 0.1 * k for k in range(20)]
    assert judge_trend(curve(UP_AGAIN, train)).kind == "overfits"
    assert judge_trend(curve(UP_AGAIN)).kind == "diverges"
    assert judge_trend(curve(UP_AGAIN)).since == 100


def test_a_higher_learning_rate_is_no_divergence():
    """The cyclic schedule stopped at the top of a cycle."""
    rates = [1e-3 + 4e-4 * abs(k - 9) for k in range(20)]
    assert judge_trend(curve(UP_AGAIN, rates=rates)).kind == "level"


@pytest.mark.parametrize("seed", range(5))
def test_a_curve_that_goes_up_and_down_at_a_high_rate_is_level(seed):
    losses = noisy([2.5] * 20, 0.03, seed)
    assert judge_trend(curve(losses), (losses[-1], min(losses))).kind == "level"


def test_exact_losses_decide_over_estimates():
    assert judge_trend(curve(UP_AGAIN), (2.0, 2.0)).kind != "diverges"
    assert judge_trend(curve(DOWN), (2.1, 2.05)).kind != "falls"


@pytest.mark.parametrize("losses", [[], [3.0, 2.9], [3.0] * 5, [3.0] * 9 + [float("nan")]])
def test_too_little_to_judge(losses):
    assert judge_trend(curve(losses)).kind == "unknown"


@pytest.mark.parametrize("number", range(6, 12))
def test_few_evaluations_are_enough(number):
    assert judge_trend(curve(DOWN[:number])).kind == "falls"


def test_overfitting_needs_exact_losses_that_rose_and_a_training_loss_that_fell():
    train = [3 - 0.1 * k for k in range(20)]
    assert find_overfitting(curve(UP_AGAIN, train), 2.5, 2.0) == 100
    assert find_overfitting(curve(UP_AGAIN, train), 2.005, 2.0) is None
    assert find_overfitting(curve(UP_AGAIN), 2.5, 2.0) is None
    assert find_overfitting([], 2.5, 2.0) is None
