"""The learning rate at each point of a run. Pure functions: no state to save or restore."""

from drakegpt.config import TrainConfig

# The original's cycle: five evaluations up, five down.
HALF_CYCLE = 5


def cyclic(config: TrainConfig, evaluations_done: int) -> float:
    """Triangular learning rate (Smith 2017), advanced once per evaluation.

    From `base_lr` to `max_lr` in five evaluations, back in five, and again.
    """
    place = evaluations_done % (2 * HALF_CYCLE)
    height = 1 - abs(place / HALF_CYCLE - 1)
    return config.base_lr + height * (config.max_lr - config.base_lr)
