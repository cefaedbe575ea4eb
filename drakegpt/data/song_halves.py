"""Random halves of the songs of a training text, and the tokens of each song.

Half number n and its complement, number -n, together hold each song once. They depend on the
number of songs and on n alone.

Not here: which songs are for training at all (`song_split`).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drakegpt.data.dataset import Dataset
from drakegpt.data.songs import Song


def list_training_songs(data: Dataset) -> tuple[list[Song], list[Tensor]]:
    """List the songs of the training split, and the tokens of each, with what ends it."""
    tokens = data.split("train")
    # The number of characters up to each token, this one included.
    ends = np.cumsum(data.tokenizer.count_characters()[tokens.numpy()])
    songs = [song for song in data.songs if song.start < (ends[-1] if len(ends) else 0)]
    starts = [int(np.searchsorted(ends, song.start, "right")) for song in songs]
    return songs, [
        tokens[start:end] for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True)
    ]


def choose_half(songs: int, number: int) -> NDArray[np.bool_]:
    """Return which songs half `number` holds, (songs,); one more where they are odd."""
    chosen = np.zeros(songs, bool)
    chosen[np.random.default_rng(abs(number)).permutation(songs)[: (songs + 1) // 2]] = True
    return chosen if number > 0 else ~chosen


def select_half(data: Dataset, number: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of the songs in a half of the training split, and of all its others."""
    _, songs = list_training_songs(data)
    chosen = choose_half(len(songs), number)
    held, others = (
        torch.cat([song for song, inside in zip(songs, chosen, strict=True) if inside == side])
        for side in (True, False)
    )
    return held, others
