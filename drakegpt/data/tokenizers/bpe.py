"""Byte-level BPE: tokens are frequent sequences of UTF-8 bytes, learned from a text.

Hugging Face's `tokenizers` trains and encodes. This module configures it, validates its
JSON form, and divides a long text so that the tokens do not depend on where.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from drakegpt.data.tokenizers.base import Tokens, batch_pieces, token_type
from drakegpt.errors import UsageError
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_VOCAB_SIZE = 20_000
# RoBERTa's special tokens, in its order: tokens 0 to 4.
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
END = SPECIALS.index("</s>")
SMALLEST_VOCAB_SIZE = len(SPECIALS) + 256
LARGEST_VOCAB_SIZE = 2**20  # the library allocates memory for the size it is asked for
# A pair of tokens seen once says nothing about the language.
MIN_FREQUENCY = 2
PIECE = 1 << 14  # most characters of a piece that is encoded alone


class BPETokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016, in the variant of GPT-2).

    The vocabulary starts with the 256 bytes; training repeatedly merges the most frequent
    pair of adjacent tokens within a word into a new token. So every text can be encoded.
    Hugging Face's library is imported when a tokenizer is created.

    No text is encoded to the five `SPECIALS`: "</s>" in a text is ordinary characters.
    `END` separates documents.
    """

    kind = "bpe"
    unit = "token"
    end = END

    def __init__(self, data: dict[str, Any]) -> None:
        """`data`: the library's JSON form; raises `ValueError` unless `train` made it."""
        _check(data)
        self._data = data
        vocab = data["model"]["vocab"]
        self._library = _create_library_tokenizer(
            vocab, [(a, b) for a, b in data["model"]["merges"]]
        )
        self._bytes = [b""] * len(vocab)
        for token, number in vocab.items():
            if number >= len(SPECIALS):
                self._bytes[number] = bytes(map(_map_characters_to_bytes().__getitem__, token))
        self._bytes[END] = b"\n"

    @classmethod
    def train(cls, pieces: Iterable[str | None], vocab_size: int) -> "BPETokenizer":
        """Train a tokenizer of up to `vocab_size` tokens on a text.

        `pieces`: the text, divided anywhere, with `None` between documents. A short text
        gives fewer tokens. The result is deterministic and the same on every machine.
        Raises `UsageError` if `vocab_size` is out of range.
        """
        check_vocab_size(vocab_size)
        from tokenizers.pre_tokenizers import ByteLevel
        from tokenizers.trainers import BpeTrainer

        trainer = BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=MIN_FREQUENCY,
            special_tokens=list(SPECIALS),
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        )
        library = _create_library_tokenizer({}, [])
        with _use_all_cores():
            library.train_from_iterator(
                (p for p in split_into_pieces(pieces) if p is not None), trainer
            )
        return cls(json.loads(library.to_str()))

    @property
    def vocab_size(self) -> int:
        """Number of different tokens (V), `SPECIALS` and single bytes included."""
        return len(self._bytes)

    def encode(self, text: str) -> Tokens:
        """Encode any text, (N,); raises `ValueError` for a lone surrogate."""
        import numpy as np

        none = np.zeros(0, token_type(self.vocab_size))
        return np.concatenate([none, *self.encode_parts([text])])

    def encode_parts(self, parts: Iterable[str | None]) -> Iterator[Tokens]:
        """Encode a long text with `END` between documents."""
        for pieces in batch_pieces(split_into_pieces(parts)):
            yield self._encode(pieces)

    def _encode(self, pieces: list[str | None]) -> Tokens:
        import numpy as np

        texts = [piece for piece in pieces if piece is not None]
        if unknown := self.unknown("".join(texts)):
            raise ValueError(f"lone surrogates: {unknown}")
        with _use_all_cores(len(texts) > 1):
            encodings = iter(self._library.encode_batch_fast(texts, add_special_tokens=False))
        kind = token_type(self.vocab_size)
        return np.concatenate(
            [np.array([END] if p is None else next(encodings).ids, kind) for p in pieces]
        )

    def decode(self, tokens: Iterable[int]) -> str:
        """Decode tokens to text; incomplete characters become U+FFFD."""
        return self.to_bytes(tokens).decode("utf-8", "replace")

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        """Decode tokens to UTF-8: `END` to a line feed, other special tokens to nothing."""
        return b"".join(map(self._bytes.__getitem__, tokens))

    def count_characters(self) -> "NDArray[np.int64]":
        """Count the bytes of each token that are not UTF-8 continuation bytes, (V,)."""
        import numpy as np

        return np.array([sum(b & 0xC0 != 0x80 for b in token) for token in self._bytes], np.int64)

    def list_merges(self) -> list[tuple[int, int, int]]:
        """List the pairs of tokens that become one: left, right, merged; in the order learned."""
        model = self._data["model"]
        number = model["vocab"].__getitem__
        return [(number(a), number(b), number(a + b)) for a, b in model["merges"]]

    def unknown(self, text: str) -> list[str]:
        """List lone surrogates; every other character can be encoded."""
        try:
            text.encode()
        except UnicodeEncodeError:
            return list(dict.fromkeys(c for c in text if "\ud800" <= c <= "\udfff"))
        return []

    def to_json(self) -> str:
        """Serialize the kind and the library's JSON form."""
        data = {"kind": self.kind, "tokenizer": self._data}
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def check_vocab_size(vocab_size: int) -> None:
    """Raise `UsageError` if the size of a BPE vocabulary is out of range."""
    if not SMALLEST_VOCAB_SIZE <= vocab_size <= LARGEST_VOCAB_SIZE:
        raise UsageError(
            f"A vocabulary of {pluralize(vocab_size, 'token')} is impossible: it has at least the "
            f"256 bytes and {len(SPECIALS)} special tokens, and at most {LARGEST_VOCAB_SIZE:,} "
            "tokens.",
            f"Take --vocab-size {SMALLEST_VOCAB_SIZE} or more; {DEFAULT_VOCAB_SIZE} is common.",
        )


