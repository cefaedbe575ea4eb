"""Where everything lives: one home folder per user, moved by `DRAKEGPT_HOME`.

The folders are computed at each call, never at import, and are created by those
who write into them. Files and folders come into the home by `write_atomically`
and `folder_atomically`: whole, or not at all.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

HOME_VARIABLE = "DRAKEGPT_HOME"


def home() -> Path:
    """The folder that holds datasets, runs, figures and generated texts."""
    if override := os.environ.get(HOME_VARIABLE):
        return Path(override).expanduser()
    from platformdirs import user_data_path

    return user_data_path("drakegpt", appauthor=False)


def datasets() -> Path:
    """Prepared datasets, a folder each."""
    return home() / "data"


def runs() -> Path:
    """Training runs, a folder each."""
    return home() / "runs"


def generations() -> Path:
    """Generated texts."""
    return home() / "generations"


def comparisons() -> Path:
    """Figures drawn by `compare`."""
    return home() / "comparisons"


def sweeps() -> Path:
    """Searches for hyperparameters, a folder each."""
    return home() / "sweeps"


@contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes `path` only if the block succeeds.

    The bytes go to a temporary file beside `path`, are forced to the disk, and
    take its place in one step: a reader or a crash sees the old file or the
    new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_names(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def folder_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` only if the block succeeds.

    A folder that is there already makes way just before, and comes back if the
    new one cannot take its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, aside = _beside(path), _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for tries_left in reversed(range(_TRIES)):
            with suppress(FileNotFoundError):  # there is none, or another has just moved it
                os.replace(path, aside)
            try:
                os.replace(temporary, path)
                break
            except OSError:
                if path.exists() and tries_left:  # another was quicker: that makes way too
                    shutil.rmtree(aside, ignore_errors=True)
                    continue
                if aside.exists() and not path.exists():
                    os.replace(aside, path)
                raise
        _sync_names(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with line feeds, atomically."""
    with write_atomically(path) as file:
        file.write(text.encode("utf-8"))


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds; raises `ValueError` for whatever is wrong with it.

    Nesting deep enough to exhaust Python's stack counts as wrong too.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that a killed process left in `folder`."""
    for leftover in folder.glob(f".*{_SUFFIX}"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


_SUFFIX = ".unfinished"
_TRIES = 20  # of several that make the same folder at the same time


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}{_SUFFIX}")


def _sync_names(folder: Path) -> None:
    """Force a folder's list of names to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
