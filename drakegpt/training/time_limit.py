"""Estimate, while a run trains, how many iterations fit in its time.

The estimates are made again many times, so that a run ends on time on a machine that becomes
busy. A trainer passes each on before a step uses it; a resumed run reads those that were made.

Not here: the estimate before the first step (`run_length`), and storing them (`runs.session`).
"""

import time
from collections import deque
from dataclasses import dataclass

ESTIMATES_PER_EVALUATION = 8


@dataclass(frozen=True)
class Estimate:
    """The number of iterations of a run, as estimated after `iteration` of them."""

    iteration: int
    iters: int
    start: int = 0  # the first iteration of this part of the run: its learning rate warms up


class TimeLimit:
    """The moment when a run should end, and how fast it has been lately."""

    def __init__(self, deadline: float, *, most: int = 0, tokens_at_end: int = 0) -> None:
        """`deadline`: in seconds of `time.monotonic`. `most`: iterations at most; 0: no limit.

        `tokens_at_end`: tokens that are scored after training, before the deadline.
        """
        self.deadline, self.most, self.tokens_at_end = deadline, most, tokens_at_end
        # The last evaluation interval: the moments after some iterations.
        self._passed: deque[tuple[float, int]] = deque(maxlen=ESTIMATES_PER_EVALUATION + 1)

    def pass_iteration(self, iteration: int) -> None:
        """Note the moment after that many iterations."""
        self._passed.append((time.monotonic(), iteration))

    def estimate(self, iteration: int, seconds_per_scored_token: float) -> int:
        """Return the iterations of the whole run, given those so far; at least those.

        Call `pass_iteration` when training starts, and before each estimate.
        """
        (then, before), (now, _) = self._passed[0], self._passed[-1]
        left = self.deadline - now - self.tokens_at_end * seconds_per_scored_token
        pace = (now - then) / max(1, iteration - before)
        iters = iteration + (max(0, int(left / pace)) if pace else 0)
        return min(iters, self.most) if self.most else iters
