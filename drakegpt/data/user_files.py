"""Open what a user names: a file, a folder, a zip archive, or standard input, as a corpus.

The end of a file's name tells its kind; what is in it is read by `corpus`, `song_files` and
`records`. Files are read in place; what can be read only once is copied first.
"""

import hashlib
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from drakegpt import home
from drakegpt.data import archives, collection
from drakegpt.data.collection import Collection, FoundFile
from drakegpt.data.corpus import (
    CHUNK,
    ByteProgress,
    Corpus,
    CsvColumn,
    File,
    StageProgress,
    TextFile,
    compute_checksum,
    read_chunks,
)
from drakegpt.data.encodings import Findings, check_encoding, choose_encoding
from drakegpt.data.preprocess import report_stage
from drakegpt.data.records import JsonRecords, ParquetRecords, Records
from drakegpt.data.song_files import DividedText, LrcFile, SongFile, is_divided
from drakegpt.data.tables import SEPARATORS
from drakegpt.errors import FetchError, UsageError, is_disk_full
from drakegpt.wording import pluralize

STANDARD_INPUT = "-"
TEXTS = (".txt", ".md", ".lrc")  # each a song, in a folder
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
DIVIDED = ("Two or more blank lines divide it into songs.",)
NAMED_ENCODINGS = {"utf-8": "UTF-8", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16",
                   "utf-32-le": "UTF-32", "utf-32-be": "UTF-32"}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """A user's text, ready to be read."""

    corpus: Corpus
    sha256: str  # of the file, or of the names and checksums of several
    summary: tuple[str, ...]  # what was taken and left out, a sentence each
    findings: Findings
    tables: tuple[CsvColumn | Records, ...]  # those among the files

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that tables are read from, each once."""
        return tuple(dict.fromkeys(table.column for table in self.tables if table.column))

    def describe_reading(self) -> tuple[str, ...]:
        """Describe how the text was read, a sentence each; complete after a reading."""
        named = Counter(NAMED_ENCODINGS.get(e, e) for e in self.findings.encodings.values())
        several = len(self.findings.encodings) > 1
        counts = [
            f"{name} ({pluralize(count, 'file')})" if several else name
            for name, count in named.most_common()
        ]
        sentences = [f"Encoding: {', '.join(counts)}."] if counts else []
        for found, what in (
            (self.findings.doubled_line_ends, r"had line ends \r\r\n, each read as one"),
            (self.findings.replaced, "had halves of characters, which are U+FFFD now"),
        ):
            if found:
                sentences.append(f"{pluralize(len(found), 'file')} {what}.")
        return tuple(sentences)

    def describe_separators(self) -> tuple[str, ...]:
        """Name the separators of CSV files other than commas, a sentence each."""
        return tuple(
            f"{table.source} has its columns separated by {SEPARATORS[table.separator]}."
            for table in self.tables
            if isinstance(table, CsvColumn) and table.separator not in (",", table.expected)
        )


def resolve_path(source: str) -> str:
    """Resolve the path of a user's file; a pipe, whose target differs each time, keeps its name."""
    if source == STANDARD_INPUT:
        return "standard input"
    path = home.expand_user(Path(source)).absolute()
    return str(path if path.is_relative_to("/dev") else path.resolve())


def suggest_dataset_name(source: str) -> str:
    """Return the name that a user's text gets unless another is chosen."""
    if source == STANDARD_INPUT:
        return "stdin"
    path = Path(resolve_path(source))
    return path.name if path.is_dir() else Path(source).stem


def open_text(
    source: str,
    folder: Path,
    *,
    text_column: str | None = None,
    encoding: str | None = None,
    progress: StageProgress | None = None,
) -> Opened:
    """Open a path, or standard input for "-".

    `folder`: for copies and unpacked files, as long as the text is read. `text_column` is for
    tables, `encoding` for files that are neither UTF-8 nor have a byte-order mark. Raises
    `FetchError`, `CorpusError` or `UsageError`.
    """
    how = _Opener(text_column, check_encoding(encoding) if encoding else None, Findings(), [])
    report = report_stage(progress, "reading")
    path = home.expand_user(Path(source))
    if source == STANDARD_INPUT:
        file = _copy_standard_input(folder, text_column)
    elif path.is_dir():
        return how.open_all(collection.list_folder(path, source), source, report)
    else:
        path = find_file(path, folder)
        if Path(source).suffix.lower() == ".zip":
            unpacked = archives.unpack(path, source, folder, report_stage(progress, "unpacking"))
            files = [FoundFile(each.name, each.path, each.reason) for each in unpacked]
            return how.open_all(files, source, report)
        file = FoundFile(source, path)
    how.check_encoding_used(is_parquet=file.suffix == ".parquet")
    how.check_column_used(source, is_table=file.suffix in TABLES)
    corpus = how.open(file, report)
    summary = DIVIDED if isinstance(corpus, DividedText) else ()
    sha256 = compute_checksum(file.path or path, source, report)
    return Opened(corpus, sha256, summary, how.findings, tuple(how.tables))


