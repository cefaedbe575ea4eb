"""Songs in files of text: one song a file, several divided by blank lines, or LRC with time stamps.

A song ends with two blank lines, the last of which the line feed between two documents
completes, so that songs in a folder make the same text as one file in which two blank lines
divide them.

Not here: tables of songs (`corpus`, `records`), several files as one text (`collection`).
"""

import re
from collections.abc import Iterable, Iterator

from drakegpt.data.corpus import ByteProgress, Document, File
from drakegpt.errors import CorpusError, shorten

# A line's end and two or more blank lines.
DIVISION = re.compile(r"\n(?:[^\S\n]*\n){2,}")
LONGEST_SONG = 20_000  # characters, on average: parts of a longer text are no songs
SONG_END = "\n\n"
MAX_LRC = 16_000_000  # bytes of an LRC file, which is held in memory

_TIME = r"\d{1,3}(?::\d{1,2})+(?:[.:]\d{1,3})?"
STAMPS = re.compile(rf"\[{_TIME}\]|<{_TIME}>")
TAG = re.compile(r"\s*\[(ti|ar|al|au|by|la|length|lr|offset|re|tool|ve|id|#):(.*)\]\s*", re.I)


class DividedText:
    """A file in which two or more blank lines divide songs; joined again, they are its text."""

    has_songs = True
    left_out = None

    def __init__(self, file: File) -> None:
        self._file = file

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield the songs with the blank lines after each, but for the line feed between two."""
        parts, ended = divide_text(self._file.decode(report)), False

        def read_song() -> Iterator[str]:
            nonlocal ended
            for part in parts:
                if part is None:
                    return
                yield part
            ended = True

        while not ended:
            song = read_song()
            yield Document(song)
            for _ in song:  # what was not read of it
                pass


def divide_text(pieces: Iterable[str]) -> Iterator[str | None]:
    """Yield a text in pieces, with `None` in place of the line feed that divides two songs.

    Blank lines before the first song and after the last divide nothing.
    """
    begun = False
    for body in _hold_blanks(pieces):
        start = 0
        for match in DIVISION.finditer(body) if body.strip() else ():
            begun = begun or bool(body[start : match.start()].strip())
            if begun:
                yield body[start : match.end() - 1]
                yield None
                start = match.end()
        begun = begun or bool(body[start:].strip())
        if start < len(body):
            yield body[start:]


def _hold_blanks(pieces: Iterable[str]) -> Iterator[str]:
    """Yield a text in pieces that end with what is not blank, but for the last."""
    held: list[str] = []
    for piece in pieces:
        body = piece.rstrip()
        if body:
            yield "".join([*held, body])
            held = []
        if len(body) < len(piece):
            held.append(piece[len(body) :])
    if held:
        yield "".join(held)


def is_divided(file: File, report: ByteProgress | None = None) -> bool:
    """Tell whether blank lines divide a file into two or more songs, which are not too long.

    A play or a book may have blank lines somewhere, too.
    """
    songs, characters = 1, 0
    for part in divide_text(file.decode(report)):
        songs += part is None
        characters += len(part or "\n")
    return songs > 1 and characters <= songs * LONGEST_SONG


class SongFile:
    """A file that is one song, whose title is the file's name."""

    has_songs = True
    left_out = None

    def __init__(self, file: File, title: str) -> None:
        self._file, self._title = file, shorten(title)

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield the song."""
        yield Document(_end_song(self._file.decode(report)), self._title)


class LrcFile:
    """A song in an LRC file, without the time stamps and tags.

    A line with several time stamps, which is sung several times, is kept once.
    """

    has_songs = True
    left_out = None

    def __init__(self, file: File, title: str) -> None:
        """`title`: of a song that has none in its tags."""
        self._file, self._title = file, title

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield the song."""
        if self._file.path.stat().st_size > MAX_LRC:
            raise CorpusError(
                f"{self._file.name} is larger than the {MAX_LRC:,} bytes of an LRC file.",
                "Save it as a .txt file.",
            )
        tags: dict[str, str] = {}
        lines = []
        for line in "".join(self._file.decode(report)).split("\n"):
            if tag := TAG.fullmatch(line):
                tags.setdefault(tag[1].lower(), shorten(" ".join(tag[2].split())))
            else:
                lines.append(STAMPS.sub("", line).strip())
        title, artist = tags.get("ti") or shorten(self._title), tags.get("ar", "")
        yield Document(_end_song(["\n".join(lines).strip("\n")]), title, artist)


def _end_song(pieces: Iterable[str]) -> Iterator[str]:
    """Yield a song without blank lines at its start, and with two at its end."""
    begun = False
    for body in _hold_blanks(pieces):
        if text := body.rstrip():
            yield text if begun else text.lstrip("\n")
            begun = True
    if begun:
        yield SONG_END
