"""Decode a file's bytes if the encoding is certain; else raise an error that says how to convert.

Accepted are UTF-8 with or without byte-order mark, UTF-16 and UTF-32 with one, and any other
encoding that the user names. For other bytes the error names the likely format, guessed from
their start; text is never decoded by a guess.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from drakegpt.errors import CorpusError, UsageError
from drakegpt.wording import quote

# UTF-32's mark starts with that of UTF-16, so it comes first.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
HEAD = 1 << 12  # bytes from which the format is guessed
# Bytes that do not occur in text, unlike tabs, line ends, form feeds and the escape character.
CONTROLS = bytes({*range(0x20), 0x7F} - {*b"\b\t\n\v\f\r\x1b"})
MAX_CONTROLS = 0.1  # of the bytes; a few are accepted
MIN_PRINTABLE = 0.95  # of the characters in what counts as text

# The first bytes of files that are not plain text, their name, and how to extract the text.
SIGNATURES = (
    (b"\x1f\x8b", "gzip, which is compressed", "Unpack it first: `gunzip -c {file} > {target}`."),
    (b"BZh91AY&SY", "bzip2, which is compressed", "Unpack it first: `bunzip2 -k {file}`."),
    (b"\xfd7zXZ\0", "xz, which is compressed", "Unpack it first: `unxz -k {file}`."),
    (b"\x28\xb5\x2f\xfd", "zstd, which is compressed", "Unpack it first: `unzstd {file}`."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it, and fetch the text file in it."),
    (b"PK\3\4", "a zip archive, as office documents and e-books are too",
     "Name it .zip if it holds text files, or save the document as text."),
    (b"PK\5\6", "an empty zip archive", "Add a text file."),
    (b"%PDF-", "a PDF", "Save its text as a .txt file: `pdftotext -enc UTF-8 {file} {target}`."),
)  # fmt: skip


# Python's codecs for domain names and for source code.
NOT_OF_FILES = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined")
# "\r\r\n" is what a program leaves that writes "\r\n" as text on Windows.
LINE_END = re.compile("\r\r\n|\r\n|\r")
MAX_HELD = 2  # carriage returns at the end of a piece that the next one may complete


@dataclass
class Findings:
    """What decoding found out about the files it has read, by their names in messages."""

    encodings: dict[str, str] = field(default_factory=dict)
    doubled_line_ends: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)  # with halves of characters, now U+FFFD

    def keep(self, names: set[str]) -> None:
        """Forget files other than these."""
        self.encodings = {k: v for k, v in self.encodings.items() if k in names}
        self.doubled_line_ends &= names
        self.replaced &= names


def decode_chunks(
    raw: Iterable[bytes],
    source: str,
    encoding: str | None = None,
    findings: Findings | None = None,
) -> Iterator[str]:
    """Yield the text in pieces, without byte-order mark and with line feeds as line ends.

    `encoding` is that of bytes without a mark, by default UTF-8. Raises `CorpusError` for
    bytes that are not text in a known encoding. The text does not depend on how the bytes
    are divided. `source`: the file's name in messages.
    """
    rest = iter(raw)
    head = _read_head(rest)
    found, mark = next(((e, m) for m, e in MARKS if head.startswith(m)), (encoding or "utf-8", b""))
    if not mark and not encoding:
        _check_text(head[:HEAD], source)
    findings = findings or Findings()
    findings.encodings[source] = found
    decoder = codecs.getincrementaldecoder(found)("strict")
    newlines = _LineEnds()
    position, line = len(mark), 1
    for chunk, last in _flag_last(chain([head[len(mark) :]], rest)):
        pending = len(decoder.getstate()[0])  # bytes of an incomplete character
        try:
            text = decoder.decode(chunk, last)
        except UnicodeDecodeError as error:
            before = newlines.decode(error.object[: error.start].decode(found, "replace"), True)
            where = f"line {line + before.count(chr(10))} has the byte 0x" + (
                f"{error.object[error.start]:02x} at position {position - pending + error.start:,}"
            )
            named = encoding if not mark else None
            raise _explain_undecodable(head[:HEAD], found, where, source, named) from error
        except UnicodeError as error:  # some codecs raise this one, without a place
            raise CorpusError(
                f"{source} is not text in {found} ({error}).", "Name another --encoding."
            ) from error
        position += len(chunk)
        text = newlines.decode(text, last)
        line += text.count("\n")
        yield text
    if newlines.doubled:
        findings.doubled_line_ends.add(source)


class _LineEnds:
    """Translates line ends to line feeds; the text comes in pieces."""

    def __init__(self) -> None:
        self.doubled = False  # whether there were line ends of three characters
        self._held = ""  # carriage returns, until it is known what follows

    def decode(self, text: str, last: bool) -> str:
        """Translate a piece; the last one is whole."""
        text = self._held + text
        returns = 0 if last else min(MAX_HELD, len(text) - len(text.rstrip("\r")))
        whole, self._held = text[: len(text) - returns], text[len(text) - returns :]
        if "\r" not in whole:
            return whole
        self.doubled = self.doubled or "\r\r\n" in whole
        return LINE_END.sub("\n", whole)


def normalize_line_ends(text: str) -> str:
    """Return a whole text with line feeds as line ends."""
    return LINE_END.sub("\n", text) if "\r" in text else text


def choose_encoding(raw: Iterable[bytes], given: str) -> str:
    """Return the encoding of a file without a mark: `given`, or UTF-8 if its bytes show that.

    Text in another encoding that is not ASCII practically never happens to be UTF-8. So
    one wrong file in a folder of good ones can be read without garbling the others.
    """
    decoder, plain = codecs.getincrementaldecoder("utf-8")("strict"), True
    try:
        for chunk, last in _flag_last(raw):
            decoder.decode(chunk, last)
            plain = plain and chunk.isascii()
    except UnicodeDecodeError:
        return given
    return given if plain else "utf-8"


def check_encoding(name: str) -> str:
    """Return an encoding's name, "utf-8" for UTF-8; raises `UsageError` if there is none."""
    try:
        codec = codecs.lookup(name)
        if codec.name in NOT_OF_FILES:
            raise LookupError(codec.name)
        "".encode(codec.name)  # raises LookupError for codecs that are not of text
        codec.incrementaldecoder("strict")  # `None` where there is none
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"There is no encoding '{name}'.",
            "Name one that Python knows, such as windows-1252, iso-8859-2, shift_jis or utf-16-le.",
        ) from error
    return codec.name if codec.name == "utf-8" else name


