"""The songs of a dataset: where each begins in its text, and what its source calls it.

They are kept in `songs.json` beside the tokens, an object on a line for each song. They are
no part of a dataset's identity: the same text and tokenizer make the same version.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from drakegpt.paths import parse_json

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


def songs_to_json(songs: Sequence[Song]) -> str:
    """Write the text of `songs.json`."""
    lines = (json.dumps(asdict(song), ensure_ascii=False) for song in songs)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def songs_from_json(text: str, characters: int) -> tuple[Song, ...]:
    """Read what `songs_to_json` wrote for a text of that many characters.

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