def split_into_pieces(parts: Iterable[str | None], size: int = PIECE) -> Iterator[str | None]:
    """Divide a text into pieces of at most `size` characters that can be encoded separately.

    A piece ends right before a line feed that follows something other than white space. A
    word always ends there, so the tokens are those of the whole text. If there is no such
    place within `size` characters, the piece ends after `size`, even inside a word. The
    pieces do not depend on how `parts` were divided; `None` separates documents.
    """
    rest = ""
    for part in parts:
        if part is None:
            if rest:
                yield rest
            yield None
            rest = ""
            continue
        rest += part
        start = 0
        while len(rest) - start > size:
            end = _find_boundary(rest, start, start + size)
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


def _find_boundary(text: str, start: int, stop: int) -> int:
    """Find the last line feed in `text[start + 1 : stop]` that follows a word, else `stop`."""
    place = text.rfind("\n", start + 1, stop)
    while place > 0 and text[place - 1].isspace():
        place = text.rfind("\n", start + 1, place)
    return place if place > 0 else stop


def _create_library_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """Create the library's byte-level BPE tokenizer with this vocabulary and these merges."""
    _choose_parallelism()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    library = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    if vocab:
        library.add_special_tokens(list(SPECIALS))
        library.encode_special_tokens = True  # in a text they are ordinary characters
    return library


def _check(data: Any) -> None:
    """Raise `ValueError` unless `data` is the library's JSON form of a tokenizer made here."""
    if not _contains(data, _EXPECTED) or not isinstance(data.get("added_tokens"), list):
        raise ValueError("the tokenizer is not byte-level BPE as drakegpt makes it")
    added = [{"id": i, "content": token, "special": True} for i, token in enumerate(SPECIALS)]
    if len(data["added_tokens"]) != len(added) or not all(
        map(_contains, data["added_tokens"], added)
    ):
        raise ValueError("the tokenizer's special tokens are not the expected five")
    vocab, merges = data["model"].get("vocab"), data["model"].get("merges")
    if (
        not isinstance(vocab, dict)
        or not all(type(number) is int for number in vocab.values())
        or sorted(vocab.values()) != list(range(len(vocab)))
        or any(vocab.get(token) != number for number, token in enumerate(SPECIALS))
        or not vocab.keys() >= _map_characters_to_bytes().keys()
        or not all(
            _map_characters_to_bytes().keys() >= set(t)
            for t, i in vocab.items()
            if i >= len(SPECIALS)
        )
        or "" in vocab
    ):
        raise ValueError("the tokenizer's vocabulary is not bytes and sequences of bytes")
    if not isinstance(merges, list) or not all(_is_merge(pair, vocab) for pair in merges):
        raise ValueError("the tokenizer's merges are not pairs of its tokens")


_EXPECTED: dict[str, Any] = {
    "truncation": None,
    "padding": None,
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    "post_processor": None,
    "decoder": {"type": "ByteLevel"},
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "byte_fallback": False,
        "ignore_merges": False,
    },
}


def _contains(data: Any, facts: dict[str, Any]) -> bool:
    """Tell whether `data` is an object with these values, and maybe others."""
    return isinstance(data, dict) and all(
        key in data
        and (_contains(data[key], fact) if isinstance(fact, dict) else data[key] == fact)
        for key, fact in facts.items()
    )


def _is_merge(pair: Any, vocab: dict[str, int]) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    first, second = pair
    return (
        isinstance(first, str)
        and isinstance(second, str)
        and vocab.get(first, 0) >= len(SPECIALS)
        and vocab.get(second, 0) >= len(SPECIALS)
        and vocab.get(first + second, 0) >= len(SPECIALS)
    )


@cache
def _map_characters_to_bytes() -> dict[str, int]:
    """Map GPT-2's 256 visible characters to the bytes that they represent in a vocabulary.

    Visible characters of Latin-1 represent their own byte, U+0100 and up the other bytes.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(others)}


# The library's threads do not survive a fork, and it warns at a fork unless this variable is set.
# It is "false", except while the library trains or encodes.
_PARALLELISM = "TOKENIZERS_PARALLELISM"


@cache
def _choose_parallelism() -> int | None:
    """Set the library's variable and return this process's id; `None` if the user has set it."""
    if _PARALLELISM in os.environ:
        return None
    os.environ[_PARALLELISM] = "false"
    return os.getpid()


@contextmanager
def _use_all_cores(worthwhile: bool = True) -> Iterator[None]:
    """Let the library use all cores within the block.

    It does not if the user has set its variable, nor in a forked process, which would
    wait forever for its parent's threads.
    """
    if not worthwhile or _choose_parallelism() != os.getpid():
        yield
        return
    os.environ[_PARALLELISM] = "true"
    try:
        yield
    finally:
        os.environ[_PARALLELISM] = "false"