@dataclass
class _Opener:
    """Opens files of all kinds with the same options."""

    text_column: str | None
    encoding: str | None
    findings: Findings
    tables: list[CsvColumn | Records]

    def open_all(self, files: list[FoundFile], source: str, report: ByteProgress | None) -> Opened:
        """Open the files of a folder or an archive."""
        choice = collection.choose_files(files, self._open_among_others, source, report)
        readers = dict(choice.readers)
        corpus: Corpus = Collection(choice)
        summary = choice.describe()
        self.tables = [each for each in readers.values() if isinstance(each, CsvColumn | Records)]
        self.check_encoding_used(is_parquet=all(file.suffix == ".parquet" for file in readers))
        self.check_column_used(source, is_table=bool(self.tables))
        digest = hashlib.sha256()
        for file in readers:
            if file.path:
                checksum = compute_checksum(file.path, file.name)
                digest.update(f"{file.name}\0{checksum}\n".encode(errors="surrogateescape"))
        self.findings.keep({file.name for file in readers})
        if len(readers) == 1 and not self.tables:  # as if it were named itself
            corpus = self.open(next(iter(readers)), report)
            summary += DIVIDED if isinstance(corpus, DividedText) else ()
        return Opened(corpus, digest.hexdigest(), summary, self.findings, tuple(self.tables))

    def _open_among_others(self, file: FoundFile) -> Corpus | None:
        """Open one of several files: a text is one song; `None` for another kind of file."""
        if file.suffix in TEXTS and file.suffix != ".lrc":
            return SongFile(self._describe_file(file), file.title)
        return self.open(file) if file.suffix in (*TEXTS, *TABLES) else None

    def open(self, file: FoundFile, report: ByteProgress | None = None) -> Corpus:
        """Open a file that stands for itself; one of unknown kind is a text."""
        described = self._describe_file(file)
        if file.suffix in TABLES:
            table = self._open_table(described, file.suffix)
            next(table.documents(), None)  # finds the column
            self.tables.append(table)
            return table
        if file.suffix == ".lrc":
            return LrcFile(described, file.title)
        return DividedText(described) if is_divided(described, report) else TextFile(described)

    def _open_table(self, file: File, suffix: str) -> CsvColumn | Records:
        if suffix in (".csv", ".tsv"):
            return CsvColumn(file, self.text_column, "\t" if suffix == ".tsv" else None)
        kind = ParquetRecords if suffix == ".parquet" else JsonRecords
        return kind(file, self.text_column)

    def _describe_file(self, file: FoundFile) -> File:
        path = file.path or Path(file.name)
        encoding = self.encoding
        if encoding and file.suffix != ".parquet":
            encoding = choose_encoding(read_chunks(path, file.name), encoding)
        return File(path, file.name, None if encoding == "utf-8" else encoding, self.findings)

    def check_encoding_used(self, *, is_parquet: bool) -> None:
        """Raise `UsageError` for an encoding that is not for these files."""
        if self.encoding and is_parquet:
            raise UsageError("--encoding is not for Parquet files.", "Leave it out.")

    def check_column_used(self, source: str, *, is_table: bool) -> None:
        """Raise `UsageError` for a column where there is no table."""
        if self.text_column and not is_table:
            raise UsageError(
                f"--text-column is for tables, such as CSV files, which {source} is not.",
                "Leave it out.",
            )


def find_file(path: Path, folder: Path) -> Path:
    """Return a path that can be read repeatedly: a user's file, or a pipe's copy in `folder`.

    Whether a path under /dev can be read twice depends on the system.
    """
    try:
        with path.open("rb") as file:
            if path.is_file() and Path("/dev") not in path.parents:
                return path
            return _copy(file, folder)
    except FileNotFoundError as error:
        raise UsageError(
            f"'{path}' is neither a known source nor a file.",
            "`drakegpt data list` shows the known sources; or give the path of a file or folder.",
        ) from error
    except OSError as error:
        raise FetchError(
            f"{path} cannot be read: {error.strerror}.", "Name a file you can open."
        ) from error


def _copy_standard_input(folder: Path, text_column: str | None) -> FoundFile:
    """Copy standard input to a file: a text, or if a column is named, a table of either kind."""
    stream: Any = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise UsageError("There is no standard input to read.", "Give the path of a file.")
    try:
        path = _copy(stream, folder)
    except OSError as error:
        raise FetchError(
            f"Standard input cannot be read: {error.strerror}.", "Give the path of a file."
        ) from error
    kind = ".txt"
    if text_column:
        head = next(read_chunks(path, STANDARD_INPUT), b"").lstrip()
        kind = ".jsonl" if head.startswith((b"{", b"[")) else ".csv"
    return FoundFile("standard input", path, kind=kind)


def _copy(file: IO[bytes], folder: Path) -> Path:
    """Copy a stream to a file in `folder`; raises `FetchError` if the disk is full."""
    target = folder / "copy"
    try:
        with target.open("wb") as copy:
            shutil.copyfileobj(file, copy, CHUNK)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise FetchError(
            f"The disk is full at {folder}.", "Free some space, then try again."
        ) from error
    return target
