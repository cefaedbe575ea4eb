"""Commands to copy, counts, and text of others, as every part of the program shows them."""

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any


def format_command(name: str, /, *arguments: str, **options: Any) -> str:
    """The command line `drakegpt NAME ...` that a shell takes as it is meant.

    `options`: a flag for `True`, nothing for `None` or `False`, one option for each
    value of a list, else an option with its value; `set_` stands for `--set`.
    What begins with `-` is not taken for an option.
    """
    words = ["drakegpt", *name.split()]
    guarded = ["--", *arguments] if any(map(_is_dashed, arguments)) else []
    flags = [word for key, value in options.items() for word in _option(key, value)]
    return join([*words, *flags, *guarded] if guarded else [*words, *arguments, *flags])


def _option(key: str, value: Any) -> list[str]:
    flag = "--" + key.strip("_").replace("_", "-")
    if value is True:
        return [flag]
    if value is None or value is False:
        return []
    if isinstance(value, list):
        return [word for each in value for word in _option(key, each)]
    return format_option(flag, str(value))


def format_option(flag: str, value: str) -> list[str]:
    """An option and its value, in one word if the value would be taken for an option."""
    return [f"{flag}={value}"] if _is_dashed(value) else [flag, value]


def _is_dashed(word: str) -> bool:
    return word.startswith("-")


def join(words: Sequence[str]) -> str:
    """Words as a command line of this system's shell."""
    return " ".join(map(quote, words))


def quote(word: str) -> str:
    """A word as this system's shell takes it: a POSIX shell's quotes, or those of Windows."""
    if os.name != "nt":
        return shlex.quote(word)
    if re.fullmatch(r"[\w@+=:,./\\-]+", word):
        return word
    # Backslashes count double where a quotation mark follows them.
    inside = re.sub(r'(\\*)"', r'\1\1\\"', word)
    return '"' + re.sub(r"(\\+)$", r"\1\1", inside) + '"'


def pluralize(number: float, noun: str, plural: str = "") -> str:
    """A number of things: 1 run, 2,000 runs; `plural` where it is not the noun with an s."""
    shown = f"{number:g}" if isinstance(number, float) else f"{number:,}"
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"


# What a terminal obeys: control characters but tab and newline, and what turns text's direction.
_TURNS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
OBEYED = (*(code for code in range(0x20) if chr(code) not in "\t\n"), *range(0x7F, 0xA0), *_TURNS)
# Those of ASCII have a picture each; the others are spelt.
_PICTURES = {code: chr(0x2400 + code) if code < 0x20 else f"\\u{code:04x}" for code in OBEYED}
_PICTURES |= {0x7F: "\N{SYMBOL FOR DELETE}"}


def escape_control_characters(text: str) -> str:
    """A text that does nothing to a terminal but be read: its control characters are shown."""
    return text.translate(_PICTURES)


def escape_for_plot(text: str) -> str:
    """A text for a figure, whose letters have no pictures; there, dollars enclose formulas."""
    spelt = {code: f"\\x{code:02x}" for code in OBEYED}
    return text.translate(spelt).replace("$", r"\$")
