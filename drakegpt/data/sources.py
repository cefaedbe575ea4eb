"""Where texts come from: Kaggle, a URL, the package itself, or a file of the user's.

`fetch` brings a source's file, and has the text in it prepared as a dataset.
Each source is a row of `SOURCES`. A download goes to a temporary folder, a
file of the user's is read where it lies; neither comes into memory as a whole.

Not here: the kaggle client (`kaggle`), how a text is read out of a file
(`corpus`) and what a dataset is (`dataset`).
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
from drakegpt.data.corpus import CsvColumn, StageProgress, TextFile
from drakegpt.data.dataset import Dataset
from drakegpt.data.prepare import prepare_dataset
from drakegpt.data.preprocess import report_stage
from drakegpt.data.tables import SEPARATORS
from drakegpt.data.tokenizers.bpe import check_vocab_size
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.data.tokenizers.load import KINDS
from drakegpt.errors import FetchError, UsageError, is_disk_full
from drakegpt.wording import pluralize

LYRIC_COLUMN = "Lyric"
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Source:
    """A known source: how its file gets into a folder, and what kind of file that is."""

    description: str
    provenance: str
    download: Callable[[Path, kaggle.ByteProgress | None], Path]
    is_csv: bool = True
    bundled: bool = False  # with drakegpt, so that it needs no network


@dataclass(frozen=True)
class Fetched:
    """A dataset, and what `fetch` had to do for it."""

    dataset: Dataset
    outcome: str  # "prepared", "already there" or "changed"
    notes: tuple[str, ...] = ()  # what one should know of the text, a sentence each


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

    `vocab_size` is for the tokenizer "bpe", whose datasets have names that end
    in "-bpe" unless a name is given; `text_column` is for CSVs. A dataset that is
    there already is left alone unless `force`; a user's file that has changed
    since, another column or another vocabulary becomes a new version. Raises
    `FetchError`, `CorpusError` or `UsageError`; nothing that was there before is
    touched then.
    """
    known = SOURCES.get(source)
    _check_given(source=source, name=name, text_column=text_column)
    _check_tokenizer(tokenizer, vocab_size)
    own_name = (source if known else Path(source).stem) + ("-bpe" if tokenizer == "bpe" else "")
    name = _checked_name(name or own_name, chosen=name is not None)
    existing = dataset.load(name) if name in dataset.list_names() and not force else None
    provenance = known.provenance if known else _place(source)
    if existing and existing.metadata.provenance != provenance:
        raise UsageError(
            f"There is a dataset '{name}' already, from {existing.metadata.provenance}.",
            "Give this one another --name, or replace that one with --force.",
        )
    is_csv = known.is_csv if known else Path(source).suffix.lower() == ".csv"
    if text_column and not is_csv:
        raise UsageError(f"--text-column is for CSV files, which {source} is not.", "Leave it out.")
    column = (text_column or LYRIC_COLUMN).strip() if is_csv else None
    as_asked = bool(existing and existing.metadata.answers(tokenizer, vocab_size))
    if known and existing and as_asked and existing.metadata.text_column == _to_note(column):
        dataset.set_default(name)
        return Fetched(existing, "already there", _notes(existing))
    prepared, notes = _prepare(source, name, column, tokenizer, vocab_size, progress)
    if existing is None:
        return Fetched(prepared, "prepared", notes)
    if existing.metadata.version == prepared.metadata.version:
        return Fetched(prepared, "already there", notes)
    return Fetched(prepared, "changed" if as_asked else "prepared", notes)


def _prepare(
    source: str,
    name: str,
    column: str | None,
    tokenizer: str,
    vocab_size: int | None,
    progress: StageProgress | None,
) -> tuple[Dataset, tuple[str, ...]]:
    """Bring a source's file and make a dataset of it: of one `column`, if it is a CSV."""
    known = SOURCES.get(source)
    with files.temporary_folder(Path(tempfile.gettempdir())) as folder:
        if known:
            path = known.download(folder, _downloading(progress))
        else:
            path = _own_file(Path(source), folder)
        text = CsvColumn(path, column, source) if column else TextFile(path, source)
        prepared = prepare_dataset(
            text,
            name=name,
            source=source,
            provenance=known.provenance if known else _place(source),
            source_sha256=corpus.compute_checksum(path, source, report_stage(progress, "reading")),
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            text_column=_to_note(column),
            progress=progress,
        )
    notes = _notes(prepared)
    if isinstance(text, CsvColumn) and text.separator != ",":
        notes = (f"{source} has its columns separated by {SEPARATORS[text.separator]}.", *notes)
    return prepared, notes


