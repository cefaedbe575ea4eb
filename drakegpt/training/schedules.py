"""The learning rate at each point of a run.

A pure function of the settings, the iteration and the validation losses so far:
there is no state to save, and a run that is taken up again goes on exactly.

    cyclic    triangle between base_lr and max_lr, as the original
    constant  max_lr
    cosine    from max_lr down to base_lr along half a cosine
    hold      max_lr for hold_share of the run, then down to base_lr along a straight line
    two-stage a straight line down, from half-way on at two thirds of it; no weight decay from there
    step      max_lr, times decay_factor every decay_interval iterations
    plateau   max_lr, times decay_factor whenever validation stops falling

Before that, the rate rises from zero in a straight line for `warmup_iters`.
"""

import math
from collections.abc import Sequence

from drakegpt.config import TrainConfig

# The original's cycle: five evaluations up, five down.
HALF_CYCLE = 5
# Two stages (Ma et al. 2024, training tips for 1-bit models): what the rate is multiplied by.
STAGE_TWO = 2 / 3


def learning_rate(config: TrainConfig, iteration: int, val_losses: Sequence[float]) -> float:
    """The rate for the step after `iteration` steps, given all validation losses so far."""
    warmth = min(1.0, (iteration + 1) / config.warmup_iters) if config.warmup_iters else 1.0
    return warmth * _scheduled(config, iteration, val_losses)


def weight_decay(config: TrainConfig, iteration: int) -> float:
    """The pull of the weights towards zero in the step after `iteration` steps."""
    if config.schedule == "two-stage" and _second_stage(config, iteration):
        return 0.0
    return config.weight_decay


def _second_stage(config: TrainConfig, iteration: int) -> bool:
    return 2 * iteration >= config.iters


def _scheduled(config: TrainConfig, iteration: int, val_losses: Sequence[float]) -> float:
    low, high = config.base_lr, config.max_lr
    match config.schedule:
        case "cyclic":
            return low + _triangle(len(val_losses)) * (high - low)
        case "constant":
            return high
        case "cosine":
            done = _progress(iteration, config.warmup_iters, config.iters)
            return low + (1 + math.cos(math.pi * done)) / 2 * (high - low)
        case "hold":
            # Warm-up, stable, decay (Hu et al. 2024) with a share of 0.8; all decay with 0.
            fall = max(config.warmup_iters, math.ceil(config.hold_share * config.iters))
            return high + _progress(iteration, fall, config.iters) * (low - high)
        case "two-stage":
            left = 1 - _progress(iteration, config.warmup_iters, config.iters)
            return max(low, high * left * (STAGE_TWO if _second_stage(config, iteration) else 1))
        case "step":
            return high * config.decay_factor ** (iteration // config.decay_interval)
        case "plateau":
            decays = _plateaus(val_losses, config.plateau_patience)
            return float(high * config.decay_factor**decays)


def _triangle(evaluations: int) -> float:
    """Height between 0 and 1 of the cyclic schedule (Smith 2017), advanced per evaluation."""
    return 1 - abs(evaluations % (2 * HALF_CYCLE) / HALF_CYCLE - 1)


def _progress(iteration: int, start: int, end: int) -> float:
    """How much of the way from `start` to `end` is done, between 0 and 1."""
    return min(1.0, max(0.0, (iteration - start) / max(1, end - start)))


def _plateaus(losses: Sequence[float], patience: int) -> int:
    """How often `patience` evaluations in a row have brought no loss below the best before."""
    best, waited, plateaus = math.inf, 0, 0
    for loss in losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            waited, plateaus = 0, plateaus + 1
    return plateaus
