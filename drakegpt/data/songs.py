"""The songs of a dataset: where each begins in its text, and what its source calls it.

They are kept in `songs.json` beside the tokens, an object on a line for each song. They are
no part of a dataset's identity: the same text and tokenizer make the same version.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

from drakegpt.data.corpus import ByteProgress, Corpus, Document
from drakegpt.files import parse_json

SONGS = "songs.json"


@dataclass(frozen=True, slots=True)
class Song:
    """A song of a text.

    `start` is the offset of its first character in the whole text, that is the training
    split followed by the validation split; between two songs is one line feed. `title`
    and `artist` are empty where the source does not name them.
    """

    start: int
    title: str = ""
    artist: str = ""


class SongRecorder:
    """A corpus that writes the text of `songs.json`, song by song, each time it is read.

    Nothing is written if its documents are not songs.
    """

    def __init__(self, corpus: Corpus, write: Callable[[str], object]) -> None:
        self._corpus, self._write = corpus, write
        self._characters = 0

    @property
    def has_songs(self) -> bool:
        """Whether its documents are songs."""
        return self._corpus.has_songs

    @property
    def left_out(self) -> int | None:
        """Rows without text that were passed over in the last reading; `None` without rows."""
        return self._corpus.left_out

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """The documents of the corpus; the text that was written is whole after the last."""
        if not self.has_songs:
            yield from self._corpus.documents(report)
            return
        self._write("[")
        for number, document in enumerate(self._corpus.documents(report)):
            # The line feed between two songs counts as a character of the text.
            self._characters = self._characters + 1 if number else 0
            title, artist = document.title, document.artist
            song = {"start": self._characters, "title": title, "artist": artist}
            self._write((",\n" if number else "\n") + json.dumps(song, ensure_ascii=False))
            yield Document(self._counted(document), document.title, document.artist)
        self._write("\n]\n")

    def _counted(self, pieces: Iterable[str]) -> Iterator[str]:
        for piece in pieces:
            self._characters += len(piece)
            yield piece


def songs_from_json(text: str, characters: int) -> tuple[Song, ...]:
    """Read what `SongRecorder` wrote for a text of that many characters.

    Raises `ValueError` for what is not songs, in the order of such a text.
    """
    entries = parse_json(text)
    if not isinstance(entries, list) or not all(map(_is_song, entries)):
        raise ValueError("it is not a list of songs")
    songs = tuple(Song(**entry) for entry in entries)
    starts = [song.start for song in songs]
    if starts != sorted(set(starts)) or (starts and not starts[0] == 0 <= starts[-1] <= characters):
        raise ValueError("its songs are not in the order of the text")
    return songs


def _is_song(entry: object) -> bool:
    """Whether a JSON value is an object with the fields of a song."""
    return (
        isinstance(entry, dict)
        and entry.keys() == {field.name for field in fields(Song)}
        and type(entry["start"]) is int
        and isinstance(entry["title"], str)
        and isinstance(entry["artist"], str)
    )
