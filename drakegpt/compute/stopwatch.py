"""A stopwatch for work that is repeated, such as training steps."""

import time
from typing import Self


class Stopwatch:
    """Measures wall-clock time in `with` blocks: `last`, and `seconds` in all.

    A GPU computes asynchronously: read a result, or synchronize, within the block.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.last = 0.0
        self._started = 0.0

    def __enter__(self) -> Self:
        """Start."""
        self._started = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop; time of a block that raises counts too."""
        self.last = time.perf_counter() - self._started
        self.seconds += self.last
