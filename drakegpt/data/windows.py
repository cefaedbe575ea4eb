"""Windows of T tokens and the T tokens that follow them.

Training draws windows at random, and so do the estimates made while training;
the final evaluation walks through a split from its first token to its last.
Which windows an iteration draws depends on the seed and the iteration alone,
so a run that is taken up again needs no memory of what it drew before.
"""

from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Stream(IntEnum):
    """Independent sequences of random windows that share a seed."""

    TRAINING = 0
    ESTIMATE_TRAIN = 1
    ESTIMATE_VAL = 2
    EPOCHS = 3


# Iterations whose training windows are drawn together: drawing one by one costs as much as a
# small model's whole forward pass.
ITERATIONS_PER_DRAW = 64
# Tokens up to which the windows of all these iterations are cut out of the text at once.
MAX_GATHERED_TOKENS = 2**20


def random_windows(
    tokens: Tensor, context_length: int, count: int, seed: int, stream: Stream, number: int
) -> tuple[Tensor, Tensor]:
    """Draw `count` windows uniformly, with their targets.

    `tokens`: (N,) of any integer type, N > context_length. Returns inputs and
    targets, int64 (count, T) each, on the device of `tokens`. The starting
    points come from the counter-based generator Philox (Salmon et al. 2011):
    the seed and the stream are its key, `number` its counter.
    """
    starts = _draw_starts(len(tokens) - context_length, (count,), seed, stream, number)
    windows = _gather_windows(tokens, starts, context_length).long()
    return windows[:, :-1], windows[:, 1:]


class TrainingWindows:
    """The random windows of each training iteration, whichever is asked for."""

    def __init__(
        self,
        tokens: Tensor,
        context_length: int,
        count: int,
        seed: int,
        share: slice = slice(None),
    ) -> None:
        """`count` windows an iteration, of which a process takes its `share`."""
        self._tokens, self._context_length = tokens, context_length
        self._count, self._seed, self._share = count, seed, share
        self._block, self._starts = -1, tokens[:0]

    def at(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, (count, T) each, of the type and on the device of the tokens."""
        block, place = divmod(iteration, ITERATIONS_PER_DRAW)
        if block != self._block:
            last = len(self._tokens) - self._context_length
            shape = (ITERATIONS_PER_DRAW, self._count)
            starts = _draw_starts(last, shape, self._seed, Stream.TRAINING, block)[:, self._share]
            self._starts = starts.to(self._tokens.device)
            self._windows = self._tokens[:0]
            if starts.numel() * self._context_length <= MAX_GATHERED_TOKENS:
                self._windows = _gather_windows(self._tokens, self._starts, self._context_length)
            self._block = block
        if len(self._windows):
            windows = self._windows[place]
        else:
            windows = _gather_windows(self._tokens, self._starts[place], self._context_length)
        return windows[:, :-1], windows[:, 1:]


class EpochWindows:
    """The windows of each iteration where all are read once in an epoch, in an order of its own.

    They stand side by side, so that each token but the first is predicted once in
    an epoch; only what is left at the end, less than a window, is not. An iteration
    takes up where the one before stopped, across the end of an epoch too.
    """

    def __init__(
        self,
        tokens: Tensor,
        context_length: int,
        count: int,
        seed: int,
        share: slice = slice(None),
    ) -> None:
        """`count` windows an iteration, of which a process takes its `share`."""
        self._tokens, self._context_length = tokens, context_length
        self._count, self._seed, self._share = count, seed, share
        self._windows = count_windows(len(tokens), context_length)
        self._epoch, self._order = -1, torch.zeros(0, dtype=torch.int64)

    def at(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, (count, T) each, of the type and on the device of the tokens."""
        first = iteration * self._count
        numbers = range(first, first + self._count)[self._share]
        order, number = [], numbers.start
        while number < numbers.stop:
            epoch, place = divmod(number, self._windows)
            order.append(self._order_of(epoch)[place : place + numbers.stop - number])
            number += len(order[-1])
        starts = torch.cat(order) * self._context_length
        windows = _gather_windows(self._tokens, starts, self._context_length)
        return windows[:, :-1], windows[:, 1:]

    def _order_of(self, epoch: int) -> Tensor:
        """The windows of an epoch as they are read, (W,), from the seed and the epoch alone."""
        if epoch != self._epoch:
            chance = _create_generator(self._seed, Stream.EPOCHS, epoch)
            self._epoch = epoch
            order = torch.from_numpy(chance.permutation(self._windows))
            self._order = order.to(self._tokens.device)
        return self._order


def count_windows(tokens: int, context_length: int) -> int:
    """How many windows stand side by side in so many tokens, each with its targets."""
    return (tokens - 1) // context_length


def _draw_starts(
    last: int, shape: tuple[int, ...], seed: int, stream: Stream, number: int
) -> Tensor:
    return torch.from_numpy(_create_generator(seed, stream, number).integers(last, size=shape))


def _create_generator(seed: int, stream: Stream, number: int) -> np.random.Generator:
    """The generator of one draw of a stream: no draw depends on those before it."""
    philox = np.random.Philox(key=[seed, int(stream)], counter=[0, 0, 0, number])
    return np.random.Generator(philox)


def _gather_windows(tokens: Tensor, starts: Tensor, context_length: int) -> Tensor:
    """Windows of T + 1 tokens: starts (...) -> (..., T + 1)."""
    return tokens[
        starts.to(tokens.device)[..., None] + torch.arange(context_length + 1, device=tokens.device)
    ]


def sequential_windows(
    tokens: Tensor, context_length: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a split into windows side by side: every token but the first is a target once.

    `tokens`: (N,). Yields inputs and targets, int64 (at most `batch_size`, T);
    what remains at the end comes as one shorter window. A token near the start
    of its window is predicted from little context, as in training.
    """
    last = len(tokens) - 1
    whole = last // context_length * context_length
    inputs = tokens[:whole].view(-1, context_length)
    targets = tokens[1 : whole + 1].view(-1, context_length)
    for some_inputs, some_targets in zip(
        inputs.split(batch_size), targets.split(batch_size), strict=True
    ):
        yield some_inputs.long(), some_targets.long()
    if whole < last:
        yield tokens[None, whole:last].long(), tokens[None, whole + 1 :].long()


def count_known_tokens(places: NDArray[np.int64], context_length: int) -> NDArray[np.int64]:
    """How many tokens stand before each place in its window, as `sequential_windows` cuts them.

    `places`: (n,), counted in the text from 0, which is a target in no window and
    has nothing before it; the others are targets with 1 to T tokens before them.
    """
    return np.minimum((places - 1) % context_length + 1, places)
