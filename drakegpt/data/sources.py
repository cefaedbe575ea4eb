"""Where texts come from: Kaggle, a URL, the package itself, or a file of the user's.

`fetch` brings a source's bytes, reads the text out of them, and has it prepared
as a dataset. Each source is a row of `SOURCES`; all end in the same two
readers, one for plain text and one for a column of a CSV.

Not here: the kaggle client (`kaggle`) and what a dataset is (`dataset`).
"""

import csv
import hashlib
import io
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path

from drakegpt.data import dataset, kaggle
from drakegpt.data.dataset import Dataset
from drakegpt.data.kaggle import Progress
from drakegpt.errors import CorpusError, FetchError, UsageError

LYRIC_COLUMN = "Lyric"
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Source:
    """A known source: how to get its file's bytes and what kind of file that is."""

    description: str
    provenance: str
    download: Callable[[Progress | None], bytes]
    is_csv: bool = True


@dataclass(frozen=True)
class Fetched:
    """A dataset, and what `fetch` had to do for it."""

    dataset: Dataset
    outcome: str  # "prepared", "already there" or "changed"


def fetch(
    source: str,
    *,
    name: str | None = None,
    text_column: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Fetched:
    """Fetch a known source or a user's file and prepare it as a dataset.

    A dataset that is there already is left alone unless `force`; a user's file
    that has changed since becomes a new version. Raises `FetchError`,
    `CorpusError` or `UsageError`; nothing that was there before is touched then.
    """
    known = SOURCES.get(source)
    chosen = bool(name)
    name = _checked_name(name or (source if known else Path(source).stem), chosen=chosen)
    existing = dataset.load(name) if name in dataset.names() and not force else None
    provenance = known.provenance if known else str(Path(source).resolve())
    if existing and not chosen and existing.metadata.provenance != provenance:
        raise UsageError(
            f"There is a dataset '{name}' already, from {existing.metadata.provenance}.",
            "Give this one another --name, or replace that one with --force.",
        )
    if known and existing and existing.metadata.source == source:
        dataset.make_default(name)
        return Fetched(existing, "already there")
    is_csv = known.is_csv if known else Path(source).suffix.lower() == ".csv"
    if text_column and (known or not is_csv):
        raise UsageError(
            f"--text-column is for CSV files of your own, which {source} is not.", "Leave it out."
        )
    raw = known.download(progress) if known else _read_file(Path(source))
    text, songs = _decode(raw, source), None
    if is_csv:
        text, songs = _read_csv(text, text_column or LYRIC_COLUMN, source)
    if not text.strip():
        raise CorpusError(f"{source} holds no text.", "Name a file with some text in it.")
    prepared = dataset.prepare(
        text,
        name=name,
        source=source,
        provenance=provenance,
        source_sha256=hashlib.sha256(raw).hexdigest(),
        songs=songs,
    )
    if existing is None:
        return Fetched(prepared, "prepared")
    same = existing.metadata.version == prepared.metadata.version
    return Fetched(prepared, "already there" if same else "changed")


def dataset_or_sample(name: str | None) -> tuple[Dataset, bool]:
    """The dataset of that name or the default one; when there is none at all, the sample.

    The second value says whether the sample has just been prepared for this.
    """
    default = dataset.default_name()
    if (name or default or "sample") != "sample" or "sample" in dataset.names():
        return dataset.load(name), False
    prepared = fetch("sample").dataset
    dataset.make_default(default or "sample")
    return prepared, True


def _download_drake(progress: Progress | None) -> bytes:
    with tempfile.TemporaryDirectory(prefix="drakegpt-") as folder:
        try:
            path = kaggle.download_member(
                "deepshah16/song-lyrics-dataset", "csv/Drake.csv", Path(folder), progress
            )
        except FetchError as error:
            without = "`drakegpt data fetch sample` needs no network."
            raise FetchError(error.problem, f"{error.fix} Meanwhile, {without}") from error
        return path.read_bytes()


def download_url(url: str, sha256: str, progress: Progress | None) -> bytes:
    """The bytes at `url`, refused with a `FetchError` unless their checksum is `sha256`."""
    by_hand = f"Download {url} in a browser and run `drakegpt data fetch FILE --name NAME`."
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            total = int(response.headers.get("Content-Length") or 0) or None
            body = bytearray()
            while chunk := response.read(1 << 16):
                body += chunk
                if progress:
                    progress(len(body), total)
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"{url} answered {error.code} {error.reason}.", by_hand) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise FetchError(
            f"{url} could not be reached: {reason}.", f"Check the network, or: {by_hand}"
        ) from error
    found = hashlib.sha256(body).hexdigest()
    if found != sha256:
        raise FetchError(
            f"{url} sent {len(body):,} bytes with checksum {found[:12]}…, "
            f"not the expected {sha256[:12]}….",
            "The download was cut or the file has changed; try again, or use a file of your own.",
        )
    return bytes(body)


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
        lambda progress: download_url(SHAKESPEARE_URL, SHAKESPEARE_SHA256, progress),
        is_csv=False,
    ),
    "sample": Source(
        "Original lyrics written for this program; bundled, needs no network",
        "drakegpt/data/sample_lyrics.csv",
        lambda _: (resources.files("drakegpt.data") / "sample_lyrics.csv").read_bytes(),
    ),
}


def _read_file(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except FileNotFoundError as error:
        raise UsageError(
            f"'{path}' is neither a known source nor a file.",
            f"Known sources: {', '.join(SOURCES)}; or give the path of a .txt or .csv file.",
        ) from error
    except OSError as error:
        raise FetchError(
            f"{path} cannot be read: {error.strerror}.", "Name a .txt or .csv file you can open."
        ) from error


def _decode(raw: bytes, source: str) -> str:
    """UTF-8 with or without a byte-order mark, any line ends, to text with line feeds."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            fix = f"`iconv -f utf-16 -t utf-8 {Path(source).name} > utf8{Path(source).suffix}`"
            raise CorpusError(
                f"{source} is not UTF-8 but UTF-16: line 1 begins with its mark.",
                f"Save it as UTF-8 in your editor, or convert it: {fix}.",
            ) from error
        line = raw.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{source} is not UTF-8: line {line} has the byte 0x{raw[error.start]:02x} "
            f"at position {error.start:,}.",
            "Save it as UTF-8 in your editor, or convert it: "
            f"`iconv -f latin1 -t utf-8 {Path(source).name} > utf8{Path(source).suffix}`.",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_csv(table: str, column: str, source: str) -> tuple[str, int]:
    """The rows of one column that hold text, joined by line feeds, and how many they are."""
    csv.field_size_limit(2**31 - 1)  # a field may be a whole book
    reader = csv.DictReader(io.StringIO(table, newline=""))
    try:
        header = list(reader.fieldnames or [])
        if header and column not in header:
            raise CorpusError(
                f"{source} has no column '{column}'; its columns are: {', '.join(header)}.",
                "Name the one that holds the text with --text-column.",
            )
        rows = [row[column] for row in reader]
    except csv.Error as error:
        raise CorpusError(
            f"{source} is not a readable CSV: line {reader.line_num}: {error}.",
            "Mend that line, or save the text as a .txt file.",
        ) from error
    songs = [row for row in rows if row and row.strip()]
    return "\n".join(songs), len(songs)


def _checked_name(name: str, *, chosen: bool) -> str:
    """A name that is safe as a folder everywhere; a file's own name is made so."""
    if not chosen:
        name = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-._") or "corpus"
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name, flags=re.ASCII) or name == "default":
        raise UsageError(
            f"'{name}' cannot name a dataset.",
            "Use letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit.",
        )
    return name
