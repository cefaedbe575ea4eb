"""Sources of texts: Kaggle, a URL, the package itself, or a user's file.

`fetch` gets a source's file and prepares its text as a dataset. Each source is an entry of
`SOURCES`. A download goes to a temporary folder, a user's file is read in place; neither is
loaded into memory as a whole.

Not here: the kaggle client (`kaggle`), reading a text from a file (`corpus`), datasets
(`dataset`, `prepare`).
"""

import hashlib
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path

from drakegpt import files, home
from drakegpt.data import corpus, dataset, kaggle
from drakegpt.data.corpus import ByteProgress, CsvColumn, StageProgress, TextFile
from drakegpt.data.dataset import Dataset
from drakegpt.data.prepare import prepare_dataset
from drakegpt.data.preprocess import report_stage
from drakegpt.data.tables import SEPARATORS
from drakegpt.data.tokenizers.bpe import check_vocab_size
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.data.tokenizers.load import KINDS
from drakegpt.errors import FetchError, UsageError, is_disk_full, suggest_name
from drakegpt.wording import pluralize

LYRIC_COLUMN = "Lyric"
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Source:
    """A known source: how to get its file into a folder, and the kind of file."""

    description: str
    provenance: str
    download: Callable[[Path, ByteProgress | None], Path]
    is_csv: bool = True
    bundled: bool = False  # with drakegpt, so that it needs no network


@dataclass(frozen=True)
class Fetched:
    """A dataset, and what `fetch` did for it."""

    dataset: Dataset
    outcome: str  # "prepared", "already there" or "changed"
    notes: tuple[str, ...] = ()  # remarks on the text, a sentence each


def fetch(
    source: str,
    *,
    name: str | None = None,
    text_column: str | None = None,
    tokenizer: str = "char",
    vocab_size: int | None = None,
    force: bool = False,
    progress: StageProgress | None = None,
) -> Fetched:
    """Fetch a known source or a user's file and prepare it as a dataset.

    `vocab_size` is for the tokenizer "bpe", whose datasets have names ending in "-bpe"
    unless a name is given; `text_column` is for CSVs. An existing dataset is reused unless
    `force`; a changed file, another column or another vocabulary becomes a new version.
    Raises `FetchError`, `CorpusError` or `UsageError`, and leaves existing datasets
    unchanged then.
    """
    known = SOURCES.get(source)
    _check_not_empty(source=source, name=name, text_column=text_column)
    _check_tokenizer(tokenizer, vocab_size)
    default = (source if known else Path(source).stem) + ("-bpe" if tokenizer == "bpe" else "")
    name = _resolve_name(name or default, chosen=name is not None)
    existing = dataset.load(name) if name in dataset.list_names() and not force else None
    provenance = known.provenance if known else _resolve_path(source)
    if existing and existing.metadata.provenance != provenance:
        raise UsageError(
            f"There is a dataset '{name}' already, from {existing.metadata.provenance}.",
            "Give this one another --name, or replace the existing one with --force.",
        )
    is_csv = known.is_csv if known else Path(source).suffix.lower() == ".csv"
    if text_column and not is_csv:
        raise UsageError(f"--text-column is for CSV files, which {source} is not.", "Leave it out.")
    column = (text_column or LYRIC_COLUMN).strip() if is_csv else None
    matches = bool(existing and existing.metadata.answers(tokenizer, vocab_size))
    if known and existing and matches and existing.metadata.text_column == _record_column(column):
        dataset.set_default(name)
        return Fetched(existing, "already there", _collect_notes(existing))
    prepared, notes = _prepare(source, name, column, tokenizer, vocab_size, progress)
    if existing is None:
        return Fetched(prepared, "prepared", notes)
    if existing.metadata.version == prepared.metadata.version:
        return Fetched(prepared, "already there", notes)
    return Fetched(prepared, "changed" if matches else "prepared", notes)


def _prepare(
    source: str,
    name: str,
    column: str | None,
    tokenizer: str,
    vocab_size: int | None,
    progress: StageProgress | None,
) -> tuple[Dataset, tuple[str, ...]]:
    """Get a source's file and prepare it as a dataset, from one `column` if it is a CSV."""
    known = SOURCES.get(source)
    with files.temporary_folder(Path(tempfile.gettempdir())) as folder:
        if known:
            path = known.download(folder, report_stage(progress, "downloading"))
        else:
            path = _find_file(Path(source), folder)
        text = CsvColumn(path, column, source) if column else TextFile(path, source)
        prepared = prepare_dataset(
            text,
            name=name,
            source=source,
            provenance=known.provenance if known else _resolve_path(source),
            source_sha256=corpus.compute_checksum(path, source, report_stage(progress, "reading")),
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            text_column=_record_column(column),
            progress=progress,
        )
    notes = _collect_notes(prepared)
    if isinstance(text, CsvColumn) and text.separator != ",":
        notes = (f"{source} has its columns separated by {SEPARATORS[text.separator]}.", *notes)
    return prepared, notes


