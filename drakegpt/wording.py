"""Formatting shared by all messages: commands to copy, counts, and text from outside."""

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

# The split that evaluations score beside the training split, by the setting `select_on`.
SHORT_SPLITS = {"validation": "val", "training-tail": "tail"}


def format_command(name: str, /, *arguments: str, **options: Any) -> str:
    """Format the command line `drakegpt NAME ...`, quoted for a shell.

    `options`: a flag for `True`, nothing for `None` or `False`, one option for each value
    of a list, else an option with its value; `set_` stands for `--set`. Arguments that
    start with `-` are put after `--`.
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
    """Return an option and its value, as one word if the value looks like an option."""
    return [f"{flag}={value}"] if _is_dashed(value) else [flag, value]


def _is_dashed(word: str) -> bool:
    return word.startswith("-")


def join(words: Sequence[str]) -> str:
    """Join words to a command line of this system's shell."""
    return " ".join(map(quote, words))


def quote(word: str) -> str:
    """Quote a word for this system's shell, POSIX or Windows."""
    if os.name != "nt":
        return shlex.quote(word)
    if re.fullmatch(r"[\w@+=:,./\\-]+", word):
        return word
    # Backslashes before a quotation mark must be doubled.
    inside = re.sub(r'(\\*)"', r'\1\1\\"', word)
    return '"' + re.sub(r"(\\+)$", r"\1\1", inside) + '"'


def pluralize(number: float, noun: str, plural: str = "") -> str:
    """Format a count: 1 run, 2,000 runs; `plural` is given if it is not the noun with an s."""
    count = f"{number:g}" if isinstance(number, float) else f"{number:,}"
    return f"{count} {noun if number == 1 else plural or noun + 's'}"


# Characters that affect a terminal: controls except tab and newline, and bidirectional controls.
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
CONTROLS = (*(code for code in range(0x20) if chr(code) not in "\t\n"), *range(0x7F, 0xA0), *_BIDI)
# ASCII controls have Unicode pictures; the others are escaped.
_PICTURES = {code: chr(0x2400 + code) if code < 0x20 else f"\\u{code:04x}" for code in CONTROLS}
_PICTURES |= {0x7F: "\N{SYMBOL FOR DELETE}"}


def escape_control_characters(text: str) -> str:
    """Replace control characters by visible ones, so that a text cannot affect a terminal."""
    return text.translate(_PICTURES)


def escape_for_plot(text: str) -> str:
    """Escape control characters and dollar signs, which would start formulas in matplotlib."""
    escapes = {code: f"\\x{code:02x}" for code in CONTROLS}
    return text.translate(escapes).replace("$", r"\$")
