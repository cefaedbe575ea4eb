"""The known sources of texts, and how each is downloaded: Kaggle, a URL, the package itself.

Not here: the kaggle client (`kaggle`), and what becomes of a text (`sources`).
"""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path

from drakegpt.data import kaggle
from drakegpt.data.corpus import ByteProgress
from drakegpt.errors import FetchError
from drakegpt.wording import pluralize

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Source:
    """A known source: how to get its file into a folder, and the kind of file."""

    description: str
    provenance: str
    download: Callable[[Path, ByteProgress | None], Path]
    is_csv: bool = True
    bundled: bool = False  # with drakegpt, so that it needs no network


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
    by_hand = f"Download {url} in a browser and run `drakegpt data add FILE --name NAME`."
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
