"""Work on a GPU that is launched again and again, recorded as a CUDA graph.

Whatever is recorded works on tensors that stay in their place; the first calls run
as written, for libraries and kernels set themselves up in them. What is worth
recording is decided elsewhere: training steps by `training.engine`, the writing of
a token by `generation.graph`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream beside the usual one; each more would keep memory of its own for good."""
    return torch.cuda.Stream(device)


@contextmanager
def warming_up(device: torch.device) -> Iterator[None]:
    """On a GPU, another stream, where PyTorch wants the calls before a capture to run."""
    if device.type != "cuda":
        yield
        return
    now = torch.cuda.current_stream(device)
    beside = _side_stream(now.device)
    beside.wait_stream(now)
    with torch.cuda.stream(beside):
        yield
    now.wait_stream(beside)


class CaptureRefusedError(Exception):
    """What was to be recorded cannot be; the message is the reason in one line."""


def capture(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Record `work` as a CUDA graph, which carries nothing out yet.

    Raises `CaptureRefusedError` where that is not possible. A capture that fails
    leaves its stream behind as the current one, and the random generator waiting
    for a replay: both are put back, after what failed is let go of with its memory.
    """
    graph = torch.cuda.CUDAGraph()
    before = torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, stream=_side_stream(before.device)):
            work()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # What ends a capture that is no longer valid fails too, with a message that says less.
        reason = str(error.__context__ or error).strip().splitlines()[0]
    else:
        return graph
    torch.cuda.set_stream(before)
    generator = torch.cuda.default_generators[before.device.index]
    generator.graphsafe_set_state(generator.clone_state())
    raise CaptureRefusedError(reason)
