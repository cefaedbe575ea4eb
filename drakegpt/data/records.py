"""Songs in records: JSON lines, JSON arrays and Parquet files, with the text in one field of each.

A field inside another is named with dots, as in `song.lyrics`. A record without text there is
left out and counted.

Not here: CSV (`corpus`, `tables`).
"""

import importlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from drakegpt.data.corpus import (
    ByteProgress,
    Document,
    File,
    choose_column,
    describe_missing_column,
    peek_first_line,
)
from drakegpt.data.encodings import normalize_line_ends
from drakegpt.errors import CorpusError, is_out_of_memory, shorten, show_value
from drakegpt.files import parse_json

MAX_LINE = 64_000_000  # characters of a line, and of a JSON array, which are held in memory
ROWS = 512  # of a Parquet file, held together
SURROGATES = re.compile("[\ud800-\udfff]")  # halves of characters, which JSON may hold
ABSENT = object()


class Records:
    """The records of a file; each that has text in the column is a song."""

    has_songs = True

    def __init__(self, file: File, column: str | None = None) -> None:
        """`column`: by default the usual one."""
        self._file = file
        self.column = column.strip() if column else None  # the one that is read, if it is known
        self.left_out: int | None = None

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield the songs; sets `column`, and at the end `left_out`."""
        left_out, present, names = 0, False, None
        for place, record in self._records(report):
            if names is None:
                names = _list_fields(record)
                self.column = self.column or choose_column(list(record) if names else ())
            value, holder = self._find(record, place)
            present = present or value is not ABSENT
            text = self._read_text(value, place)
            if text.strip():
                yield Document([text], _find_name(holder, record, "title"),
                               _find_name(holder, record, "artist"))  # fmt: skip
            else:
                left_out += 1
        if names is not None and not present:
            raise describe_missing_column(self._file.name, str(self.column), names)
        self.left_out = left_out

    def _records(self, report: ByteProgress | None) -> Iterator[tuple[str, Any]]:
        """Yield each record, with its place in messages."""
        raise NotImplementedError

    def _find(self, record: Any, place: str) -> tuple[Any, Mapping[str, Any]]:
        """Find the text's value, and the object that holds it."""
        if isinstance(record, str):
            return record, {}
        if not isinstance(record, dict):
            raise self._describe_error(f"{place} is {show_value(record)}, not an object")
        column = str(self.column)
        if column in record:
            return record[column], record
        value: Any = record
        holder: Mapping[str, Any] = record
        for name in column.split("."):
            if not isinstance(value, dict) or name not in value:
                return ABSENT, record
            holder, value = value, value[name]
        return value, holder

    def _read_text(self, value: Any, place: str) -> str:
        """Return a value as text; "" for what stands for no text."""
        if value is ABSENT or value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value)  # a song as a list of its lines
        if not isinstance(value, str):
            raise self._describe_error(
                f"{place} has {show_value(value)} in '{self.column}', not text"
            )
        text = normalize_line_ends(value)
        if SURROGATES.search(text):
            self._file.findings.replaced.add(self._file.name)
            text = SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
        return text

    def _describe_error(self, what: str) -> CorpusError:
        return CorpusError(
            f"{self._file.name} cannot be read: {what}.",
            "Fix that place, name another --text-column, or save the text as a .txt file.",
        )


class JsonRecords(Records):
    """JSON lines, or one JSON array: objects with the text in a field, or strings."""

    def _records(self, report: ByteProgress | None) -> Iterator[tuple[str, Any]]:
        for number, line in self._lines(self._file.decode(report)):
            if line.strip():
                yield f"line {number}", self._parse(line, f"line {number} is not JSON")

    def _lines(self, pieces: Iterator[str]) -> Iterator[tuple[int, str]]:
        """Yield the lines with their numbers; those of an array as JSON lines."""
        first, pieces = peek_first_line(pieces)
        if first.lstrip().startswith("["):
            yield from self._read_array(pieces)
            return
        number, held = 1, list[str]()
        for piece in pieces:
            *lines, last = piece.split("\n")
            for line in lines:
                held.append(line)
                self._check_length(held, f"line {number}")
                yield number, "".join(held)
                number, held = number + 1, []
            held.append(last)
            self._check_length(held, f"line {number}")
        yield number, "".join(held)

    def _read_array(self, pieces: Iterator[str]) -> Iterator[tuple[int, str]]:
        """Yield the elements of an array, which is held in memory."""
        held = list[str]()
        for piece in pieces:
            held.append(piece)
            self._check_length(held, "its array")
        for number, element in enumerate(self._parse("".join(held), "it is not JSON"), start=1):
            yield number, json.dumps(element)

    def _parse(self, text: str, problem: str) -> Any:
        try:
            return parse_json(text)
        except ValueError as error:
            raise CorpusError(
                f"{self._file.name} cannot be read: {problem} ({error}).",
                "Write one JSON object on each line, as `jq -c` does, or a list of objects.",
            ) from error

    def _check_length(self, held: list[str], place: str) -> None:
        if sum(map(len, held)) > MAX_LINE:
            raise CorpusError(
                f"{self._file.name} cannot be read: {place} has more than {MAX_LINE:,} characters.",
                "Write one JSON object on each line, as `jq -c '.[]'` does.",
            )


class ParquetRecords(Records):
    """The rows of a Parquet file; reading them needs pyarrow, which drakegpt does not require."""

    def _records(self, report: ByteProgress | None) -> Iterator[tuple[str, Any]]:
        parquet = _import_pyarrow(self._file.name)
        size, done = self._file.path.stat().st_size, 0
        try:
            table = parquet.ParquetFile(self._file.path)
            rows = max(1, table.metadata.num_rows)
            for batch in table.iter_batches(batch_size=ROWS):
                for record in batch.to_pylist():
                    done += 1
                    yield f"row {done}", record
                if report:
                    report(size * done // rows, size)
        except (CorpusError, OSError):
            raise
        except Exception as error:  # pyarrow raises kinds of its own
            if is_out_of_memory(error) or not type(error).__module__.startswith("pyarrow"):
                raise
            raise CorpusError(
                f"{self._file.name} is not a readable Parquet file ({shorten(str(error))}).",
                "Write it again, or save it as .csv or .jsonl.",
            ) from error


def _import_pyarrow(source: str) -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise CorpusError(
            f"{source} is a Parquet file, which needs pyarrow to be read; it is not installed.",
            "Install it (`python -m pip install pyarrow`), or save the table as .csv or .jsonl.",
        ) from error


def _list_fields(record: Any, prefix: str = "") -> list[str]:
    """List the names of a record's fields, and of those inside them, with dots."""
    if not isinstance(record, dict):
        return []
    names: list[str] = []
    for name, value in record.items():
        inner = _list_fields(value, f"{prefix}{name}.") if prefix.count(".") < 3 else []
        names += inner or [f"{prefix}{name}"]
    return names


def _find_name(holder: Mapping[str, Any], record: Any, name: str) -> str:
    """Find a title or an artist beside the text, or else at the top of its record; "" if none."""
    for place in (holder, record):
        for key, value in place.items() if isinstance(place, Mapping) else ():
            if key.lower() == name and isinstance(value, str) and value.strip():
                return shorten(" ".join(SURROGATES.sub("\ufffd", value).split()))
    return ""
