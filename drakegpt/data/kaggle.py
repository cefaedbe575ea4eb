"""Download one CSV file of a Kaggle dataset with the official client.

Only this module imports that client, which prints, logs in when it is imported, has no
timeouts and does not check what it receives. Here it is imported late, silenced and given
timeouts, and its download is validated. Every failure becomes a `FetchError`.
"""

import importlib
import io
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from drakegpt import home
from drakegpt.data.corpus import ByteProgress
from drakegpt.errors import FetchError, is_disk_full, is_out_of_memory

MAX_BYTES = 200_000_000  # refuse anything larger, packed or unpacked
TIMEOUT = 30.0  # seconds without data from the server
RETRIES = 2  # of a broken transfer; the client waits 2, then 4 seconds
CHUNK = 1 << 16  # bytes between two reports of progress

ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an empty archive's
NEW_TOKEN = "https://www.kaggle.com/settings/api"


def download_member(
    dataset: str, member: str, folder: Path, progress: ByteProgress | None = None
) -> Path:
    """Download the CSV file `member` of a Kaggle dataset into `folder`; return its path.

    `dataset` is "owner/name", `member` a path such as "csv/Drake.csv"; the file is named
    after the last part of `member` and replaces an existing one only when it is complete.
    """
    meter, credentials = _Meter(progress), ""
    try:
        # Before the client is imported, for it deletes an OAuth file that Kaggle refuses.
        credentials = describe_credentials()
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".kaggle-", dir=folder) as inbox:
            with redirect_stdout(io.StringIO()), _limit_time():
                received = _receive(dataset, member, Path(inbox) / "in", meter, credentials)
            if _read_head(received).startswith(ZIP_SIGNATURES):
                received = _unpack(received, member, Path(inbox) / "out")
            _check_csv(received, member)
            return received.replace(folder / PurePosixPath(member).name)
    except FetchError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise _explain(error, dataset, member, folder, credentials, meter) from error


def describe_credentials() -> str:
    """List the variables and files that hold Kaggle credentials; "" if there are none."""
    return ", ".join(map(str, find_credentials()))


def find_credentials() -> list[str | Path]:
    """Find Kaggle credentials, unread: names of variables, and paths of files."""
    variables = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")
    found: list[str | Path] = [name for name in variables if os.environ.get(name)]
    default, config = home.expand_user(Path("~/.kaggle")), os.environ.get("KAGGLE_CONFIG_DIR")
    shared = home.expand_user(Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config")) / "kaggle"
    files = [default / name for name in ("access_token", "access_token.txt", "credentials.json")]
    files += [folder / "kaggle.json" for folder in (Path(config or default), default, shared)]
    return [*found, *(file for file in dict.fromkeys(files) if file.exists())]


def _receive(dataset: str, member: str, inbox: Path, meter: "_Meter", credentials: str) -> Path:
    """Let the client download into `inbox`; returns the one file it creates there."""
    # By its full name: the package rebinds `kaggle.api` to an instance.
    client = importlib.import_module("kaggle.api.kaggle_api_extended")
    api = client.KaggleApi()
    _sign_in(api, credentials)
    api.download_file = partial(api.download_file, chunk_size=CHUNK, max_retries=RETRIES)
    with _replace_attribute(client, "tqdm", meter):
        api.dataset_download_file(dataset, member, path=str(inbox))
    # The server chooses the name, csv or csv.zip.
    (received,) = (path for path in inbox.iterdir() if path.is_file())
    return received


def _sign_in(api: Any, credentials: str) -> None:
    """Authenticate, or stay anonymous without credentials: public data needs none."""
    from requests import RequestException

    try:
        api.authenticate()
    except SystemExit:  # what the client raises without valid credentials
        if credentials:
            raise _explain_credentials(credentials, "Kaggle does not know them") from None
    except RequestException as error:
        status = error.response.status_code if error.response is not None else None
        if status not in (400, 401, 403, 404):
            raise
        raise _explain_credentials(credentials, f"HTTP {status}") from error
    except (OSError, ValueError) as error:
        raise _explain_credentials(credentials, "they cannot be read or sent") from error


@contextmanager
def _limit_time() -> Iterator[None]:
    """Let no request wait longer than `TIMEOUT` within the block.

    The client sets no timeout on its first requests; requests then waits forever, which
    overrides `socket.setdefaulttimeout`. Import, login, download and retries all call
    `HTTPAdapter.send`, so the timeout is set there.
    """
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def send_with_timeout(*args: Any, **kwargs: Any) -> Any:
        return send(*args, **{**kwargs, "timeout": TIMEOUT})

    with _replace_attribute(HTTPAdapter, "send", send_with_timeout):
        yield


@contextmanager
def _replace_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


class _Meter:
    """Replaces tqdm in the client: called like the class, used like the bar."""

    def __init__(self, report: ByteProgress | None) -> None:
        self.report = report
        self.started, self.done = False, 0
        self.total: int | None = None

    def __call__(self, *, total: int | None, initial: int = 0, **_: Any) -> "_Meter":
        self.started, self.done, self.total = True, initial, total
        _check_size(total or 0)
        return self

    def __enter__(self) -> "_Meter":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int) -> None:
        """Count `count` more bytes."""
        self.done += count
        _check_size(self.done)
        if self.report is not None:
            self.report(self.done, self.total)


