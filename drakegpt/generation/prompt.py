"""Fit a prompt, as a person types it, to the characters of a model's vocabulary."""

import unicodedata
from dataclasses import dataclass

from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.errors import UsageError

# Characters with a plain equivalent that Unicode's decompositions lack.
_PLAIN = {
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{SINGLE LOW-9 QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{DOUBLE LOW-9 QUOTATION MARK}": '"',
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{LATIN SMALL LETTER SHARP S}": "ss",
    "\N{LATIN SMALL LETTER AE}": "ae",
    "\N{LATIN SMALL LETTER O WITH STROKE}": "o",
    "\t": " ",
}


@dataclass(frozen=True)
class Prompt:
    """The text that the model reads, and how it differs from what was typed."""

    text: str
    replaced: dict[str, str]
    skipped: list[str]


def fit_prompt(text: str, tokenizer: Tokenizer, *, skip_unknown: bool) -> Prompt:
    """Replace characters outside the vocabulary by plain ones in it.

    Characters without an obvious equivalent are skipped with `skip_unknown`; else a
    `UsageError` lists them.
    """
    text = _normalize(text.replace("\r\n", "\n"), tokenizer)
    unknown = tokenizer.unknown(text)
    replaced = {c: plain for c in unknown if (plain := _find_equivalent(c, tokenizer)) is not None}
    skipped = [character for character in unknown if character not in replaced]
    if skipped and not skip_unknown:
        listed = ", ".join(f"{_show_character(c)} (U+{ord(c):04X})" for c in skipped)
        raise UsageError(
            f"The model has never seen these characters of the prompt: {listed}.",
            "Leave them out; `drakegpt generate --unknown skip` skips them.",
        )
    fitted = "".join("" if c in skipped else replaced.get(c, c) for c in text)
    return Prompt(fitted, replaced, skipped)


def _normalize(text: str, tokenizer: Tokenizer) -> str:
    """Choose the form with no unknown characters: as typed, NFC or NFD; else NFC.

    In NFC an accent and its letter are one character, to be replaced together.
    """
    forms = [text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))]
    known = [form for form in forms if not tokenizer.unknown(form)]
    return known[0] if known else forms[1]


def _find_equivalent(character: str, tokenizer: Tokenizer) -> str | None:
    """Find the closest plain spelling in the vocabulary; `None` if there is no obvious one."""
    plain = _PLAIN.get(character, character)
    decomposed = unicodedata.normalize("NFKD", plain)
    base = "".join(c for c in decomposed if not unicodedata.combining(c))
    cases = (plain, plain.lower(), plain.upper(), base, base.lower(), base.upper())
    for candidate in cases:
        if candidate and not tokenizer.unknown(candidate):
            return candidate
    return None


def _show_character(character: str) -> str:
    return f"'{character}'" if character.isprintable() else repr(character)
