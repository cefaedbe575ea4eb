"""One token for each character of a text: the ladder's own way, and the simplest."""

import json
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.tokenizers.base import Tokens, batch_pieces, token_type


class CharTokenizer:
    """One token per character, numbered in the sorted order of the characters."""

    kind = "char"
    unit = "character"
    end = None

    def __init__(self, characters: str) -> None:
        """`characters`: the vocabulary, each character once, sorted by code point."""
        self.characters = characters
        codes = _code_points(characters)
        # The number of every code point up to the last known; -1 for the unknown and all beyond.
        self._numbers = np.full(int(codes[-1]) + 2 if len(codes) else 1, -1, np.int32)
        self._numbers[codes] = np.arange(len(codes))

    @classmethod
    def of(cls, text: str) -> "CharTokenizer":
        """The tokenizer whose vocabulary is exactly the characters of `text`."""
        seen = CharacterSet()
        seen.add(text)
        return cls(seen.characters())

    @property
    def vocab_size(self) -> int:
        """How many different characters there are (V)."""
        return len(self.characters)

    def encode(self, text: str) -> Tokens:
        """Token numbers; raises `ValueError` where `unknown(text)` is not empty."""
        numbers = self._numbers[_code_points(text).clip(max=len(self._numbers) - 1)]
        if (numbers < 0).any():
            raise ValueError(f"characters outside the vocabulary: {self.unknown(text)}")
        return numbers.astype(token_type(self.vocab_size))

    def encode_parts(self, parts: Iterable[str | None]) -> Iterator[Tokens]:
        """Token numbers of a long text; a line feed stands between documents."""
        for some in batch_pieces(parts):
            yield self.encode("".join("\n" if part is None else part for part in some))

    def decode(self, tokens: Iterable[int]) -> str:
        """The characters that the tokens stand for."""
        return "".join(map(self.characters.__getitem__, tokens))

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        """The characters that the tokens stand for, as UTF-8."""
        return self.decode(tokens).encode("utf-8", "surrogatepass")

    def characters_begun(self) -> NDArray[np.int64]:
        """One for every token, (V,)."""
        return np.ones(self.vocab_size, np.int64)

    def unknown(self, text: str) -> list[str]:
        """Characters of `text` outside the vocabulary, each once, in order."""
        known = set(self.characters)
        return list(dict.fromkeys(c for c in text if c not in known))

    def to_json(self) -> str:
        """The kind and the characters."""
        return json.dumps({"kind": self.kind, "characters": self.characters}, ensure_ascii=False)


class CharacterSet:
    """The characters of a text that is seen bit by bit."""

    def __init__(self) -> None:
        self._seen = np.zeros(0x110000, bool)

    def add(self, text: str) -> None:
        """Note the characters of `text`."""
        self._seen[_code_points(text)] = True

    def characters(self) -> str:
        """All seen so far, each once, sorted by code point."""
        return "".join(map(chr, np.flatnonzero(self._seen)))


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
