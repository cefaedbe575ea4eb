"""Capture repeated GPU work as a CUDA graph.

Captured work must keep its tensors in place. Its first calls run eagerly, because
libraries and kernels initialize themselves in them. `training.step_runner` captures
training steps, `generation.graph` the generation of a token.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch


@cache
def _get_side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one side stream: each stream would keep memory of its own."""
    return torch.cuda.Stream(device)


@contextmanager
def warm_up_stream(device: torch.device) -> Iterator[None]:
    """Run on a side stream, where PyTorch requires the calls before a capture; GPU only."""
    if device.type != "cuda":
        yield
        return
    current = torch.cuda.current_stream(device)
    side = _get_side_stream(current.device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)


class CaptureRefusedError(Exception):
    """The work cannot be captured; the message is the reason in one line."""


def capture(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Capture `work` as a CUDA graph, without executing it.

    Raises `CaptureRefusedError` if that is not possible. A failed capture leaves its
    stream as the current one, and the random generator in capture mode: both are
    restored.
    """
    graph = torch.cuda.CUDAGraph()
    before = torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, stream=_get_side_stream(before.device)):
            work()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # Ending an invalid capture fails too, with a less specific message.
        reason = str(error.__context__ or error).strip().splitlines()[0]
    else:
        return graph
    torch.cuda.set_stream(before)
    generator = torch.cuda.default_generators[before.device.index]
    generator.graphsafe_set_state(generator.clone_state())
    raise CaptureRefusedError(reason)
