"""Generation ahead of the host on an NVIDIA GPU: one CUDA graph per token, fetched in blocks.

Most of a token's time on a GPU is not arithmetic: about a hundred kernels are launched one
by one, and then the device waits until the host has sampled a token and sent it back. Here a
whole step, from reading one token to sampling the next, runs on the device. It is recorded
once as a CUDA graph, which takes one launch. The host sends random numbers and fetches
tokens in blocks, and launches the next block before it waits for one.

The caller gives the parts of a step: a reader (`context_window`) and a sampler (`sampling`).

Shapes: B texts, V tokens in the vocabulary, R tokens per block of random numbers.
"""

import logging
from collections.abc import Callable, Iterator
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from drakegpt.compute.cuda_graph import CaptureRefusedError, capture, warm_up_stream

log = logging.getLogger(__name__)

# Tokens in the first block, small so that a text starts to show soon; each block doubles it.
FIRST_BLOCK = 8
# Eager calls before a step is recorded, in which libraries initialize. Recording takes as long
# as about ten calls, so a step that runs only when a window moves is recorded later.
WARM_UP_CALLS = 3
RARE_WARM_UP_CALLS = 8

Step = Callable[[], None]
Sampler = Callable[[Tensor, Tensor], Tensor]  # logits (B, V) and noise (B, V) to tokens (B, 1)


class InPlaceReader(Protocol):
    """Reads texts in steps that a graph can replay, as `context_window.ReplayableReader` does."""

    room: int  # tokens that still fit after the prompt
    room_after_move: int  # tokens that fit after the window has moved

    def read_next(self, tokens: Tensor) -> Tensor:
        """Read the next token of each text, (B, 1), while there is room. Returns logits (B, V)."""

    def move_and_read(self, tokens: Tensor) -> Tensor:
        """Move the full window, then read the next tokens (B, 1). Returns logits (B, V)."""


def generate_ahead(
    reader: InPlaceReader,
    logits: Tensor,
    sampler: Sampler,
    noise: Iterator[Tensor],
    length: int,
) -> Iterator[list[int]]:
    """Yield `length` times the next token of each text.

    `logits`: (B, V), for the first token. `noise`: blocks (B, R, V) on the CPU, of one size.
    """
    if length == 0:
        return
    steps = _Steps(reader, sampler, next(noise), logits.device)
    steps.sample(logits)
    previous = steps.fetch(0, 1)
    for block in _launch_blocks(steps, reader, noise, length - 1):
        yield from previous.wait()
        previous = block
    yield from previous.wait()


def _launch_blocks(
    steps: "_Steps", reader: InPlaceReader, noise: Iterator[Tensor], length: int
) -> Iterator["_Block"]:
    """Launch `length` more steps; yields blocks that the device may not have finished yet."""
    rare = reader.room_after_move > 0
    read_next = CapturedStep(steps.device, steps.read_next, WARM_UP_CALLS)
    first_calls = RARE_WARM_UP_CALLS if rare else WARM_UP_CALLS
    move_and_read = CapturedStep(steps.device, steps.move_and_read, first_calls)
    room, size, used = reader.room, FIRST_BLOCK, 1
    while length:
        if used == steps.block_size:
            steps.send(next(noise))
            used = 0
        count = min(size, steps.block_size - used, length)
        for _ in range(count):
            if room:
                read_next()
                room -= 1
            else:
                move_and_read()
                room = reader.room_after_move
        yield steps.fetch(used, used + count)
        used, length, size = used + count, length - count, 2 * size


class _Steps:
    """The steps and their tensors, which stay at the same addresses on the device.

    The graphs are kept elsewhere: an object that held both would be a reference cycle, and
    keep the graphs' memory until Python's garbage collector runs.
    """

    def __init__(
        self, reader: InPlaceReader, sampler: Sampler, noise: Tensor, device: torch.device
    ) -> None:
        texts, self.block_size, _ = noise.shape
        self._reader, self._sampler, self.device = reader, sampler, device
        self._tokens = torch.zeros(texts, 1, dtype=torch.int64, device=device)  # the last sampled
        self._sampled = self._tokens.new_zeros(self.block_size, texts)
        self._row = self._tokens.new_zeros(1)  # the next of noise and sampled tokens
        self._noise = torch.empty_like(noise, device=device)
        self.send(noise)

    def send(self, noise: Tensor) -> None:
        """Copy a block of noise, (B, R, V), to the device and start at its first row."""
        on_gpu = self._noise.is_cuda
        self._noise.copy_(noise.pin_memory() if on_gpu else noise, non_blocking=True)
        self._row.zero_()

    def read_next(self) -> None:
        """Read and sample where there is room."""
        self.sample(self._reader.read_next(self._tokens))

    def move_and_read(self) -> None:
        """Read and sample where the window is full."""
        self.sample(self._reader.move_and_read(self._tokens))

    def sample(self, logits: Tensor) -> None:
        """Sample the next tokens from logits (B, V)."""
        noise = self._noise.index_select(1, self._row).squeeze(1)
        self._tokens.copy_(self._sampler(logits, noise))
        self._sampled.index_copy_(0, self._row, self._tokens.t())
        self._row.add_(1)

    def fetch(self, first: int, end: int) -> "_Block":
        """Start the transfer of the sampled tokens in rows `first` to `end` - 1."""
        return _Block(self._sampled[first:end])


class _Block:
    """Tokens (n, B) in transfer from the device."""

    def __init__(self, tokens: Tensor) -> None:
        self._tokens = tokens.to("cpu", non_blocking=True, copy=True)
        self._arrival: torch.cuda.Event | None = None
        if tokens.is_cuda:
            self._arrival = torch.cuda.current_stream(tokens.device).record_event()

    def wait(self) -> list[list[int]]:
        """Wait for the tokens and return them."""
        if self._arrival is not None:
            self._arrival.synchronize()
        result: list[list[int]] = self._tokens.tolist()
        return result


class CapturedStep:
    """A step on a GPU: the first calls are eager, the others replay one CUDA graph.

    If PyTorch cannot record the step, all calls are eager, after a warning.
    """

    def __init__(self, device: torch.device, step: Step, eager_calls: int) -> None:
        self._device, self._step, self._eager_calls = device, step, eager_calls
        self._graph: torch.cuda.CUDAGraph | None = None
        self._refused = False

    def __call__(self) -> None:
        """Run the step, or launch its graph."""
        if self._graph is not None:
            self._graph.replay()
        elif self._refused:
            self._step()
        elif self._eager_calls:
            self._eager_calls -= 1
            with warm_up_stream(self._device):
                self._step()
        else:
            with torch.cuda.device(self._device):  # or another GPU's stream would be recorded
                self._record()
            self()

    def _record(self) -> None:
        try:
            self._graph = capture(self._step)
        except CaptureRefusedError as refused:
            self._refused = True
            _warn(str(refused))


@cache
def _warn(reason: str) -> None:
    """Warn once per reason."""
    log.warning("Generation cannot be recorded as a CUDA graph, so it is slower: %s", reason)
