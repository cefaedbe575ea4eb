"""The interface of tokenizers, and arrays of tokens."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# In quotes, as all that needs NumPy here: what lists runs and datasets reads no text.
Tokens: TypeAlias = "NDArray[np.integer[Any]]"

BATCH = 1 << 18  # characters encoded together: BPE's library needs about 100 bytes per token


class Tokenizer(Protocol):
    """Encodes text as tokens, integers from 0 to V - 1, and decodes them."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""

    @property
    def unit(self) -> str:
        """What a token is: "character" or "token", for losses per unit."""

    @property
    def vocab_size(self) -> int:
        """Number of different tokens (V)."""

    @property
    def end(self) -> int | None:
        """The token between two documents; `None` if that is a line feed."""

    def encode(self, text: str) -> Tokens:
        """Encode a text, (N,); raises `ValueError` if `unknown(text)` is not empty."""

    def encode_parts(self, parts: Iterable[str | None]) -> Iterator[Tokens]:
        """Encode a long text that comes in parts, with `None` between documents.

        The tokens do not depend on where the text is divided into parts.
        """

    def decode(self, tokens: Iterable[int]) -> str:
        """Decode tokens to text."""

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        """Decode tokens to UTF-8, which may start or end inside a character."""

    def count_characters(self) -> "NDArray[np.int64]":
        """Count the characters that start in each token, (V,).

        The sum over the tokens of a text is its number of characters, even if a character
        is split over several tokens.
        """

    def unknown(self, text: str) -> list[str]:
        """List the characters of `text` that cannot be encoded, each once, in order."""

    def to_json(self) -> str:
        """Serialize the tokenizer as JSON for `tokenizer_from_json`."""


def batch_pieces(pieces: Iterable[str | None]) -> Iterator[list[str | None]]:
    """Group the pieces of a long text into batches of about `BATCH` characters."""
    batch: list[str | None] = []
    length = 0
    for piece in pieces:
        batch.append(piece)
        length += len(piece or "\n")
        if length >= BATCH:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def token_type(vocab_size: int) -> "type[np.integer[Any]]":
    """Return the smallest integer type for tokens that PyTorch supports."""
    import numpy as np

    if vocab_size <= 2**8:
        return np.uint8
    return np.int16 if vocab_size <= 2**15 else np.int32
