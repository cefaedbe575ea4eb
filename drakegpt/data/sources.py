"""Prepares the text of a source as a dataset: a known source, or what a user has.

A download goes to a temporary folder, a user's file is read in place; neither is loaded into
memory as a whole.

Not here: the known sources (`known_sources`), what a user's path may be (`user_files`), reading
a text from a file (`corpus`), datasets (`dataset`, `prepare`).
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from drakegpt import files
from drakegpt.data import corpus, dataset, user_files
from drakegpt.data.corpus import (
    LYRIC_COLUMN,
    CsvColumn,
    File,
    StageProgress,
    TextFile,
)
from drakegpt.data.dataset import Dataset
from drakegpt.data.encodings import Findings
from drakegpt.data.known_sources import SOURCES, Source
from drakegpt.data.metadata import Metadata
from drakegpt.data.prepare import prepare_dataset
from drakegpt.data.preprocess import SPLITS, report_stage
from drakegpt.data.tokenizers.bpe import check_vocab_size
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.data.tokenizers.load import KINDS
from drakegpt.data.user_files import Opened
from drakegpt.errors import UsageError, suggest_name
from drakegpt.wording import pluralize


@dataclass(frozen=True)
class Fetched:
    """A dataset, and what `fetch` did for it."""

    dataset: Dataset
    outcome: str  # "prepared", "already there", "changed", or "split differently"
    notes: tuple[str, ...] = ()  # remarks on the text, a sentence each
    summary: tuple[str, ...] = ()  # what was read and how, a sentence each


@dataclass(frozen=True)
class _Request:
    """What is to be prepared, and how."""

    source: str
    name: str
    text_column: str | None
    encoding: str | None
    tokenizer: str
    vocab_size: int | None
    split: str | None  # `None`: by songs for a user's text, contiguous for a known source
    dedupe: bool

    @property
    def known(self) -> Source | None:
        """The known source, if it is one."""
        return SOURCES.get(self.source)

    @property
    def provenance(self) -> str:
        """Where the text comes from."""
        return self.known.provenance if self.known else user_files.resolve_path(self.source)

    @property
    def by_songs(self) -> bool:
        """Whether the text is divided by songs, if it has any."""
        return self.split == "songs" or not (self.split or self.known)

    def matches(self, metadata: Metadata) -> bool:
        """Tell whether a dataset of a known source was prepared like this."""
        return (
            metadata.answers(self.tokenizer, self.vocab_size)
            and metadata.text_column == _record_column(self.text_column)
            and metadata.split == ("songs" if self.by_songs else "contiguous")
            and (metadata.copies_left_out is not None) == self.dedupe
        )


def fetch(
    source: str,
    *,
    name: str | None = None,
    text_column: str | None = None,
    encoding: str | None = None,
    tokenizer: str = "char",
    vocab_size: int | None = None,
    split: str | None = None,
    dedupe: bool = False,
    force: bool = False,
    progress: StageProgress | None = None,
) -> Fetched:
    """Get a known source or what a user has at a path, and prepare it as a dataset.

    A path is that of a file, a folder or a zip archive; "-" is standard input.
    `vocab_size` is for the tokenizer "bpe", whose datasets have names ending in "-bpe"
    unless a name is given; `text_column` is for tables, `encoding` for files that are
    not UTF-8. `split`: "songs", so that no song stands in both splits, or "contiguous",
    the default of the known sources. `dedupe` leaves out songs that repeat others. An
    existing dataset is reused unless `force`; a changed text or other options make a new
    version. Raises `FetchError`, `CorpusError` or `UsageError`, and leaves existing
    datasets unchanged then.
    """
    _check_not_empty(source=source, name=name, text_column=text_column, encoding=encoding)
    _check_tokenizer(tokenizer, vocab_size)
    if split is not None and split not in SPLITS:
        raise UsageError(f"There is no split '{split}'.", f"Take one of {', '.join(SPLITS)}.")
    stem = source if source in SOURCES else user_files.suggest_dataset_name(source)
    full_name = _resolve_name(
        name or stem + ("-bpe" if tokenizer == "bpe" else ""), chosen=name is not None
    )
    request = _Request(
        source, full_name, text_column, encoding, tokenizer, vocab_size, split, dedupe
    )
    existing = dataset.load(full_name) if _is_prepared(full_name) and not force else None
    if existing and existing.metadata.provenance != request.provenance:
        raise UsageError(
            f"There is a dataset '{full_name}' already, from {existing.metadata.provenance}.",
            "Give this one another --name, or replace the existing one with --force.",
        )
    if request.known:
        _check_known(request)
        if existing and request.matches(existing.metadata):
            dataset.set_default(full_name)
            return Fetched(existing, "already there", _collect_notes(existing))
    prepared, notes, summary = _prepare(request, progress)
    return Fetched(prepared, _compare(existing, prepared, request), notes, summary)


def _is_prepared(name: str) -> bool:
    return name in dataset.list_names()


def _compare(existing: Dataset | None, prepared: Dataset, request: _Request) -> str:
    """Tell what a newly prepared dataset is to the one that was there."""
    if existing is None:
        return "prepared"
    before, now = existing.metadata, prepared.metadata
    if before.version == now.version:
        return "already there"
    if not before.answers(request.tokenizer, request.vocab_size):
        return "prepared"
    same_file = before.source_sha256 == now.source_sha256
    return "split differently" if same_file and before.split != now.split else "changed"


def _check_known(request: _Request) -> None:
    """Raise `UsageError` for options that are not for a known source."""
    if request.text_column and request.known and not request.known.is_csv:
        raise UsageError(
            f"--text-column is for tables, such as CSV files, which {request.source} is not.",
            "Leave it out.",
        )
    if request.encoding:
        raise UsageError(
            f"--encoding is for files of your own; that of {request.source} is known.",
            "Leave it out.",
        )


def _prepare(
    request: _Request, progress: StageProgress | None
) -> tuple[Dataset, tuple[str, ...], tuple[str, ...]]:
    """Get a source's text and prepare it; returns the dataset, remarks and a summary."""
    with files.temporary_folder(Path(tempfile.gettempdir())) as folder:
        opened = (_open_known if request.known else _open_own)(request, folder, progress)
        if not opened.corpus.has_songs and (request.dedupe or request.split == "songs"):
            option = "--dedupe" if request.dedupe else "--split songs"
            raise UsageError(
                f"{option} is for texts of songs, which {request.source} is not.",
                "Leave it out, or divide the songs by two or more blank lines.",
            )
        prepared = prepare_dataset(
            opened.corpus,
            name=request.name,
            source=request.source,
            provenance=request.provenance,
            source_sha256=opened.sha256,
            tokenizer=request.tokenizer,
            vocab_size=request.vocab_size,
            text_column=_record_column(request.text_column, *opened.columns),
            encoding=request.encoding or "",
            by_songs=request.by_songs,
            dedupe=request.dedupe,
            progress=progress,
        )
    notes = (*opened.describe_separators(), *_collect_notes(prepared, request))
    return prepared, notes, (*opened.summary, *opened.describe_reading())


