"""Tokens, the numbers that stand for a text, and what turns one into the other."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.integer[Any]]

BATCH = 1 << 18  # characters encoded at once: BPE's library needs some 100 bytes for a token


class Tokenizer(Protocol):
    """What every tokenizer can do."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""

    @property
    def unit(self) -> str:
        """What a loss is per, in a word."""

    @property
    def vocab_size(self) -> int:
        """How many different tokens there are (V)."""

    @property
    def end(self) -> int | None:
        """The token between two documents; `None` if a line feed stands there."""

    def encode(self, text: str) -> Tokens:
        """Token numbers of a text whose characters are all known."""

    def encode_parts(self, parts: Iterable[str | None]) -> Iterator[Tokens]:
        """Token numbers of a long text that comes in parts; `None` stands between documents.

        Where the text is cut into parts makes no difference.
        """

    def decode(self, tokens: Iterable[int]) -> str:
        """The text that the tokens stand for."""

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        """The UTF-8 bytes that the tokens stand for, which may begin or end inside a character."""

    def characters_begun(self) -> NDArray[np.int64]:
        """How many characters each token begins, (V,).

        The sum over the tokens of a text is its number of characters, also
        where a character is split over several tokens.
        """

    def unknown(self, text: str) -> list[str]:
        """Characters of `text` that cannot be encoded, each once, in order."""

    def to_json(self) -> str:
        """All there is to know, as JSON for `tokenizer_from_json`."""


def batch_pieces(pieces: Iterable[str | None]) -> Iterator[list[str | None]]:
    """The pieces of a long text, as many together as make about `BATCH` characters."""
    held: list[str | None] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece or "\n")
        if length >= BATCH:
            yield held
            held, length = [], 0
    if held:
        yield held


def token_type(vocab_size: int) -> type[np.integer[Any]]:
    """The smallest integer type for token numbers that PyTorch can also index."""
    if vocab_size <= 2**8:
        return np.uint8
    return np.int16 if vocab_size <= 2**15 else np.int32