def _to_note(column: str | None) -> str:
    """What a dataset's metadata say of the column it was read from."""
    return "" if column in (None, LYRIC_COLUMN) else str(column)


def _notes(prepared: Dataset) -> tuple[str, ...]:
    """What one should know of a text, if there is anything."""
    left_out = prepared.metadata.rows_left_out
    rows = pluralize(left_out or 0, "row")
    column = prepared.metadata.text_column or LYRIC_COLUMN
    return tuple(
        note
        for note, worth_telling in (
            (f"Left out: {rows} with nothing, nan or null in the column '{column}'.", left_out),
            ("The text has NUL characters, which are tokens like any other.",
             isinstance(prepared.tokenizer, CharTokenizer)
             and "\0" in prepared.tokenizer.characters),
            (prepared.metadata.overlap, prepared.metadata.overlap),
        )
        if worth_telling
    )  # fmt: skip


def load_or_prepare_sample(name: str | None) -> tuple[Dataset, bool]:
    """The dataset of that name or the default one; when there is none at all, the sample.

    The second value says whether the sample has just been prepared for this.
    """
    default = dataset.get_default_name()
    wanted = (default or "sample") if name is None else name
    if wanted != "sample" or "sample" in dataset.list_names():
        return dataset.load(name), False
    prepared = fetch("sample").dataset
    dataset.set_default(default or "sample")
    return prepared, True


def _downloading(progress: StageProgress | None) -> kaggle.ByteProgress | None:
    return (lambda done, total: progress("downloading", done, total)) if progress else None


def _download_drake(folder: Path, progress: kaggle.ByteProgress | None) -> Path:
    try:
        return kaggle.download_member(
            "deepshah16/song-lyrics-dataset", "csv/Drake.csv", folder, progress
        )
    except FetchError as error:
        without = "`drakegpt data fetch sample` needs no network."
        raise FetchError(error.problem, f"{error.fix} Meanwhile, {without}") from error


def _copy_sample(folder: Path, _: kaggle.ByteProgress | None) -> Path:
    path = folder / "sample_lyrics.csv"
    path.write_bytes((resources.files("drakegpt.data") / path.name).read_bytes())
    return path


def download_url(
    url: str, sha256: str, target: Path, progress: kaggle.ByteProgress | None = None
) -> Path:
    """Write the bytes at `url` to the file `target` and return it.

    Raises a `FetchError` unless their checksum is `sha256`.
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
            "The download was cut or the file has changed; try again, or use a file of your own.",
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


def _place(source: str) -> str:
    """Where a file of the user's lies; a pipe, which is another one each time, has its name."""
    path = Path(source).absolute()
    return str(path if path.is_relative_to("/dev") else path.resolve())


def _own_file(path: Path, folder: Path) -> Path:
    """Where to read a file of the user's again and again: where it lies, or a copy of a pipe.

    What a path under /dev gives the second time depends on the system.
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
            f"Known sources: {', '.join(SOURCES)}; or give the path of a .txt or .csv file.",
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
    """Raise `UsageError` if there is no such tokenizer."""
    if kind not in KINDS:
        raise UsageError(f"There is no tokenizer '{kind}'.", f"Take one of {', '.join(KINDS)}.")
    if vocab_size is not None:
        if kind != "bpe":
            raise UsageError(
                f"--vocab-size is for --tokenizer bpe; the vocabulary of '{kind}' is the text's "
                "characters.",
                "Leave it out, or add --tokenizer bpe.",
            )
        check_vocab_size(vocab_size)


def _check_given(**given: str | None) -> None:
    """Raise `UsageError` for what is given but empty, such as a variable that was never set."""
    for what, value in given.items():
        if value is not None and not value.strip():
            flag = "The source" if what == "source" else f"--{what.replace('_', '-')}"
            raise UsageError(f"{flag} is empty.", "Give it a value, or leave it out.")


def _checked_name(name: str, *, chosen: bool) -> str:
    """A name that is safe as a folder everywhere; a file's own name is made so."""
    if not chosen:
        name = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-._") or "corpus"
    if not dataset.NAME_PATTERN.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot name a dataset.",
            "Use letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit.",
        )
    return name
