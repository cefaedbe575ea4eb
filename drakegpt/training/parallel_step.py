"""A training step of a wide model on a CPU, its work shared among threads.

Each thread takes a share of the windows through the model and back, with a gradient of
its own. Then the gradients are added, and the threads share the optimizer's work. The
mathematics is that of one thread; only the order of sums differs, and each share has its
own random numbers for dropout. With a given number of threads a step always computes
the same bits.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from drakegpt.compute import kernels
from drakegpt.compute.workers import get_workers
from drakegpt.training.step_runner import ExecutionPlan, StepRunner


class ParallelStep:
    """Executes a step: its gradients side by side, then its updates.

    All that it is given must do the same at each call, and keep its tensors in place.
    """

    def __init__(
        self,
        plan: ExecutionPlan,
        gradients: Sequence[Callable[[], Tensor]],
        updates: Sequence[Callable[[], None]],
        *,
        before: Callable[[], None] | None = None,
        between: Callable[[], None],
        after: Callable[[], None] | None = None,
    ) -> None:
        """`gradients` compute each share's part of the loss; `between` adds them up."""
        threads = max(1, torch.get_num_threads() // plan.shares)
        self._workers = get_workers(plan.shares, threads)
        self._generators = [torch.Generator() for _ in gradients]
        self._gradients = [_Work(plan, work) for work in gradients]
        self._before = [_Work(plan, before)] if before else []
        self._after = [
            [_Work(plan, between)],
            [_Work(plan, work) for work in updates],
            [_Work(plan, after)] if after else [],
        ]

    def __call__(self) -> Tensor:
        """Execute a step; return its loss, a new scalar."""
        self._workers.run(self._before)
        seeds = torch.randint(2**62, (len(self._generators),)).tolist()
        for generator, seed in zip(self._generators, seeds, strict=True):
            generator.manual_seed(seed)
        drawn = zip(self._gradients, self._generators, strict=True)
        losses = self._workers.run([partial(work, generator) for work, generator in drawn])
        for works in self._after:
            self._workers.run(works)
        return torch.stack(losses).sum()

    def reset(self) -> None:
        """Free what was recorded; the next steps record it again."""
        for work in (*self._before, *self._gradients, *chain(*self._after)):
            work.runner.reset()


class _Work:
    """Work of one thread, recorded and replayed if the plan says so."""

    def __init__(self, plan: ExecutionPlan, work: Callable[[], Tensor | None]) -> None:
        self.runner = StepRunner(plan.mode, torch.device("cpu"))
        self._work, self._nothing = work, torch.zeros(())

    def __call__(self, generator: torch.Generator | None = None) -> Tensor:
        """Do the work, with random numbers from `generator`; return its result, if any."""
        with kernels.draw_from(generator) if generator else nullcontext():
            return self.runner(self._compute)

    def _compute(self) -> Tensor:
        result = self._work()
        return self._nothing if result is None else result
