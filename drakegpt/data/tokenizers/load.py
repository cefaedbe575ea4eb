"""The kinds of tokenizers, and loading one from a dataset or a run.

A tokenizer's JSON form is part of a dataset's version.
"""

from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.data.tokenizers.bpe import BPETokenizer
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.files import parse_json

KINDS = (CharTokenizer.kind, BPETokenizer.kind)


def tokenizer_from_json(text: str) -> Tokenizer:
    """Parse what `to_json` wrote; raises `ValueError` for anything else."""
    try:
        data = parse_json(text)
        if data["kind"] == BPETokenizer.kind:
            return BPETokenizer(data["tokenizer"])
        characters = data["characters"]
        fits = (
            data["kind"] == CharTokenizer.kind
            and isinstance(characters, str)
            and list(characters) == sorted(set(characters))
        )
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error) if str(error).startswith("the tokenizer") else ""
        raise ValueError(reason or "the tokenizer's JSON is malformed") from error
    if not fits or not characters:
        raise ValueError("the tokenizer's characters are not a sorted set")
    return CharTokenizer(characters)
