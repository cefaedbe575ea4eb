"""Generation by recorded steps: one CUDA graph or kernel trace per token, fetched in blocks.

Most of a token's time is not arithmetic: about a hundred kernels are launched one by one,
and then a GPU waits until the host has sampled a token and sent it back. Here a whole step,
from reading one token to sampling the next, runs on the device. It is recorded once: on an
NVIDIA GPU as a CUDA graph, which takes one launch, on a CPU as a `KernelTrace`. The host
sends random numbers and fetches tokens in blocks, and launches the next block before it
waits for one.

The caller gives the parts of a step: a reader (`context_window`) and a sampler (`sampling`).

Shapes: B texts, V tokens in the vocabulary, R tokens per block of random numbers.
"""

import logging
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from drakegpt.compute.cuda_graph import CaptureRefusedError, capture, warm_up_stream
from drakegpt.compute.replay import Replayed

log = logging.getLogger(__name__)

# Blocks grow from one token, so that a text starts to show soon, and double until launching one
# takes this long, so that it shows smoothly.
BLOCK_SECONDS = 0.005
# Eager calls before a step is recorded, in which libraries initialize. Recording takes as long
# as about ten calls, so a step that runs only when a window moves is recorded later.
WARM_UP_CALLS = 3
RARE_WARM_UP_CALLS = 8

Step = Callable[[], Tensor]
Sampler = Callable[[Tensor, Tensor], Tensor]  # logits (B, V) and noise (B, V) to tokens (B, 1)


class InPlaceReader(Protocol):
    """Reads texts in steps that can be recorded, as `context_window.ReplayableReader` does."""

    room: int  # tokens that still fit after the prompt
    room_after_move: int  # tokens that fit after the window has moved
    small: bool  # on a CPU, recording `move_and_read` pays

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
) -> Iterator[list[list[int]]]:
    """Yield `length` times the next token of each text, in blocks.

    `logits`: (B, V), for the first token. `noise`: blocks (B, R, V) on the CPU, of one size.
    """
    if length == 0:
        return
    steps = _Steps(reader, sampler, next(noise), logits.device)
    steps.sample(logits)
    previous = steps.fetch(0, 1)
    for block in _launch_blocks(steps, reader, noise, length - 1):
        yield previous.wait()
        previous = block
    yield previous.wait()


def generate_in_turns(
    reader: InPlaceReader,
    logits: Tensor,
    sampler: Sampler,
    noise: Iterator[Tensor],
    see: Callable[[list[list[int]]], int],
) -> Iterator[list[list[int]]]:
    """Do the same without end, and take turns with the host.

    `see` gets the tokens of a block, may change tensors that the sampler reads, in place, and
    returns how many tokens may be sampled before it sees them.
    """
    steps = _Steps(reader, sampler, next(noise), logits.device)
    recorded = _RecordedSteps(steps, reader)
    steps.sample(logits)
    first, used = 0, 1
    while True:
        block = steps.fetch(first, used).wait()
        yield block
        count = see(block)
        if used == steps.block_size:
            steps.send(next(noise))
            used = 0
        first, used = used, min(used + count, steps.block_size)
        recorded.run(used - first)


def _launch_blocks(
    steps: "_Steps", reader: InPlaceReader, noise: Iterator[Tensor], length: int
) -> Iterator["_Block"]:
    """Launch `length` more steps; yields blocks that the device may not have finished yet."""
    recorded = _RecordedSteps(steps, reader)
    size, used = 1, 1
    while length:
        started = time.perf_counter()
        if used == steps.block_size:
            steps.send(next(noise))
            used = 0
        count = min(size, steps.block_size - used, length)
        recorded.run(count)
        if time.perf_counter() - started < BLOCK_SECONDS / 2:
            size *= 2
        yield steps.fetch(used, used + count)
        used, length = used + count, length - count


class _RecordedSteps:
    """Both kinds of steps, each recorded after its first calls, as the window needs them."""

    def __init__(self, steps: "_Steps", reader: InPlaceReader) -> None:
        self._room, self._room_after_move = reader.room, reader.room_after_move
        self._read_next: Callable[[], object]
        self._move_and_read: Callable[[], object]
        read_next, move_and_read = steps.read_next, steps.move_and_read
        if steps.device.type == "cuda":
            first_calls = RARE_WARM_UP_CALLS if reader.room_after_move else WARM_UP_CALLS
            self._read_next = CapturedStep(steps.device, read_next, WARM_UP_CALLS)
            self._move_and_read = CapturedStep(steps.device, move_and_read, first_calls)
        else:
            self._read_next = Replayed(read_next)
            self._move_and_read = Replayed(move_and_read) if reader.small else move_and_read

    def run(self, count: int) -> None:
        """Launch that many steps."""
        for _ in range(count):
            if self._room:
                self._read_next()
                self._room -= 1
            else:
                self._move_and_read()
                self._room = self._room_after_move


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

    def read_next(self) -> Tensor:
        """Read and sample where there is room."""
        return self.sample(self._reader.read_next(self._tokens))

    def move_and_read(self) -> Tensor:
        """Read and sample where the window is full."""
        return self.sample(self._reader.move_and_read(self._tokens))

    def sample(self, logits: Tensor) -> Tensor:
        """Sample the next tokens (B, 1) from logits (B, V)."""
        noise = self._noise.index_select(1, self._row).squeeze(1)
        self._tokens.copy_(self._sampler(logits, noise))
        self._sampled.index_copy_(0, self._row, self._tokens.t())
        self._row.add_(1)
        return self._tokens

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
