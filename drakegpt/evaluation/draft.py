"""Reads a draft line by line: how a model is surprised, and which line of the text is nearest.

The nearest line is the most similar one, by the characters that both have in the same order
(`difflib`), of those that share the rarest runs of a few characters with it.

Not here: whether the draft copies (`originality`).
"""

import difflib
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from drakegpt.data.suffix_array import SuffixArray
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.evaluation.surprisal import compute_token_surprisals
from drakegpt.models.layers import LanguageModel

PIECE = 5  # characters of a run that two lines may share
COMMON = 1000  # places from which on a run says nothing
COMPARED = 30  # lines that are compared in full
LINE_FEED = 10


@dataclass(frozen=True)
class DraftLine:
    """A line of a draft."""

    text: str
    bits_per_character: float | None  # under a model, with the line feed; `None` without one
    nearest: str  # the line of the training text that is most like it; empty if none is alike
    similarity: float  # of both, from 0 to 1


class LineIndex:
    """Finds the line of a text that is most like another."""

    def __init__(self, source: SuffixArray) -> None:
        self._source = source
        feeds = np.flatnonzero(source.padded[: source.length] == LINE_FEED)
        self._starts: NDArray[np.int64] = np.concatenate([[0], feeds + 1])

    def find_nearest(self, line: str) -> tuple[str, float]:
        """Return the most similar line of the text, and how similar it is, from 0 to 1."""
        votes: dict[int, float] = defaultdict(float)
        pieces = (line[start : start + PIECE] for start in range(len(line) - PIECE + 1))
        for piece in dict.fromkeys(pieces):
            low, high = self._source.find(piece.encode())
            if 0 < high - low <= COMMON:
                places = self._source.order[low:high]
                for number in np.unique(np.searchsorted(self._starts, places, "right") - 1):
                    votes[int(number)] += 1 / (high - low)
        likely = sorted(votes, key=lambda number: (-votes[number], number))[:COMPARED]
        texts = list(dict.fromkeys(self._read(number) for number in likely))
        rated = [(_compare(text, line), text) for text in texts]
        similarity, text = max(rated, key=lambda each: each[0], default=(0.0, ""))
        return text, similarity

    def _read(self, number: int) -> str:
        start = int(self._starts[number])
        after = self._starts[number + 1] - 1 if number + 1 < len(self._starts) else None
        end = self._source.length if after is None else int(after)
        return self._source.padded[start:end].tobytes().decode()


def _compare(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def read_draft(
    text: str,
    source: SuffixArray,
    model: LanguageModel | None = None,
    tokenizer: Tokenizer | None = None,
) -> list[DraftLine]:
    """Read the lines of a draft that are not blank; with a model, how surprising each is.

    The tokenizer must know all characters of the draft (`generation.prompt.fit_prompt`).
    """
    index, lines = LineIndex(source), text.split("\n")
    bits = _measure_lines(lines, model, tokenizer) if model and tokenizer else [None] * len(lines)
    return [
        DraftLine(line, surprise, *index.find_nearest(line))
        for line, surprise in zip(lines, bits, strict=True)
        if line.strip()
    ]


def _measure_lines(
    lines: list[str], model: LanguageModel, tokenizer: Tokenizer
) -> list[float | None]:
    """Return the bits per character of each line, with the line feed that ends it."""
    encoded = [[int(token) for token in tokenizer.encode(line + "\n")] for line in lines]
    begun = [int(tokenizer.encode("\n")[-1])]
    tokens = torch.tensor([*begun, *chain.from_iterable(encoded)])
    bits = compute_token_surprisals(model, tokens, len(tokens) - 1)
    parts = bits.split([len(each) for each in encoded])
    return [float(part.sum()) / (len(line) + 1) for part, line in zip(parts, lines, strict=True)]