def _unpack(archive: Path, member: str, target: Path) -> Path:
    """Copy the one expected member to `target`; nothing else is extracted."""
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(_find_member(opened, member)) as source,
            target.open("wb") as sink,
        ):
            # A wrong size is harmless: zipfile stops there, and the checksum does not match.
            shutil.copyfileobj(source, sink)
    except (FetchError, OSError):
        raise
    except Exception as error:  # damage makes zipfile raise a dozen kinds of exceptions
        if is_out_of_memory(error):
            raise
        problem = f"The archive with {member} is damaged ({error})."
        raise FetchError(problem, "Try again: the download was probably incomplete.") from error
    return target


def _find_member(opened: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    """Find `member`, by its path or its bare name, if it is an ordinary file."""
    names = opened.namelist()
    name = next((n for n in (member, PurePosixPath(member).name) if n in names), None)
    fix = "Look at the dataset's page on Kaggle for a new version, or use a file of your own."
    if name is None:
        listed = ", ".join(map(repr, names[:8])) + (", …" if len(names) > 8 else "")
        raise FetchError(f"The archive has no {member}; it holds {listed or 'nothing'}.", fix)
    entry = opened.getinfo(name)
    if entry.flag_bits & 1:
        raise FetchError(f"{member} is encrypted in the archive.", fix)
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise FetchError(f"{member} is a symbolic link in the archive, not a file.", fix)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FetchError(f"{member} is compressed by a method that drakegpt does not accept.", fix)
    _check_size(entry.file_size)
    return entry


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        problem = f"The file is larger than the {MAX_BYTES:,} bytes that drakegpt accepts."
        raise FetchError(problem, "Look at the dataset's page on Kaggle: it may have changed.")


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _check_csv(path: Path, member: str) -> None:
    """Raise `FetchError` for what is not a CSV: a login page, an error, another kind of file."""
    head = _read_head(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith((b"<", b"{")) or b"\0" in head or b"," not in head.split(b"\n")[0]:
        found = f"starts with {head[:40].decode('latin-1')!a}" if head else "is empty"
        problem = f"What the server sent is not {member}: it {found}."
        raise FetchError(problem, "If your network has a login page, pass it; then try again.")


def _explain(
    error: BaseException, dataset: str, member: str, folder: Path, credentials: str, meter: _Meter
) -> FetchError:
    """Explain an exception. The client's message is not quoted: it may contain a token."""
    if isinstance(error, ImportError):
        fix = "Reinstall it: python -m pip install --force-reinstall 'kaggle>=2.2,<2.2.5' six"
        return FetchError(f"The kaggle client cannot be loaded ({error}).", fix)
    from requests import exceptions as web

    kind = type(error).__name__
    network = "Check the network connection and its proxy, then try again."
    if isinstance(error, web.HTTPError) and error.response is not None:
        return _explain_status(error.response.status_code, dataset, member, credentials)
    if credentials and isinstance(error, UnicodeError):
        return _explain_credentials(credentials, "they cannot be sent")
    if meter.started and isinstance(error, web.RequestException | ValueError):
        amount = f"{meter.done:,} of {meter.total:,}" if meter.total else f"{meter.done:,}"
        return FetchError(f"The download of {member} stopped after {amount} bytes.", network)
    if isinstance(error, web.Timeout):
        return FetchError(f"Kaggle did not answer within {TIMEOUT:g} seconds.", network)
    if isinstance(error, web.ConnectionError):
        return FetchError(f"Kaggle cannot be reached ({kind}).", network)
    if isinstance(error, OSError) and not isinstance(error, web.RequestException):
        if is_disk_full(error):
            return FetchError(f"The disk is full at {folder}.", "Free some space, then try again.")
        problem = f"Cannot use {error.filename or folder} ({error.strerror or kind})."
        return FetchError(problem, "Check that it exists and that you may read and write it.")
    problem = f"The kaggle client failed with an unexpected error ({kind})."
    fix = f"Download the file in a browser: https://www.kaggle.com/datasets/{dataset}"
    return FetchError(problem, f"Try again later. {fix}")


def _explain_status(status: int, dataset: str, member: str, credentials: str) -> FetchError:
    """Explain an HTTP status other than success."""
    page = f"https://www.kaggle.com/datasets/{dataset}"
    if status == 401:
        return _explain_credentials(credentials, "HTTP 401")
    if status == 403:
        problem = f"Kaggle does not let you download {dataset} (HTTP 403)."
        fix = f"Open {page} in a browser and accept its terms, logged in as the token's owner."
    elif status == 404:
        problem = f"Kaggle has no {member} in the dataset {dataset} (HTTP 404)."
        fix = f"Open {page} in a browser to see whether it was renamed or withdrawn."
    elif status == 429:
        problem, fix = "Kaggle got too many requests (HTTP 429).", "Wait a while, then try again."
    else:
        problem = f"Kaggle answered with an error (HTTP {status})."
        fix = f"Try again later, or download the file in a browser from {page}"
    return FetchError(problem, fix)


def _explain_credentials(credentials: str, reason: str) -> FetchError:
    """Explain missing or refused credentials; refused ones are never silently ignored."""
    if not credentials:
        fix = f"Put a token from {NEW_TOKEN} into KAGGLE_API_TOKEN or ~/.kaggle/access_token."
        return FetchError(f"Kaggle asks for a login ({reason}).", fix)
    problem = f"The Kaggle credentials in {credentials} were refused ({reason})."
    return FetchError(problem, f"Replace them by a new token from {NEW_TOKEN}, or remove them.")
