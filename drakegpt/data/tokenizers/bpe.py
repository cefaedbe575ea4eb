"""Byte-level BPE, whose tokens are frequent runs of UTF-8 bytes; learnt from a text.

Hugging Face's `tokenizers` does the work. Here is what it is told, what is
accepted of it from a file, and how a long text is cut so that the tokens are
the same wherever it was cut.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.tokenizers.base import Tokens, batch_pieces, token_type
from drakegpt.errors import UsageError
from drakegpt.wording import pluralize

DEFAULT_VOCAB_SIZE = 20_000
# RoBERTa's, in its order: their numbers are their places.
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
END = SPECIALS.index("</s>")
SMALLEST_VOCAB_SIZE = len(SPECIALS) + 256
LARGEST_VOCAB_SIZE = 2**20  # the library reserves memory for what it is asked for
# A pair of tokens seen once says nothing about the language.
MIN_FREQUENCY = 2
PIECE = 1 << 14  # characters that are looked at together, at most


class BPETokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016; GPT-2's way of doing it).

    The text's UTF-8 bytes are the first 256 tokens; training joins the most
    frequent pair of neighbours within a word to a new token, again and again.
    So every text can be encoded, and no word is out of vocabulary. The work is
    done by Hugging Face's library, loaded when a tokenizer is made.

    The five `SPECIALS` are tokens that no text is encoded to: a text that
    contains "</s>" is a text like any other. Between documents stands `END`.
    """

    kind = "bpe"
    unit = "token"
    end = END

    def __init__(self, data: dict[str, Any]) -> None:
        """`data`: the library's JSON form; `ValueError` unless it is byte-level BPE as here."""
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
        """Learn up to `vocab_size` tokens from a text.

        `pieces`: the text, cut anywhere, `None` between documents. A text too
        short for so many tokens gets those it supports. The same text gives
        the same tokenizer, on every machine. Raises `UsageError` for a
        `vocab_size` that cannot be.
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
        """How many different tokens there are (V), `SPECIALS` and single bytes included."""
        return len(self._bytes)

    def encode(self, text: str) -> Tokens:
        """Token numbers of any text; raises `ValueError` for half a surrogate pair."""
        none = np.zeros(0, token_type(self.vocab_size))
        return np.concatenate([none, *self.encode_parts([text])])

    def encode_parts(self, parts: Iterable[str | None]) -> Iterator[Tokens]:
        """Token numbers of a long text; `END` stands between documents."""
        for pieces in batch_pieces(split_into_pieces(parts)):
            yield self._encode(pieces)

    def _encode(self, pieces: list[str | None]) -> Tokens:
        texts = [piece for piece in pieces if piece is not None]
        if unknown := self.unknown("".join(texts)):
            raise ValueError(f"characters that are no text: {unknown}")
        with _use_all_cores(len(texts) > 1):
            encodings = iter(self._library.encode_batch_fast(texts, add_special_tokens=False))
        kind = token_type(self.vocab_size)
        return np.concatenate(
            [np.array([END] if p is None else next(encodings).ids, kind) for p in pieces]
        )

    def decode(self, tokens: Iterable[int]) -> str:
        """The text; what is not whole characters in UTF-8 becomes U+FFFD."""
        return self.to_bytes(tokens).decode("utf-8", "replace")

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        """The UTF-8 bytes that the tokens stand for: a line feed for `END`, none for specials."""
        return b"".join(map(self._bytes.__getitem__, tokens))

    def characters_begun(self) -> NDArray[np.int64]:
        """How many bytes of each token are not UTF-8 continuation bytes, (V,)."""
        return np.array([sum(b & 0xC0 != 0x80 for b in token) for token in self._bytes], np.int64)

    def unknown(self, text: str) -> list[str]:
        """Halves of surrogate pairs, which are no text; everything else can be encoded."""
        try:
            text.encode()
        except UnicodeEncodeError:
            return list(dict.fromkeys(c for c in text if "\ud800" <= c <= "\udfff"))
        return []

    def to_json(self) -> str:
        """The kind and the library's own JSON."""
        data = {"kind": self.kind, "tokenizer": self._data}
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def check_vocab_size(vocab_size: int) -> None:
    """Raise `UsageError` if no BPE tokenizer can have that vocabulary."""
    if not SMALLEST_VOCAB_SIZE <= vocab_size <= LARGEST_VOCAB_SIZE:
        raise UsageError(
            f"A vocabulary of {pluralize(vocab_size, 'token')} cannot be: it has at least the 256 "
            "bytes and "
            f"{len(SPECIALS)} special tokens, and at most {LARGEST_VOCAB_SIZE:,} tokens.",
            f"Take --vocab-size {SMALLEST_VOCAB_SIZE} or more; {DEFAULT_VOCAB_SIZE} is common.",
        )


def split_into_pieces(parts: Iterable[str | None], size: int = PIECE) -> Iterator[str | None]:
    """Cut a text anew into pieces of at most `size` characters that can be encoded one by one.

    A piece ends right before a line feed that follows something other than
    white space: there BPE's words certainly end, so the tokens are those of
    the uncut text. Where no such place comes in `size` characters, the piece
    ends there, whatever that splits. Where `parts` were cut does not matter;
    `None`, between documents, stays where it is.
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
    """The last line feed in `text[start + 1 : stop]` that follows a word, or else `stop`."""
    place = text.rfind("\n", start + 1, stop)
    while place > 0 and text[place - 1].isspace():
        place = text.rfind("\n", start + 1, place)
    return place if place > 0 else stop


def _create_library_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """The library's tokenizer with these tokens: bytes of words, joined by `merges` in order."""
    _choose_parallelism()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    library = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    if vocab:
        library.add_special_tokens(list(SPECIALS))
        library.encode_special_tokens = True  # as plain text, where a text contains them
    return library


def _check(data: Any) -> None:
    """Raise `ValueError` unless `data` is the library's JSON of a tokenizer as made here."""
    if not _contains(data, _EXPECTED) or not isinstance(data.get("added_tokens"), list):
        raise ValueError("the tokenizer is not byte-level BPE as drakegpt makes it")
    added = [{"id": i, "content": token, "special": True} for i, token in enumerate(SPECIALS)]
    if len(data["added_tokens"]) != len(added) or not all(
        map(_contains, data["added_tokens"], added)
    ):
        raise ValueError("the tokenizer's special tokens are not the usual five")
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
        raise ValueError("the tokenizer's vocabulary is not bytes and what is made of them")
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
    """Whether `data` is an object with these values; it may have more."""
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
    """The byte that each of GPT-2's 256 visible characters stands for in the vocabulary.

    Visible bytes of Latin-1 stand for themselves, the others for U+0100 on, in order.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(others)}


# The library's threads do not survive a fork; unless this says what to do, it warns then. So it
# says "false", but for the moments in which the threads are worth having.
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
    """Let the library use all cores for the while.

    Not if the user has chosen otherwise, nor in a fork, which would wait for
    the threads of its parent for ever.
    """
    if not worthwhile or _choose_parallelism() != os.getpid():
        yield
        return
    os.environ[_PARALLELISM] = "true"
    try:
        yield
    finally:
        os.environ[_PARALLELISM] = "false"
