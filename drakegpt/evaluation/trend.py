"""Judges from a run's evaluations whether its loss still falls, is level, overfits or diverges.

Pure: evaluations in, a judgement out. Evaluations are mappings with an iteration, a training
and a held-out loss in nats (`val_loss`), and the learning rate, oldest first.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from drakegpt.evaluation.noise import MIN_NOISE, STANDARD_ERRORS

Evaluations = Sequence[Mapping[str, Any]]
Kind = Literal["falls", "level", "overfits", "diverges", "unknown"]

# The last weights overfit if their validation loss is higher than the best by more than this.
OVERFITTING_NATS = 0.01
LEVEL_NATS = 0.01  # a loss that fell by less in the second half of a run is level
FEWEST = 6  # evaluations from which a curve can be judged
AVERAGED = 3  # evaluations at the end, whose differences are averaged


@dataclass(frozen=True)
class Trend:
    """How the held-out loss moves at the end of a run."""

    kind: Kind
    since: int = 0  # the iteration from which that is so
    nats: float = 0.0  # how far it fell in the second half of the run, or rose since then


def find_overfitting(evaluations: Evaluations, val_loss: float, best_val_loss: float) -> int | None:
    """Return the iteration from which validation loss rose while training loss fell, if any.

    `val_loss`, `best_val_loss`: exact losses of the last weights and of those with the lowest
    estimate. They decide, as estimates are too noisy; the iteration is that of the lowest
    estimate.
    """
    if val_loss - best_val_loss <= OVERFITTING_NATS or not evaluations:
        return None
    best = min(evaluations, key=_get_loss)
    fell = evaluations[-1]["train_loss"] < best["train_loss"]
    return int(best["iteration"]) if fell else None


def judge_trend(evaluations: Evaluations, exact: tuple[float, float] | None = None) -> Trend:
    """Judge the end of a curve.

    `exact`: exact validation losses of the last and the best weights, if they are known.

    The fall is that of the second half: the mean difference of the last evaluations from those
    half a run before, which with the cyclic schedule are at the same height of a cycle. A loss
    that does not fall in the last quarter does not fall any more.
    """
    if exact and (since := find_overfitting(evaluations, *exact)):
        return Trend("overfits", since, exact[0] - exact[1])
    if len(evaluations) < FEWEST or not all(math.isfinite(_get_loss(e)) for e in evaluations):
        return Trend("unknown")
    best = min(evaluations, key=_get_loss)
    deviation = STANDARD_ERRORS * _estimate_deviation(evaluations)
    noise = max(MIN_NOISE, deviation * (2 / AVERAGED) ** 0.5)  # of a difference of two means
    if exact:
        rise = exact[0] - exact[1]
    else:
        rise = _get_loss(evaluations[-1]) - _get_loss(best) - max(MIN_NOISE, deviation)
    if rise > OVERFITTING_NATS:
        return _judge_rise(evaluations, best, rise, deviation, noise)
    fall = _measure_fall(evaluations, len(evaluations) // 2)
    lately = _measure_fall(evaluations, len(evaluations) // 4)
    if fall > max(LEVEL_NATS, noise) and lately > max(LEVEL_NATS / 2, noise):
        return Trend("falls", int(evaluations[-1]["iteration"]), fall)
    return Trend("level", _find_level_start(evaluations, noise), fall)


def _judge_rise(
    evaluations: Evaluations,
    best: Mapping[str, Any],
    rise: float,
    deviation: float,
    noise: float,
) -> Trend:
    """Tell overfitting from divergence, in which the training loss rises too.

    At a higher learning rate both losses are higher for a while, and at a constant high one they
    go up and down: that is neither.
    """
    since, last = int(best["iteration"]), evaluations[-1]
    if rise <= 2 * deviation:  # the lowest of many is low by chance
        return Trend("level", _find_level_start(evaluations, noise), -rise)
    if last["train_loss"] - best["train_loss"] <= noise:
        return Trend("overfits", since, rise)
    if last["learning_rate"] <= best["learning_rate"]:
        return Trend("diverges", since, rise)
    return Trend("level", since, -rise)


def _measure_fall(evaluations: Evaluations, number: int) -> float:
    """Return by how much the loss fell over the last `number` evaluations."""
    before = evaluations[-AVERAGED - number : -number]
    return _average(before) - _average_last(evaluations)


def _find_level_start(evaluations: Evaluations, noise: float) -> int:
    """Return the first iteration from which on no mean of evaluations is above the last one."""
    end = _average_last(evaluations) + max(LEVEL_NATS, 2 * noise)  # many are compared
    starts = range(len(evaluations) - AVERAGED + 1)
    above = [start for start in starts if _average(evaluations[start : start + AVERAGED]) > end]
    return int(evaluations[above[-1] + 1 if above else 0]["iteration"])


def _estimate_deviation(evaluations: Evaluations) -> float:
    """Estimate the standard deviation of an evaluation around a smooth curve, in the second half.

    From second differences, v - (before + after) / 2, whose variance is 1.5 times as large.
    """
    losses = [_get_loss(e) for e in evaluations[len(evaluations) // 2 - 1 :]]
    triples = zip(losses, losses[1:], losses[2:], strict=False)
    squares = [(middle - (before + after) / 2) ** 2 for before, middle, after in triples]
    return math.sqrt(statistics.fmean(squares) / 1.5)


def _average_last(evaluations: Evaluations) -> float:
    return _average(evaluations[-AVERAGED:])


def _average(evaluations: Evaluations) -> float:
    return statistics.fmean(map(_get_loss, evaluations))


def _get_loss(evaluation: Mapping[str, Any]) -> float:
    return float(evaluation["val_loss"])
