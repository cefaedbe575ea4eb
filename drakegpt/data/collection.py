"""Several files as one text of songs: those of a folder or an archive.

A text file is a song and its name the title; a table holds a song in each row. What cannot be
read is left out, with the reason.

Not here: the kinds of files themselves (`corpus`, `song_files`, `records`).
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from drakegpt.data.corpus import ByteProgress, Corpus, Document
from drakegpt.errors import CorpusError, FetchError, shorten
from drakegpt.wording import pluralize

MAX_FILES = 100_000  # in a folder, so that a whole disk is not walked by mistake
MAX_LISTED = 3  # names in a sentence
HIDDEN = "hidden"


@dataclass(frozen=True)
class FoundFile:
    """A file of a folder or an archive: its name there, with slashes; or why it is left out."""

    name: str
    path: Path | None
    reason: str = ""
    kind: str = ""  # if its name does not end with it

    @property
    def suffix(self) -> str:
        """The kind of file: the end of its name, in lower case."""
        return self.kind or PurePosixPath(self.name).suffix.lower()

    @property
    def title(self) -> str:
        """Its name as the title of a song, without bytes that are not UTF-8."""
        raw = PurePosixPath(self.name).stem.encode(errors="surrogateescape")
        return raw.decode(errors="replace")


@dataclass
class Choice:
    """The files that are taken, with their number of songs, and the reasons of the others."""

    readers: list[tuple[FoundFile, Corpus]] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # names by reason
    problems: list[str] = field(default_factory=list)  # of files that cannot be read

    def leave_out(self, name: str, reason: str) -> None:
        """Record a file that is left out."""
        self.left_out.setdefault(reason, []).append(name)

    def describe(self) -> tuple[str, ...]:
        """Describe what is taken, and what is left out and why, a sentence each."""
        kinds = Counter(file.suffix for file, _ in self.readers)
        files = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        taken = f"Taken: {pluralize(len(self.readers), 'file')} ({files})."
        if not self.left_out:
            return (taken,)
        reasons = "; ".join(
            f"{pluralize(len(names), 'file')} {reason} ({_list_names(names)})"
            for reason, names in sorted(self.left_out.items())
        )
        return taken, f"Left out: {reasons}.", *self.problems[:1]


def _list_names(names: list[str]) -> str:
    listed = ", ".join(shorten(name) for name in sorted(names)[:MAX_LISTED])
    return listed + ", …" * (len(names) > MAX_LISTED)


def list_folder(folder: Path, source: str) -> list[FoundFile]:
    """List the files of a folder and of those in it, by name; hidden ones with that reason.

    Links to folders are not followed. Raises `FetchError`.
    """
    found: list[FoundFile] = []

    def fail(error: OSError) -> None:
        raise FetchError(
            f"{error.filename} cannot be read: {error.strerror}.", "Name a folder you can open."
        ) from error

    for place, folders, names in os.walk(folder, onerror=fail):
        inside = Path(place).relative_to(folder)
        found += [
            FoundFile((inside / name).as_posix() + "/", None, HIDDEN)
            for name in folders
            if is_hidden(name)
        ]
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in names:
            path = Path(place) / name
            reason = HIDDEN if is_hidden(name) else "" if path.is_file() else "not a plain file"
            found.append(FoundFile((inside / name).as_posix(), None if reason else path, reason))
        if len(found) > MAX_FILES:
            raise FetchError(
                f"{source} has more than {MAX_FILES:,} files.", "Name the folder of the songs."
            )
    return sorted(found, key=lambda file: file.name)


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or is what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def choose_files(
    files: list[FoundFile],
    open_file: Callable[[FoundFile], Corpus | None],
    source: str,
    report: ByteProgress | None = None,
) -> Choice:
    """Choose the files with text in them: each is read once, by what `open_file` returns.

    That is `None` for another kind of file. Raises `CorpusError` if none is left.
    """
    choice = Choice()
    total = sum(file.path.stat().st_size for file in files if file.path)
    done = 0
    for file in files:
        if any(map(is_hidden, PurePosixPath(file.name).parts)):
            choice.leave_out(file.name, HIDDEN)
        elif file.path is None:
            choice.leave_out(file.name, file.reason)
        else:
            done += file.path.stat().st_size
            _try_file(file, open_file, choice)
            if report:
                report(done, total)
    if not choice.readers:
        reasons = choice.describe()[1:] if choice.left_out else ("It is empty.",)
        raise CorpusError(
            f"{source} has no file of songs. {' '.join(reasons)}".rstrip(),
            "Songs are read from .txt, .md, .lrc, .csv, .tsv, .jsonl, .json and .parquet files.",
        )
    return choice


def _try_file(
    file: FoundFile, open_file: Callable[[FoundFile], Corpus | None], choice: Choice
) -> None:
    """Open a file and read it; adds it to those that are taken, or to those left out."""
    has_text = False
    try:
        reader = open_file(file)
        if reader is None:
            choice.leave_out(file.name, f"of another kind{f' ({file.suffix})' * bool(file.suffix)}")
            return
        for document in reader.documents():
            for piece in document:
                has_text = has_text or bool(piece.strip())
    except (CorpusError, FetchError) as error:
        choice.leave_out(file.name, "not readable")
        choice.problems.append(str(error))
        return
    if has_text:
        choice.readers.append((file, reader))
    else:
        choice.leave_out(file.name, "without text")


class Collection:
    """The songs of several files, one file after another."""

    has_songs = True

    def __init__(self, choice: Choice) -> None:
        self._readers = choice.readers

    @property
    def left_out(self) -> int | None:
        """Rows without text that the last reading skipped; `None` without tables."""
        counts = [reader.left_out for _, reader in self._readers if reader.left_out is not None]
        return sum(counts) if counts else None

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield the songs of each file."""
        sizes = [file.path.stat().st_size for file, _ in self._readers if file.path]
        total, before = sum(sizes), 0
        for (_, reader), size in zip(self._readers, sizes, strict=True):
            yield from reader.documents()
            before += size
            if report:
                report(before, total)
