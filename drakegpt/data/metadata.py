"""What is known of a prepared dataset, as `dataset.json` holds it.

The file is data from outside like any other: each entry is checked before it is used.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from drakegpt.data.overlap import SHORTEST_LINE
from drakegpt.data.tokenizers.bpe import DEFAULT_VOCAB_SIZE
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.files import parse_json
from drakegpt.wording import pluralize

WORTH_TELLING = 0.01  # share of the validation split that training has too
SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What is known of a prepared dataset, as stored in `dataset.json`.

    What old datasets do not know is `None` or "".
    """

    name: str
    version: str  # sha256 of text and tokenizer
    source: str  # what was asked for: drake, shakespeare, sample or a path
    provenance: str  # where the bytes came from
    source_sha256: str  # of the bytes as they came
    prepared_at: str  # ISO 8601, UTC
    characters: int
    songs: int | None  # rows of a CSV that held text
    vocab_size: int
    train_tokens: int
    val_tokens: int
    array_sha256: Mapping[str, str]
    tokenizer: str = "char"  # its kind
    text_sha256: str = ""  # of the text as UTF-8, whatever the tokenizer
    vocab_asked: int | None = None  # tokens a BPE tokenizer could have had
    text_column: str = ""  # of a CSV, where it had to be named
    rows_left_out: int | None = None  # of a CSV, without text
    seen_share: float | None = None  # of validation's characters, in lines that training has too
    songs_in_both: int | None = None  # songs of validation that training has too

    def answers(self, tokenizer: str, vocab_size: int | None) -> bool:
        """Whether preparing the same text with that tokenizer would lead to this one's again."""
        if tokenizer != self.tokenizer or tokenizer == CharTokenizer.kind:
            return tokenizer == self.tokenizer
        asked, before = vocab_size or DEFAULT_VOCAB_SIZE, self.vocab_asked or self.vocab_size
        return asked == before or (self.vocab_size < before and self.vocab_size <= asked)

    @property
    def overlap(self) -> str:
        """A sentence on what validation has in common with training; "" if that is next to none."""
        if self.seen_share is None or self.seen_share <= WORTH_TELLING:
            return ""
        songs = ""
        if self.songs_in_both:
            stand = pluralize(self.songs_in_both, "whole song stands", "whole songs stand")
            songs = f"; {stand} in both"
        return (
            f"{self.seen_share:.1%} of the validation text stands in lines of {SHORTEST_LINE} "
            f"characters or more that the training text has too{songs}."
        )

    def to_json(self) -> str:
        """The text of `dataset.json`."""
        return json.dumps(asdict(self), indent=2)


def metadata_from_json(text: str) -> Metadata:
    """Read what `to_json` wrote; `ValueError` says which entry is not as it should be."""
    data = parse_json(text)
    if not isinstance(data, dict):
        raise ValueError("dataset.json is no object")
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
        raise ValueError("version in dataset.json is no checksum")
    return metadata


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is one that an entry of that type can have."""
    if kind == Mapping[str, str]:  # checksums of the splits
        return (
            isinstance(value, dict)
            and value.keys() == set(SPLITS)
            and all(isinstance(checksum, str) for checksum in value.values())
        )
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return not isinstance(value, int | float) or (value >= 0 and math.isfinite(value))
