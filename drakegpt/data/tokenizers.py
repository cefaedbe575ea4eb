"""Text to token numbers and back.

A tokenizer has a `vocab_size`, `encode` and `decode`, a list of the characters
that a text has and it does not know (`unknown`), and a JSON form that is part
of the identity of a dataset and of a run. Here: one token per character.
"""

import json
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drakegpt.paths import parse_json

Tokens = NDArray[np.integer[Any]]


class Tokenizer(Protocol):
    """What every tokenizer can do."""

    @property
    def vocab_size(self) -> int:
        """How many different tokens there are (V)."""

    def encode(self, text: str) -> Tokens:
        """Token numbers of a text whose characters are all known."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text that the tokens stand for."""

    def unknown(self, text: str) -> list[str]:
        """Characters of `text` that cannot be encoded, each once, in order."""

    def to_json(self) -> str:
        """All there is to know, as JSON for `tokenizer_from_json`."""


class CharTokenizer:
    """One token per character, numbered in the sorted order of the characters."""

    kind = "char"

    def __init__(self, characters: str) -> None:
        """`characters`: the vocabulary, each character once, sorted by code point."""
        self.characters = characters
        self._codes = _code_points(characters)

    @classmethod
    def of(cls, text: str) -> "CharTokenizer":
        """The tokenizer whose vocabulary is exactly the characters of `text`."""
        return cls("".join(map(chr, np.unique(_code_points(text)))))

    @property
    def vocab_size(self) -> int:
        """How many different characters there are (V)."""
        return len(self.characters)

    def encode(self, text: str) -> Tokens:
        """Token numbers; raises `ValueError` where `unknown(text)` is not empty."""
        codes = _code_points(text)
        places = np.searchsorted(self._codes, codes).clip(max=self.vocab_size - 1)
        if not np.array_equal(self._codes[places], codes):
            raise ValueError(f"characters outside the vocabulary: {self.unknown(text)}")
        return places.astype(token_type(self.vocab_size))

    def decode(self, tokens: Iterable[int]) -> str:
        """The characters that the tokens stand for."""
        return "".join(map(self.characters.__getitem__, tokens))

    def unknown(self, text: str) -> list[str]:
        """Characters of `text` outside the vocabulary, each once, in order."""
        known = set(self.characters)
        return list(dict.fromkeys(c for c in text if c not in known))

    def to_json(self) -> str:
        """The kind and the characters."""
        return json.dumps({"kind": self.kind, "characters": self.characters}, ensure_ascii=False)


def tokenizer_from_json(text: str) -> Tokenizer:
    """Read what `to_json` wrote; raises `ValueError` if it is anything else."""
    try:
        data = parse_json(text)
        characters = data["characters"]
        fits = (
            data["kind"] == CharTokenizer.kind
            and isinstance(characters, str)
            and list(characters) == sorted(set(characters))
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError("the tokenizer is not the JSON it should be") from error
    if not fits or not characters:
        raise ValueError("the tokenizer's characters are not a sorted set")
    return CharTokenizer(characters)


def token_type(vocab_size: int) -> type[np.integer[Any]]:
    """The smallest integer type for token numbers that PyTorch can also index."""
    if vocab_size <= 2**8:
        return np.uint8
    return np.int16 if vocab_size <= 2**15 else np.int32


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
