"""Learning rate and weight decay at each iteration.

Pure functions of the settings, the iteration and the losses of the evaluations so far,
summarized by `LossHistory`: there is no state to save, and a resumed run continues
exactly.

    cyclic    triangle between base_lr and max_lr, as the original
    constant  max_lr
    cosine    from max_lr down to base_lr along half a cosine
    hold      max_lr for hold_share of the run, then linear decay to base_lr
    two-stage linear decay; in the second half two thirds of that, without weight decay
    step      max_lr, times decay_factor every decay_interval iterations
    plateau   max_lr, times decay_factor whenever the losses stop falling

All start with a linear warm-up from zero over `warmup_iters`.
"""

import math
from collections.abc import Iterable
from typing import Self

from drakegpt.config import TrainConfig

# The original's cycle: five evaluations up, five down.
HALF_CYCLE = 5
# two-stage (Ma et al. 2024, training tips for 1-bit models): factor of the second half.
STAGE_TWO = 2 / 3


class LossHistory:
    """Summary of the losses of all evaluations so far, updated with each.

    Every step reads it, so it must not take longer as evaluations accumulate.
    """

    def __init__(self, plateau_patience: int) -> None:
        self.count = 0
        self.since_lowest = 0  # evaluations since the lowest loss
        self.plateaus = 0  # runs of `plateau_patience` evaluations without a new lowest loss
        self._lowest, self._waited, self._patience = math.inf, 0, plateau_patience

    @classmethod
    def of(cls, config: TrainConfig, losses: Iterable[float]) -> Self:
        """Summarize the losses of a run's evaluations."""
        history = cls(config.plateau_patience)
        for loss in losses:
            history.add(loss)
        return history

    def add(self, loss: float) -> bool:
        """Add the loss of an evaluation; return whether it is the lowest so far."""
        lowest = loss < self._lowest
        self.count += 1
        if lowest:
            self._lowest, self._waited, self.since_lowest = loss, 0, 0
            return True
        self.since_lowest += 1
        self._waited += 1
        if self._waited == self._patience:
            self._waited, self.plateaus = 0, self.plateaus + 1
        return False


def learning_rate(
    config: TrainConfig, iteration: int, losses: LossHistory, start: int = 0
) -> float:
    """Return the learning rate of the step after `iteration` steps, of which `start` came before.

    The rate warms up from `start` on: there a finished run was taken up again.
    """
    done = iteration - start + 1
    warmup = min(1.0, done / config.warmup_iters) if config.warmup_iters else 1.0
    return warmup * _compute_scheduled_rate(config, iteration, losses)


def weight_decay_factor(config: TrainConfig, iteration: int) -> float:
    """Return the factor of the weight decay in the step after `iteration` steps."""
    ended = config.schedule == "two-stage" and _is_second_stage(config, iteration)
    return 0.0 if ended else 1.0


def _is_second_stage(config: TrainConfig, iteration: int) -> bool:
    return 2 * iteration >= config.iters


def _compute_scheduled_rate(config: TrainConfig, iteration: int, losses: LossHistory) -> float:
    low, high = config.base_lr, config.max_lr
    match config.schedule:
        case "cyclic":
            return low + _compute_triangle(losses.count) * (high - low)
        case "constant":
            return high
        case "cosine":
            done = _progress_between(iteration, config.warmup_iters, config.iters)
            return low + (1 + math.cos(math.pi * done)) / 2 * (high - low)
        case "hold":
            # Warm-up, stable, decay (Hu et al. 2024) with a share of 0.8; all decay with 0.
            fall = max(config.warmup_iters, math.ceil(config.hold_share * config.iters))
            return high + _progress_between(iteration, fall, config.iters) * (low - high)
        case "two-stage":
            left = 1 - _progress_between(iteration, config.warmup_iters, config.iters)
            return max(low, high * left * (STAGE_TWO if _is_second_stage(config, iteration) else 1))
        case "step":
            return high * config.decay_factor ** (iteration // config.decay_interval)
        case "plateau":
            return float(high * config.decay_factor**losses.plateaus)


def _compute_triangle(evaluations: int) -> float:
    """Return the height, 0 to 1, of the cyclic schedule (Smith 2017), one move per evaluation."""
    return 1 - abs(evaluations % (2 * HALF_CYCLE) / HALF_CYCLE - 1)


def _progress_between(iteration: int, start: int, end: int) -> float:
    """Return the share of the way from `start` to `end`, clamped to 0 and 1."""
    return min(1.0, max(0.0, (iteration - start) / max(1, end - start)))
