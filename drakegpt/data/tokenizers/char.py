"""The character tokenizer, the simplest: one token per character."""

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from drakegpt.data.tokenizers.base import Tokens, batch_pieces, token_type

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CharTokenizer:
    """Encodes each character as its index in the sorted vocabulary."""

    kind = "char"
    unit = "character"
    end = None

    def __init__(self, characters: str) -> None:
        """`characters`: the vocabulary, each character once, sorted by code point."""
        self.characters = characters

    @cached_property
    def _tokens(self) -> "NDArray[np.int32]":
        """The token of each code point up to the last known one; -1 for unknown ones and beyond."""
        import numpy as np

        codes = _code_points(self.characters)
        tokens = np.full(int(codes[-1]) + 2 if len(codes) else 1, -1, np.int32)
        tokens[codes] = np.arange(len(codes))
        return tokens

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """Create the tokenizer whose vocabulary is exactly the characters of `text`."""
        seen = CharacterSet()
        seen.add(text)
        return cls(seen.characters())

    @property
    def vocab_size(self) -> int:
        """Number of different characters (V)."""
        return len(self.characters)

    def encode(self, text: str) -> Tokens:
        """Encode a text, (N,); raises `ValueError` if `unknown(text)` is not empty."""
        tokens = self._tokens[_code_points(text).clip(max=len(self._tokens) - 1)]
        if (tokens < 0).any():
            raise ValueError(f"characters outside the vocabulary: {self.unknown(text)}")
        return tokens.astype(token_type(self.vocab_size))

    def encode_parts(self, parts: Iterable[str | None]) -> Iterator[Tokens]:
        """Encode a long text with a line feed between documents."""
        for batch in batch_pieces(parts):
            yield self.encode("".join("\n" if part is None else part for part in batch))

    def decode(self, tokens: Iterable[int]) -> str:
        """Decode tokens to text."""
        return "".join(map(self.characters.__getitem__, tokens))

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        """Decode tokens to UTF-8."""
        return self.decode(tokens).encode("utf-8", "surrogatepass")

    def count_characters(self) -> "NDArray[np.int64]":
        """Return 1 for every token, (V,)."""
        import numpy as np

        return np.ones(self.vocab_size, np.int64)

    def unknown(self, text: str) -> list[str]:
        """List the characters of `text` outside the vocabulary, each once, in order."""
        known = set(self.characters)
        return list(dict.fromkeys(c for c in text if c not in known))

    def to_json(self) -> str:
        """Serialize the kind and the characters."""
        return json.dumps({"kind": self.kind, "characters": self.characters}, ensure_ascii=False)


class CharacterSet:
    """Collects the characters of a text that comes in pieces."""

    def __init__(self) -> None:
        import numpy as np

        self._seen = np.zeros(0x110000, bool)

    def add(self, text: str) -> None:
        """Add the characters of `text`."""
        self._seen[_code_points(text)] = True

    def characters(self) -> str:
        """Return all characters added so far, each once, sorted by code point."""
        import numpy as np

        return "".join(map(chr, np.flatnonzero(self._seen)))


def _code_points(text: str) -> "NDArray[np.uint32]":
    import numpy as np

    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
