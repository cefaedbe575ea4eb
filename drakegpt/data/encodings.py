"""The text in a file's bytes: read where its encoding is certain, refused with advice elsewhere.

Read are UTF-8, with its byte-order mark or without, and UTF-16 and UTF-32 with theirs. What
other bytes seem to be is told by how they begin, and the advice says how to make UTF-8 of them.
"""

import codecs
from collections.abc import Iterable, Iterator
from io import IncrementalNewlineDecoder
from itertools import chain
from pathlib import Path

from drakegpt.errors import CorpusError
from drakegpt.wording import quote

# UTF-32's mark begins with that of UTF-16, so it comes first.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
HEAD = 1 << 12  # bytes that are looked at to tell what a file is
# Bytes that text has no use for, unlike tabs, line ends, page breaks and the escape character.
CONTROLS = bytes({*range(0x20), 0x7F} - {*b"\b\t\n\v\f\r\x1b"})
MANY_CONTROLS = 0.1  # share of bytes; a stray one is let through
MOSTLY = 0.95  # share of characters that can be printed, in what is taken for text

# How files begin that hold no plain text: their name, and how one gets to the text in them.
SIGNATURES = (
    (b"\x1f\x8b", "gzip, which is compressed", "Unpack it first: `gunzip -c {file} > {target}`."),
    (b"BZh91AY&SY", "bzip2, which is compressed", "Unpack it first: `bunzip2 -k {file}`."),
    (b"\xfd7zXZ\0", "xz, which is compressed", "Unpack it first: `unxz -k {file}`."),
    (b"\x28\xb5\x2f\xfd", "zstd, which is compressed", "Unpack it first: `unzstd {file}`."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it, and fetch the text file in it."),
    (b"PK\3\4", "a zip archive, as office documents and e-books are too",
     "Unpack it (`unzip {file}`) and fetch the text file in it, or save the document as text."),
    (b"PK\5\6", "an empty zip archive", "Fetch a text file."),
    (b"%PDF-", "a PDF", "Save its text as a .txt file: `pdftotext -enc UTF-8 {file} {target}`."),
)  # fmt: skip


def decode_chunks(raw: Iterable[bytes], source: str) -> Iterator[str]:
    """The text in pieces, without byte-order mark, every line end a line feed.

    Raises `CorpusError` for bytes that are no text in a known encoding. How the bytes are cut
    makes no difference. `source`: what messages call the file.
    """
    rest = iter(raw)
    head = _head(rest)
    encoding, mark = next(((e, m) for m, e in MARKS if head.startswith(m)), ("utf-8", b""))
    if not mark:
        _check_text(head[:HEAD], source)
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    newlines = IncrementalNewlineDecoder(None, translate=True)
    place, line = len(mark), 1
    for chunk, last in _with_last(chain([head[len(mark) :]], rest)):
        held = len(decoder.getstate()[0])  # bytes of a character that is not whole yet
        try:
            text = decoder.decode(chunk, last)
        except UnicodeDecodeError as error:
            before = newlines.decode(error.object[: error.start].decode(encoding), final=True)
            where = f"line {line + before.count(chr(10))} has the byte 0x" + (
                f"{error.object[error.start]:02x} at position {place - held + error.start:,}"
            )
            raise _undecodable(head[:HEAD], encoding, where, source) from error
        place += len(chunk)
        text = newlines.decode(text, final=last)
        line += text.count("\n")
        yield text


def _head(raw: Iterator[bytes]) -> bytes:
    """At least the first `HEAD` bytes, or all there are."""
    head = b""
    for chunk in raw:
        head += chunk
        if len(head) >= HEAD:
            break
    return head


def _with_last(raw: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each chunk, and an empty one that is marked as the last."""
    for chunk in raw:
        yield chunk, False
    yield b"", True


def _check_text(head: bytes, source: str) -> None:
    """Raise `CorpusError` if a file without a mark begins as no UTF-8 text does."""
    for signature, name, fix in SIGNATURES:
        if head.startswith(signature):
            problem = f"{source} is not text but {name}."
            raise CorpusError(problem, fix.format(file=_file(source), target="text.txt"))
    if _controls(head) >= MANY_CONTROLS:
        raise _wide(head, source) or _binary(source)


def _undecodable(head: bytes, encoding: str, where: str, source: str) -> CorpusError:
    """What to do about bytes that are not of the encoding, the first of them at `where`."""
    if encoding != "utf-8":
        problem = f"{source} is damaged: its mark says {_named(encoding)}, but {where}."
        return CorpusError(problem, "Save it once more, as UTF-8, in the program it came from.")
    if error := _wide(head, source):
        return error
    if b"\0" in head:
        return _binary(source)
    return CorpusError(f"{source} is not UTF-8: {where}.", _conversion("windows-1252", source))


def _wide(head: bytes, source: str) -> CorpusError | None:
    """The error for UTF-16 or UTF-32 without a mark, if that is what the bytes are."""
    ascii_in = {encoding: _ascii_characters(head, encoding) for encoding in WIDE}
    encoding = max(WIDE, key=lambda encoding: ascii_in[encoding])
    if not ascii_in[encoding]:
        return None
    return CorpusError(
        f"{source} is not UTF-8 but {_named(encoding)}, without the mark that would say so.",
        _conversion(encoding.replace("-l", "l").replace("-b", "b"), source),
    )


def _ascii_characters(head: bytes, encoding: str) -> int:
    """How many characters are ASCII if bytes are read in an encoding; 0 if that gives no text.

    Even a text in Chinese has line ends or spaces; read with its bytes in the wrong order, or as
    UTF-16 though it is not, a text has none.
    """
    try:
        text = codecs.getincrementaldecoder(encoding)("strict").decode(head)
    except UnicodeDecodeError:
        return 0
    count = sum(character < "\x7f" for character in text)
    sane = sum(character.isprintable() or character in "\t\n\r\u3000" for character in text)
    return count if sane >= MOSTLY * len(text) and count >= len(text) / 100 else 0


def _controls(head: bytes) -> float:
    """The share of bytes that text has no use for."""
    return 1 - len(head.translate(None, CONTROLS)) / len(head) if head else 0.0


def _binary(source: str) -> CorpusError:
    return CorpusError(
        f"{source} is not text but bytes of some other kind.",
        "Fetch a text file: save or export what it holds as plain text in UTF-8.",
    )


def _conversion(encoding: str, source: str) -> str:
    target = f"utf8{Path(source).suffix}"
    return (
        "Save it as UTF-8 in your editor, or convert it: "
        f"`iconv -f {encoding} -t utf-8 {_file(source)} > {quote(target)}`."
    )


def _named(encoding: str) -> str:
    return encoding[: len("utf-16")].upper()


def _file(source: str) -> str:
    name = Path(source).name
    return quote(f"./{name}" if name.startswith("-") else name)
