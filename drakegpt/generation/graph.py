"""Texts written ahead on an NVIDIA GPU: a token is one CUDA graph, and many are fetched at once.

Most of what a token costs on a GPU is not arithmetic: about a hundred kernels are
started one by one, and then everybody waits until the host has drawn a token and
sent it back. So all that a token needs happens on the device, from reading the one
before to drawing the next: a step. It is recorded once as a CUDA graph, which
takes one launch. The host sends random numbers and fetches tokens a block at a
time, and has the next block written before it waits for one.

What a step does is given by others: `window` reads, `sampling` draws. Not here:
any arithmetic.

Shapes: B texts, V tokens in the vocabulary, R tokens of a text for which random
numbers are sent together.
"""

import logging
from collections.abc import Callable, Iterator
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from drakegpt.compute.cuda_graph import CaptureRefusedError, capture, warm_up_stream

log = logging.getLogger(__name__)

# Tokens that are fetched first, so that a text soon begins to show; then twice as many each time.
FIRST_BLOCK = 8
# Calls as written before a step is recorded, in which libraries set themselves up. To record takes
# as long as some ten calls: where a step is only taken when a window moves, it must pay first.
WARM_UP_CALLS = 3
RARE_WARM_UP_CALLS = 8

Step = Callable[[], None]
Choose = Callable[[Tensor, Tensor], Tensor]  # logits (B, V) and noise (B, V) to tokens (B, 1)


class InPlace(Protocol):
    """What reads the texts in steps that a graph can replay: `window.ReplayableReader`."""

    room: int  # for so many tokens, after the prompt
    room_again: int  # for so many after those that are read again

    def read_on(self, tokens: Tensor) -> Tensor:
        """Read one more token of each text, (B, 1), while there is room. Returns (B, V)."""

    def read_again(self, tokens: Tensor) -> Tensor:
        """Read one more, (B, 1), when there is no room, which makes some. Returns (B, V)."""


def write_ahead(
    reader: InPlace,
    logits: Tensor,
    choose: Choose,
    noise: Iterator[Tensor],
    length: int,
) -> Iterator[list[int]]:
    """Yield `length` times the next token of each text; `logits` (B, V) are those of the first.

    `noise`: blocks (B, R, V) on the CPU, all of one size.
    """
    if length == 0:
        return
    steps = _Steps(reader, choose, next(noise), logits.device)
    steps.draw(logits)
    before = steps.drawn(0, 1)
    for block in _blocks(steps, reader, noise, length - 1):
        yield from before.tokens()
        before = block
    yield from before.tokens()


def _blocks(
    steps: "_Steps", reader: InPlace, noise: Iterator[Tensor], length: int
) -> Iterator["_Block"]:
    """Have `length` more tokens written, in blocks that the device may not have finished yet."""
    rare = reader.room_again > 0
    read_on = Captured(steps.device, steps.read_on, WARM_UP_CALLS)
    first_calls = RARE_WARM_UP_CALLS if rare else WARM_UP_CALLS
    read_again = Captured(steps.device, steps.read_again, first_calls)
    room, size, used = reader.room, FIRST_BLOCK, 1
    while length:
        if used == steps.at_once:
            steps.send(next(noise))
            used = 0
        count = min(size, steps.at_once - used, length)
        for _ in range(count):
            if room:
                read_on()
                room -= 1
            else:
                read_again()
                room = reader.room_again
        yield steps.drawn(used, used + count)
        used, length, size = used + count, length - count, 2 * size


class _Steps:
    """The steps and what they work on, which stays in its place on the device.

    Its graphs are kept elsewhere: an object that held both would hold itself, and the
    memory of the graphs until Python's collector happens to run.
    """

    def __init__(
        self, reader: InPlace, choose: Choose, noise: Tensor, device: torch.device
    ) -> None:
        texts, self.at_once, _ = noise.shape
        self._reader, self._choose, self.device = reader, choose, device
        self._tokens = torch.zeros(texts, 1, dtype=torch.int64, device=device)  # drawn last
        self._drawn = self._tokens.new_zeros(self.at_once, texts)
        self._row = self._tokens.new_zeros(1)  # of noise and drawn tokens, the next
        self._noise = torch.empty_like(noise, device=device)
        self.send(noise)

    def send(self, noise: Tensor) -> None:
        """Send noise for as many tokens, (B, R, V), and begin with its first row."""
        on_gpu = self._noise.is_cuda
        self._noise.copy_(noise.pin_memory() if on_gpu else noise, non_blocking=True)
        self._row.zero_()

    def read_on(self) -> None:
        """A step where there is room."""
        self.draw(self._reader.read_on(self._tokens))

    def read_again(self) -> None:
        """A step where there is none."""
        self.draw(self._reader.read_again(self._tokens))

    def draw(self, logits: Tensor) -> None:
        """Draw the next tokens from logits (B, V)."""
        noise = self._noise.index_select(1, self._row).squeeze(1)
        self._tokens.copy_(self._choose(logits, noise))
        self._drawn.index_copy_(0, self._row, self._tokens.t())
        self._row.add_(1)

    def drawn(self, first: int, end: int) -> "_Block":
        """The tokens of these rows, once they have been drawn."""
        return _Block(self._drawn[first:end])


class _Block:
    """Tokens (n, B) on their way from the device."""

    def __init__(self, tokens: Tensor) -> None:
        self._tokens = tokens.to("cpu", non_blocking=True, copy=True)
        self._arrival: torch.cuda.Event | None = None
        if tokens.is_cuda:
            self._arrival = torch.cuda.current_stream(tokens.device).record_event()

    def tokens(self) -> list[list[int]]:
        """Wait for them."""
        if self._arrival is not None:
            self._arrival.synchronize()
        result: list[list[int]] = self._tokens.tolist()
        return result


class Captured:
    """A step on a GPU: the first calls as written, the others as one CUDA graph.

    Where PyTorch cannot record the step, all calls run as written, after a warning.
    """

    def __init__(self, device: torch.device, step: Step, as_written: int) -> None:
        self._device, self._step, self._as_written = device, step, as_written
        self._graph: torch.cuda.CUDAGraph | None = None
        self._refused = False

    def __call__(self) -> None:
        """Take the step, or have the device do so."""
        if self._graph is not None:
            self._graph.replay()
        elif self._refused:
            self._step()
        elif self._as_written:
            self._as_written -= 1
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
    """Say once what PyTorch refused."""
    log.warning("Writing cannot be recorded as a CUDA graph, so it is slower: %s", reason)
