"""The metadata of a prepared dataset, stored in `dataset.json`.

The file may have been edited: each entry is checked before it is used.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from drakegpt.data.tokenizers.bpe import DEFAULT_VOCAB_SIZE
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.files import parse_json
from drakegpt.wording import pluralize

SHORTEST_LINE = 20  # characters; shorter lines occur in different songs by chance
MIN_REPORTED_SHARE = 0.01  # of the validation split, in training too, that is worth a sentence
SPLITS = ("train", "val")
# Entries that have another name in datasets from before.
_RENAMED = {"seen_share": "val_share_in_train", "songs_in_both": "val_songs_in_train"}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The metadata of a prepared dataset; entries that old datasets lack are `None` or ""."""

    name: str
    version: str  # sha256 of text and tokenizer
    source: str  # drake, shakespeare, sample or a path
    provenance: str  # where the bytes came from
    source_sha256: str  # of the bytes as they came
    prepared_at: str  # ISO 8601, UTC
    characters: int
    songs: int | None  # documents that are songs
    vocab_size: int
    train_tokens: int
    val_tokens: int
    array_sha256: Mapping[str, str]
    tokenizer: str = "char"  # its kind
    text_sha256: str = ""  # of the text as UTF-8, whatever the tokenizer
    vocab_asked: int | None = None  # vocabulary size that BPE was asked for
    text_column: str = ""  # of a CSV, where it had to be named
    rows_left_out: int | None = None  # of a CSV, without text
    val_share_in_train: float | None = None  # of validation characters, in lines of training
    val_songs_in_train: int | None = None  # validation songs that training has too
    encoding: str = ""  # that the user named, for bytes that do not tell
    split: str = "contiguous"  # or "songs": each stands as a whole in one split
    exact_copies: int | None = None  # songs that repeat an earlier one word for word
    near_copies: int | None = None  # others the same but for case, spaces and punctuation
    copies_left_out: int | None = None  # of those; `None` if they were not to be left out

    def answers(self, tokenizer: str, vocab_size: int | None) -> bool:
        """Tell whether preparing the same text with that tokenizer gives this one's tokens."""
        if tokenizer != self.tokenizer or tokenizer == CharTokenizer.kind:
            return tokenizer == self.tokenizer
        asked, before = vocab_size or DEFAULT_VOCAB_SIZE, self.vocab_asked or self.vocab_size
        return asked == before or (self.vocab_size < before and self.vocab_size <= asked)

    @property
    def overlap(self) -> str:
        """A sentence on what validation has in common with training; "" for almost nothing."""
        if self.val_share_in_train is None or self.val_share_in_train <= MIN_REPORTED_SHARE:
            return ""
        songs = ""
        if self.val_songs_in_train:
            shared = pluralize(self.val_songs_in_train, "whole song is", "whole songs are")
            songs = f"; {shared} in both"
        return (
            f"{self.val_share_in_train:.1%} of the validation text is in lines of {SHORTEST_LINE} "
            f"characters or more that the training text has too{songs}."
        )

    @property
    def copies(self) -> str:
        """A sentence on songs that repeat others; "" if there are none, or none are known."""
        exact, near = self.exact_copies or 0, self.near_copies or 0
        if not exact + near:
            return ""
        repeat = pluralize(exact + near, "song repeats another", "songs repeat others")
        kinds = f"{exact:,} word for word, {near:,} but for case, spaces and punctuation"
        outcome = (
            "they are left out"
            if self.copies_left_out
            else "copies stand in one split; --dedupe leaves them out"
            if self.split == "songs"
            else "--dedupe leaves them out"
        )
        return f"{repeat} ({kinds}): {outcome}."

    def to_json(self) -> str:
        """Return the text of `dataset.json`."""
        return json.dumps(asdict(self), indent=2)


def metadata_from_json(text: str) -> Metadata:
    """Parse what `to_json` wrote; raises `ValueError` that names a wrong entry."""
    data = parse_json(text)
    if not isinstance(data, dict):
        raise ValueError("dataset.json is not a JSON object")
    data = {_RENAMED.get(name, name): value for name, value in data.items()}
    known = {field.name: field for field in fields(Metadata)}
    if unknown := sorted(data.keys() - known.keys()):
        raise ValueError(f"dataset.json has an unknown entry {unknown[0]!r}")
    for name, field in known.items():
        if name in data and not _fits(data[name], field.type):
            raise ValueError(f"{name} in dataset.json cannot be {json.dumps(data[name])[:60]}")
    try:
        metadata = Metadata(**data)
    except TypeError as error:
        raise ValueError(f"dataset.json lacks an entry: {error}") from error
    if not re.fullmatch("[0-9a-f]{64}", metadata.version):
        raise ValueError("version in dataset.json is not a checksum")
    return metadata


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a JSON value has the type of an entry, and numbers are finite and not < 0."""
    if kind == Mapping[str, str]:  # checksums of the splits
        return (
            isinstance(value, dict)
            and value.keys() == set(SPLITS)
            and all(isinstance(checksum, str) for checksum in value.values())
        )
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return not isinstance(value, int | float) or (value >= 0 and math.isfinite(value))
