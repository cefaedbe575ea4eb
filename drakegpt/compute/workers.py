"""Threads that compute side by side, each for itself.

PyTorch divides every operation among threads, which wait for each other at its end:
hundreds of times in a training step, spinning, and for long if another program holds a
core. Workers divide the whole instead: each computes its own share, and they meet once.
Python's lock is no obstacle, because operations release it.

Not here: what is divided, and how (`training.parallel_step`).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Workers:
    """A number of threads, each with `threads` threads for its operations."""

    def __init__(self, count: int, threads: int) -> None:
        self._pool = ThreadPoolExecutor(
            count, "worker", initializer=torch.set_num_threads, initargs=(threads,)
        )

    def run(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run tasks side by side and wait for all; raises the error of the first that failed."""
        futures = [self._pool.submit(task) for task in tasks]
        wait(futures)
        return [future.result() for future in futures]


@cache
def get_workers(count: int, threads: int) -> Workers:
    """Return the workers of this process, which are made once."""
    return Workers(count, threads)
