"""A tokenizer in the form of Hugging Face's `tokenizers`, for any program with it.

Byte-level BPE is in that form already. The character tokenizer becomes one that splits a text
into its characters and looks each of them up.

Not here: how texts are encoded in drakegpt (`data.tokenizers`).
"""

import json
from typing import Any

from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.data.tokenizers.bpe import SPECIALS, BPETokenizer
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.errors import UsageError

# What the library reports a character that is not in the vocabulary as. It is not in there either,
# so that encoding fails, as in drakegpt, and no token is added that the model does not have.
UNKNOWN = "character outside the vocabulary"


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the contents of tokenizer.json.

    Raises `UsageError` if it has half of a character, which no text in Unicode can hold.
    """
    if not isinstance(tokenizer, CharTokenizer):
        library_form: dict[str, Any] = json.loads(tokenizer.to_json())["tokenizer"]
        return library_form
    if halves := [c for c in tokenizer.characters if "\ud800" <= c <= "\udfff"]:
        raise UsageError(
            f"The tokenizer has a token that is half of a character (U+{ord(halves[0]):04X}), "
            "which other programs cannot read.",
            "Repair the text, `drakegpt data add` it again, and train on it.",
        )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},  # else a space would stand between two characters
        "model": {
            "type": "WordLevel",
            "vocab": {character: token for token, character in enumerate(tokenizer.characters)},
            "unk_token": UNKNOWN,
        },
    }


def describe_tokenizer_config(tokenizer: Tokenizer, context_length: int) -> dict[str, Any]:
    """Return the contents of tokenizer_config.json.

    A special token in a text is ordinary characters, as in drakegpt.
    """
    described: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    if tokenizer.kind == BPETokenizer.kind:
        names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
        described |= dict(zip(names, SPECIALS, strict=True))
    return described