def _read_head(raw: Iterator[bytes]) -> bytes:
    """Read at least the first `HEAD` bytes, or all if there are fewer."""
    head = b""
    for chunk in raw:
        head += chunk
        if len(head) >= HEAD:
            break
    return head


def _flag_last(raw: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each chunk with False, and at the end an empty one with True."""
    for chunk in raw:
        yield chunk, False
    yield b"", True


def _check_text(head: bytes, source: str) -> None:
    """Raise `CorpusError` if the start of a file without a mark is not that of UTF-8 text."""
    for signature, name, fix in SIGNATURES:
        if head.startswith(signature):
            problem = f"{source} is not text but {name}."
            raise CorpusError(problem, fix.format(file=_quote_name(source), target="text.txt"))
    if _share_of_controls(head) >= MAX_CONTROLS:
        raise _explain_wide(head, source) or _explain_binary(source)


def _explain_undecodable(
    head: bytes, encoding: str, where: str, source: str, named: str | None
) -> CorpusError:
    """Build the error for bytes that do not fit the encoding, the first of them at `where`.

    `named`: the encoding, if the user has named it.
    """
    if named:
        return CorpusError(
            f"{source} is not text in {named}: {where}.",
            "Name another --encoding, or save the file as UTF-8 and leave it out.",
        )
    if encoding != "utf-8":
        problem = f"{source} is damaged: its mark says {_short_name(encoding)}, but {where}."
        return CorpusError(problem, "Save it again, as UTF-8, in the program it came from.")
    if error := _explain_wide(head, source):
        return error
    if b"\0" in head:
        return _explain_binary(source)
    fix = "Name its encoding, for example --encoding windows-1252. Or "
    fix += _suggest_conversion("windows-1252", source)
    return CorpusError(f"{source} is not UTF-8: {where}.", fix)


def _explain_wide(head: bytes, source: str) -> CorpusError | None:
    """Build the error for UTF-16 or UTF-32 without a mark; `None` if the bytes are neither."""
    ascii_in = {encoding: _count_ascii(head, encoding) for encoding in WIDE}
    encoding = max(WIDE, key=lambda encoding: ascii_in[encoding])
    if not ascii_in[encoding]:
        return None
    fix = _suggest_conversion(encoding.replace("-l", "l").replace("-b", "b"), source)
    return CorpusError(
        f"{source} is not UTF-8 but {_short_name(encoding)}, without a byte-order mark.",
        f"Add --encoding {encoding}. Or {fix}",
    )


def _count_ascii(head: bytes, encoding: str) -> int:
    """Count the ASCII characters of bytes in an encoding; 0 if decoding does not give text.

    Even Chinese text has line ends or spaces; bytes decoded in the wrong byte order, or as
    UTF-16 although they are not, have none.
    """
    try:
        text = codecs.getincrementaldecoder(encoding)("strict").decode(head)
    except UnicodeDecodeError:
        return 0
    count = sum(character < "\x7f" for character in text)
    sane = sum(character.isprintable() or character in "\t\n\r\u3000" for character in text)
    return count if sane >= MIN_PRINTABLE * len(text) and count >= len(text) / 100 else 0


def _share_of_controls(head: bytes) -> float:
    """Compute the share of control bytes, which do not occur in text."""
    return 1 - len(head.translate(None, CONTROLS)) / len(head) if head else 0.0


def _explain_binary(source: str) -> CorpusError:
    return CorpusError(
        f"{source} is not text but binary data.",
        "Add a text file: save or export its contents as plain text in UTF-8.",
    )


def _suggest_conversion(encoding: str, source: str) -> str:
    target = f"utf8{Path(source).suffix}"
    return (
        "save it as UTF-8 in your editor, or convert it: "
        f"`iconv -f {encoding} -t utf-8 {_quote_name(source)} > {quote(target)}`."
    )


def _short_name(encoding: str) -> str:
    return encoding[: len("utf-16")].upper()


def _quote_name(source: str) -> str:
    name = Path(source).name
    return quote(f"./{name}" if name.startswith("-") else name)
