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

import torch
import torch.distributed as dist
from torch import Tensor

from drakegpt.errors import RunError, UsageError


@dataclass(frozen=True)
class World:
    """How many processes there are and which one this is, counted from zero."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` windows; raises `UsageError` if they do not divide."""
        if count % self.size:
            raise UsageError(
                f"A batch of {count} windows cannot be split evenly over {self.size} processes.",
                f"Take a multiple of {self.size} for --batch-size.",
            )
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def average(self, *tensors: Tensor) -> None:
        """Replace each tensor by its mean over all processes."""
        if self.size > 1:
            for tensor in tensors:
                with _explained():
                    dist.all_reduce(tensor)
                tensor /= self.size

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, in every process; all have one shape."""
        if self.size == 1:
            return [tensor]
        results = [torch.empty_like(tensor) for _ in range(self.size)]
        with _explained():
            dist.all_gather(results, tensor)
        return results

    def tell(self, text: str = "") -> str:
        """What the first process says, in every process."""
        words = [text]
        if self.size > 1:
            with _explained():
                dist.broadcast_object_list(words, src=0)
        return words[0]


ALONE = World()


@contextmanager
def join() -> Iterator[World]:
    """Meet the other processes that `torchrun` has started, if it has, and part at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(backend)
    try:
        yield World(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


@contextmanager
def _explained() -> Iterator[None]:
    """A lost process shows as a failed exchange with the others."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            f"Another process of this run has ended: {str(error).splitlines()[0]}",
            "Start all of them again with `--resume`; the last checkpoint is whole.",
        ) from error
