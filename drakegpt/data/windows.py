"""Windows of T tokens and their targets, the tokens that follow each.

Training uses random windows. Loss estimates during training use windows spread evenly over
a split, or random ones as the original; the final evaluation goes through a whole split in
order. The windows of an iteration depend only on the seed and the iteration, so a resumed run
continues with the same windows without saved state.
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


# Iterations whose training windows are drawn together: drawing them one by one takes as long as a
# small model's forward pass.
ITERATIONS_PER_DRAW = 64
# Tokens up to which the windows of all these iterations are gathered together.
MAX_GATHERED_TOKENS = 2**20


def random_windows(
    tokens: Tensor, context_length: int, count: int, seed: int, stream: Stream, number: int
) -> tuple[Tensor, Tensor]:
    """Sample `count` windows uniformly, with their targets.

    `tokens`: (N,) of any integer type, N > context_length. Returns inputs and targets,
    int64 (count, T) each, on the device of `tokens`. The starts come from the
    counter-based generator Philox (Salmon et al. 2011): the seed and the stream are its
    key, `number` is its counter.
    """
    starts = _draw_starts(len(tokens) - context_length, (count,), seed, stream, number)
    windows = _gather_windows(tokens, starts, context_length).long()
    return windows[:, :-1], windows[:, 1:]


def spread_windows(tokens: Tensor, context_length: int, count: int) -> tuple[Tensor, Tensor]:
    """Return `count` windows at equal distances over all tokens, with their targets.

    `tokens` and the result as in `random_windows`. They hardly overlap, and are the same at
    each call: so losses of one model at several times differ by the model alone.
    """
    last = len(tokens) - context_length - 1
    starts = torch.arange(count) * last // max(1, count - 1)
    windows = _gather_windows(tokens, starts, context_length).long()
    return windows[:, :-1], windows[:, 1:]


class TrainingWindows:
    """Random training windows, sampled with replacement, for any iteration."""

    def __init__(
        self,
        tokens: Tensor,
        context_length: int,
        count: int,
        seed: int,
        share: slice = slice(None),
    ) -> None:
        """`count`: windows per iteration; `share`: those of them that this process takes."""
        self._tokens, self._context_length = tokens, context_length
        self._count, self._seed, self._share = count, seed, share
        self._block, self._starts = -1, tokens[:0]

    def at(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, (count, T) each, with the tokens' dtype and device."""
        block, index = divmod(iteration, ITERATIONS_PER_DRAW)
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
            windows = self._windows[index]
        else:
            windows = _gather_windows(self._tokens, self._starts[index], self._context_length)
        return windows[:, :-1], windows[:, 1:]


class EpochWindows:
    """Training windows sampled without replacement, reshuffled every epoch.

    The windows are adjacent: in an epoch each token but the first is a target once, except
    for a remainder at the end shorter than a window. Iterations continue across the end of
    an epoch.
    """

    def __init__(
        self,
        tokens: Tensor,
        context_length: int,
        count: int,
        seed: int,
        share: slice = slice(None),
    ) -> None:
        """`count`: windows per iteration; `share`: those of them that this process takes."""
        self._tokens, self._context_length = tokens, context_length
        self._count, self._seed, self._share = count, seed, share
        self._windows = count_windows(len(tokens), context_length)
        self._epoch, self._order = -1, torch.zeros(0, dtype=torch.int64)

    def at(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, (count, T) each, with the tokens' dtype and device."""
        first = iteration * self._count
        numbers = range(first, first + self._count)[self._share]
        windows_of_epochs, number = [], numbers.start
        while number < numbers.stop:
            epoch, index = divmod(number, self._windows)
            order = self._shuffle(epoch)
            windows_of_epochs.append(order[index : index + numbers.stop - number])
            number += len(windows_of_epochs[-1])
        starts = torch.cat(windows_of_epochs) * self._context_length
        windows = _gather_windows(self._tokens, starts, self._context_length)
        return windows[:, :-1], windows[:, 1:]

    def _shuffle(self, epoch: int) -> Tensor:
        """Return the order of an epoch's windows, (W,), which depends on seed and epoch only."""
        if epoch != self._epoch:
            generator = _create_generator(self._seed, Stream.EPOCHS, epoch)
            self._epoch = epoch
            order = torch.from_numpy(generator.permutation(self._windows))
            self._order = order.to(self._tokens.device)
        return self._order


def count_windows(tokens: int, context_length: int) -> int:
    """Count the adjacent windows, with targets, in that many tokens."""
    return (tokens - 1) // context_length


def _draw_starts(
    last: int, shape: tuple[int, ...], seed: int, stream: Stream, number: int
) -> Tensor:
    return torch.from_numpy(_create_generator(seed, stream, number).integers(last, size=shape))


def _create_generator(seed: int, stream: Stream, number: int) -> np.random.Generator:
    """Create the generator of one draw of a stream; draws are independent of each other."""
    philox = np.random.Philox(key=[seed, int(stream)], counter=[0, 0, 0, number])
    return np.random.Generator(philox)


def _gather_windows(tokens: Tensor, starts: Tensor, context_length: int) -> Tensor:
    """Gather windows of T + 1 tokens: starts (...) -> (..., T + 1)."""
    return tokens[
        starts.to(tokens.device)[..., None] + torch.arange(context_length + 1, device=tokens.device)
    ]


def sequential_windows(
    tokens: Tensor, context_length: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Divide a split into adjacent windows: every token but the first is a target once.

    `tokens`: (N,). Yields inputs and targets, int64 (at most `batch_size`, T); the
    remainder comes as one shorter window. A token near the start of its window is
    predicted from little context, as in training.
    """
    last = len(tokens) - 1
    whole = last // context_length * context_length
    inputs = tokens[:whole].view(-1, context_length)
    targets = tokens[1 : whole + 1].view(-1, context_length)
    for batch in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
        yield batch[0].long(), batch[1].long()
    if whole < last:
        yield tokens[None, whole:last].long(), tokens[None, whole + 1 :].long()


def count_known_tokens(positions: NDArray[np.int64], context_length: int) -> NDArray[np.int64]:
    """Count the tokens before each position in its window of `sequential_windows`, (n,).

    `positions`: (n,), in the text. Position 0 is never a target and has no token before
    it; the others are targets with 1 to T tokens before them.
    """
    return np.minimum((positions - 1) % context_length + 1, positions)
