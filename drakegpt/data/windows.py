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
from torch import Tensor


class Stream(IntEnum):
    """Independent sequences of random windows that share a seed."""

    TRAINING = 0
    ESTIMATE_TRAIN = 1
    ESTIMATE_VAL = 2


def random_windows(
    tokens: Tensor, context_length: int, count: int, seed: int, stream: Stream, iteration: int
) -> tuple[Tensor, Tensor]:
    """Draw `count` windows uniformly, with their targets.

    `tokens`: (N,) of any integer type, N > context_length. Returns inputs and
    targets, int64 (count, T) each, on the device of `tokens`. The starting
    points come from the counter-based generator Philox (Salmon et al. 2011):
    the seed and the stream are its key, the iteration its counter.
    """
    generator = np.random.Generator(
        np.random.Philox(key=[seed, int(stream)], counter=[0, 0, 0, iteration])
    )
    starts = torch.from_numpy(generator.integers(len(tokens) - context_length, size=count))
    windows = starts[:, None] + torch.arange(context_length + 1)
    batch = tokens[windows.to(tokens.device)].long()
    return batch[:, :-1], batch[:, 1:]


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