def _record_column(column: str | None) -> str:
    """Return the column as a dataset's metadata record it: "" for the default."""
    return "" if column in (None, LYRIC_COLUMN) else str(column)


def _collect_notes(prepared: Dataset) -> tuple[str, ...]:
    """Collect remarks on a text: rows left out, NUL characters, overlap of the splits."""
    left_out = prepared.metadata.rows_left_out
    rows = pluralize(left_out or 0, "row")
    column = prepared.metadata.text_column or LYRIC_COLUMN
    return tuple(
        note
        for note, applies in (
            (f"Left out: {rows} with nothing, nan or null in the column '{column}'.", left_out),
            ("The text contains NUL characters, which are ordinary tokens.",
             isinstance(prepared.tokenizer, CharTokenizer)
             and "\0" in prepared.tokenizer.characters),
            (prepared.metadata.overlap, prepared.metadata.overlap),
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


def _download_drake(folder: Path, progress: ByteProgress | None) -> Path:
    try:
        return kaggle.download_member(
            "deepshah16/song-lyrics-dataset", "csv/Drake.csv", folder, progress
        )
    except FetchError as error:
        without = "`drakegpt data fetch sample` needs no network."
        raise FetchError(error.problem, f"{error.fix} Meanwhile, {without}") from error


def _copy_sample(folder: Path, _: ByteProgress | None) -> Path:
    path = folder / "sample_lyrics.csv"
    path.write_bytes((resources.files("drakegpt.data") / path.name).read_bytes())
    return path


def download_url(url: str, sha256: str, target: Path, progress: ByteProgress | None = None) -> Path:
    """Download `url` to the file `target`; returns `target`.

    Raises `FetchError` unless the checksum is `sha256`.
    """
    by_hand = f"Download {url} in a browser and run `drakegpt data fetch FILE --name NAME`."
    digest = hashlib.sha256()
    try:
        with (
            target.open("wb") as file,
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
        ):
            total = int(response.headers.get("Content-Length") or 0) or None
            while chunk := response.read(1 << 16):
                digest.update(chunk)
                file.write(chunk)
                if progress:
                    progress(file.tell(), total)
            length = file.tell()
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"{url} answered {error.code} {error.reason}.", by_hand) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise FetchError(
            f"{url} could not be reached: {reason}.", f"Check the network, or: {by_hand}"
        ) from error
    found = digest.hexdigest()
    if found != sha256:
        raise FetchError(
            f"{url} sent {pluralize(length, 'byte')} with checksum {found[:12]}…, "
            f"not the expected {sha256[:12]}….",
            "The download was incomplete or the file has changed; try again, or use your own file.",
        )
    return target


SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

SOURCES: dict[str, Source] = {
    "drake": Source(
        "Song lyrics from Kaggle, as the original project used them",
        "https://www.kaggle.com/datasets/deepshah16/song-lyrics-dataset, csv/Drake.csv",
        _download_drake,
    ),
    "shakespeare": Source(
        "Tiny Shakespeare, 1.1 million characters of plays",
        SHAKESPEARE_URL,
        lambda folder, progress: download_url(
            SHAKESPEARE_URL, SHAKESPEARE_SHA256, folder / "input.txt", progress
        ),
        is_csv=False,
    ),
    "sample": Source(
        "Original lyrics written for this program; bundled, needs no network",
        "drakegpt/data/sample_lyrics.csv",
        _copy_sample,
        bundled=True,
    ),
}


def _resolve_path(source: str) -> str:
    """Resolve the path of a user's file; a pipe, whose target differs each time, keeps its name."""
    path = Path(source).absolute()
    return str(path if path.is_relative_to("/dev") else path.resolve())


def _find_file(path: Path, folder: Path) -> Path:
    """Return a path that can be read repeatedly: a user's file, or a pipe's copy in `folder`.

    Whether a path under /dev can be read twice depends on the system.
    """
    try:
        path = home.expand_user(path)
        with path.open("rb") as file:
            if path.is_file() and Path("/dev") not in path.parents:
                return path
            with (folder / "copy").open("wb") as copy:
                shutil.copyfileobj(file, copy)
                return folder / "copy"
    except FileNotFoundError as error:
        raise UsageError(
            f"'{path}' is neither a known source nor a file.",
            f"{suggest_name(str(path), SOURCES)}Known sources: {', '.join(SOURCES)}; or give the "
            "path of a .txt or .csv file.",
        ) from error
    except OSError as error:
        if is_disk_full(error):
            raise FetchError(
                f"The disk is full at {folder}.", "Free some space, then try again."
            ) from error
        raise FetchError(
            f"{path} cannot be read: {error.strerror}.", "Name a .txt or .csv file you can open."
        ) from error


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
