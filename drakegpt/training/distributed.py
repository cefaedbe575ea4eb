"""The processes that train one run together, as `torchrun` starts them; usually there is one.

Every process holds the whole model and takes its share of each batch; the mean
of their gradients is that of the whole batch, so the run is the same however
many they are, but for rounding and for dropout's dice. The first process alone
writes and prints.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from drakegpt.errors import RunError, UsageError
from drakegpt.wording import pluralize


@dataclass(frozen=True)
class ProcessGroup:
    """How many processes there are and which one this is, counted from zero."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Which of `count` windows are this process's; `UsageError` if they do not divide."""
        if count % self.size:
            raise UsageError(
                f"A batch of {pluralize(count, 'window')} cannot be split evenly over {self.size} "
                "processes.",
                f"Take a multiple of {self.size} for --batch-size.",
            )
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def average(self, *tensors: Tensor) -> None:
        """Replace each tensor by its mean over all processes."""
        if self.size > 1:
            for tensor in tensors:
                with _report_lost_process():
                    dist.all_reduce(tensor)
                tensor /= self.size

    def broadcast(self, text: str = "") -> str:
        """What the first process says, in every process."""
        words = [text]
        if self.size > 1:
            with _report_lost_process():
                dist.broadcast_object_list(words, src=0)
        return words[0]

    def seed_rank(self, seed: int, iteration: int) -> None:
        """Give processes but the first dice that seed, process and iteration alone decide.

        The first keeps the generator that it would have alone. Nothing of the
        others has to be remembered for a run to go on.
        """
        if not self.is_main:
            sequence = np.random.SeedSequence([seed, self.rank, iteration])
            torch.manual_seed(int(sequence.generate_state(1)[0]))


SINGLE_PROCESS = ProcessGroup()


def connect(device: str = "auto") -> ProcessGroup:
    """Meet the other processes that `torchrun` has started, if it has, each on a `device`."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not {"RANK", "MASTER_ADDR"} <= os.environ.keys():
        return SINGLE_PROCESS
    try:
        if device in ("auto", "cuda") and torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("cpu:gloo,cuda:nccl")
        else:
            dist.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"The {size} processes cannot be brought together: {str(error).splitlines()[0]}",
            "Start them with `torchrun --nproc-per-node N -m drakegpt train ...`, one for each GPU "
            "where there are GPUs.",
        ) from error
    return ProcessGroup(dist.get_rank(), size)


def disconnect() -> None:
    """Part from the other processes, if there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()


class ProcessLostError(RunError):
    """Another process of the run has ended before this one."""


@contextmanager
def _report_lost_process() -> Iterator[None]:
    """A process that is lost shows as a failed exchange with it."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"Another process of this run has ended: {str(error).splitlines()[0]}",
            "Start them again with `--resume`; the last checkpoint is whole.",
        ) from error
