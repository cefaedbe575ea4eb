"""A prompt as a person types it, fitted to the characters that a model knows."""

import unicodedata
from dataclasses import dataclass

from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.errors import UsageError

# Signs with a plain equivalent that Unicode's own decompositions do not give.
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
    """The text that the model will see, and what had to change for it."""

    text: str
    folded: dict[str, str]
    skipped: list[str]


def fit_prompt(text: str, tokenizer: Tokenizer, *, skip_unknown: bool) -> Prompt:
    """Replace characters that the tokenizer does not know by plain ones that it does.

    Characters without an obvious equivalent are skipped if `skip_unknown`,
    otherwise a `UsageError` lists them.
    """
    text = _normalize(text.replace("\r\n", "\n"), tokenizer)
    unknown = tokenizer.unknown(text)
    folded = {c: plain for c in unknown if (plain := _find_equivalent(c, tokenizer)) is not None}
    lost = [character for character in unknown if character not in folded]
    if lost and not skip_unknown:
        listed = ", ".join(f"{_show_character(c)} (U+{ord(c):04X})" for c in lost)
        raise UsageError(
            f"The model has never seen these characters of the prompt: {listed}.",
            "Leave them out; `drakegpt generate --unknown skip` skips them.",
        )
    fitted = "".join("" if c in lost else folded.get(c, c) for c in text)
    return Prompt(fitted, folded, lost)


def _normalize(text: str, tokenizer: Tokenizer) -> str:
    """The text with accents joined to their letters or apart, as suits the tokenizer best.

    As typed if that is all known; joined otherwise, so that they can be folded together.
    """
    spellings = [text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))]
    known = [spelling for spelling in spellings if not tokenizer.unknown(spelling)]
    return known[0] if known else spellings[1]


def _find_equivalent(character: str, tokenizer: Tokenizer) -> str | None:
    """The closest plain spelling that the tokenizer knows, if there is an obvious one."""
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
