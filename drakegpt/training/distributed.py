"""Data-parallel training by several processes, started by `torchrun`; usually there is one.

Every process holds the whole model and computes its shard of each batch. The mean of
their gradients is the gradient of the batch, so a run does not depend on the number of
processes, except for rounding and dropout's random numbers. Only rank 0 writes and
prints.
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
    """The number of processes, and the rank of this one, from zero."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Return this process's part of `count` windows; `UsageError` if they do not divide."""
        if count % self.size:
            raise UsageError(
                f"A batch of {pluralize(count, 'window')} cannot be split evenly over {self.size} "
                "processes.",
                f"Use a multiple of {self.size} for --batch-size.",
            )
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def average(self, *tensors: Tensor) -> None:
        """Replace each tensor by its mean over all processes, in place."""
        if self.size > 1:
            for tensor in tensors:
                with _report_lost_process():
                    dist.all_reduce(tensor)
                tensor /= self.size

    def broadcast(self, text: str = "") -> str:
        """Return the `text` of rank 0, in every process; waits for it."""
        texts = [text]
        if self.size > 1:
            with _report_lost_process():
                dist.broadcast_object_list(texts, src=0)
        return texts[0]

    def seed_rank(self, seed: int, iteration: int) -> None:
        """Reseed the random generator of every rank but 0 from seed, rank and iteration.

        Rank 0 keeps the generator of a single process. So a checkpoint needs no
        random state of the other ranks.
        """
        if not self.is_main:
            sequence = np.random.SeedSequence([seed, self.rank, iteration])
            torch.manual_seed(int(sequence.generate_state(1)[0]))


SINGLE_PROCESS = ProcessGroup()


def connect(device: str = "auto") -> ProcessGroup:
    """Join the process group of `torchrun`, if it started this process.

    Raises `UsageError` if the processes cannot connect.
    """
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
            f"The {size} processes cannot connect: {str(error).splitlines()[0]}",
            "Start them with `torchrun --nproc-per-node N -m drakegpt train ...`, one for each GPU "
            "where there are GPUs.",
        ) from error
    return ProcessGroup(dist.get_rank(), size)


def disconnect() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


class ProcessLostError(RunError):
    """Another process of the run ended before this one."""


@contextmanager
def _report_lost_process() -> Iterator[None]:
    """Turn the error of a failed exchange into a `ProcessLostError`."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"Another process of this run has ended: {str(error).splitlines()[0]}",
            "Start them again with `--resume`; the last checkpoint is intact.",
        ) from error