def _open_known(request: _Request, folder: Path, progress: StageProgress | None) -> Opened:
    """Download a known source and open it."""
    known = SOURCES[request.source]
    path = known.download(folder, report_stage(progress, "downloading"))
    file, findings = File(path, request.source), Findings()
    text: CsvColumn | TextFile = TextFile(file)
    if known.is_csv:
        text = CsvColumn(file, request.text_column or LYRIC_COLUMN)
    sha256 = corpus.compute_checksum(path, request.source, report_stage(progress, "reading"))
    return Opened(text, sha256, (), findings, (text,) if isinstance(text, CsvColumn) else ())


def _open_own(request: _Request, folder: Path, progress: StageProgress | None) -> Opened:
    """Open what a user named; if there is no such file, a known source may have been meant."""
    try:
        return user_files.open_text(
            request.source,
            folder,
            text_column=request.text_column,
            encoding=request.encoding,
            progress=progress,
        )
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            error.fix = f"{suggest_name(request.source, SOURCES)}{error.fix}"
        raise


def _record_column(asked: str | None, *read: str) -> str:
    """Return the column as a dataset's metadata record it: "" for the default."""
    column = (asked or (read[0] if len(read) == 1 else "")).strip()
    return "" if column == LYRIC_COLUMN else column


def _collect_notes(prepared: Dataset, request: _Request | None = None) -> tuple[str, ...]:
    """Collect remarks on a text: what was left out, copies of songs, overlap of the splits."""
    about = prepared.metadata
    rows = pluralize(about.rows_left_out or 0, "row")
    column = about.text_column or LYRIC_COLUMN
    few = (
        f"It has too few different songs ({about.songs}) to keep whole ones for validation; "
        "its last tenth is the validation split."
    )
    return tuple(
        note
        for note, applies in (
            (f"Left out: {rows} with nothing, nan or null in the column '{column}'.",
             about.rows_left_out),
            ("The text contains NUL characters, which are ordinary tokens.",
             isinstance(prepared.tokenizer, CharTokenizer)
             and "\0" in prepared.tokenizer.characters),
            (about.copies, about.copies),
            (few, request and request.by_songs and about.songs and about.split != "songs"),
            (about.overlap, about.overlap),
        )
        if applies
    )  # fmt: skip


def load_or_prepare_sample(name: str | None) -> tuple[Dataset, bool]:
    """Load the dataset `name`, by default the default one; without any, prepare the sample.

    The second value says whether the sample was prepared now.
    """
    default = dataset.get_default_name()
    wanted = (default or "sample") if name is None else name
    if wanted != "sample" or "sample" in dataset.list_names():
        return dataset.load(name), False
    prepared = fetch("sample").dataset
    dataset.set_default(default or "sample")
    return prepared, True


def _check_tokenizer(kind: str, vocab_size: int | None) -> None:
    """Raise `UsageError` if there is no such tokenizer, or not with that vocabulary."""
    if kind not in KINDS:
        raise UsageError(f"There is no tokenizer '{kind}'.", f"Take one of {', '.join(KINDS)}.")
    if vocab_size is not None:
        if kind != "bpe":
            raise UsageError(
                f"--vocab-size is for --tokenizer bpe; the vocabulary of '{kind}' is the "
                "characters of the text.",
                "Leave it out, or add --tokenizer bpe.",
            )
        check_vocab_size(vocab_size)


def _check_not_empty(**arguments: str | None) -> None:
    """Raise `UsageError` for an empty argument, as from an unset shell variable."""
    for argument, value in arguments.items():
        if value is not None and not value.strip():
            flag = "The source" if argument == "source" else f"--{argument.replace('_', '-')}"
            raise UsageError(f"{flag} is empty.", "Give it a value, or leave it out.")


def _resolve_name(name: str, *, chosen: bool) -> str:
    """Return a name that is safe as a folder; unless `chosen`, unsafe characters are replaced."""
    if not chosen:
        name = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-._") or "corpus"
    if not dataset.NAME_PATTERN.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot name a dataset.",
            "Use letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit.",
        )
    return name
