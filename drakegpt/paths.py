"""Where everything lives: one home folder per user, moved by `DRAKEGPT_HOME`.

The folders are computed at each call, never at import, and are created by those
who write into them. Files and folders come into the home by `write_atomically`
and `folder_atomically`: whole, or not at all. What takes long to make is made in
a `workplace`, of which a process that is killed leaves nothing for long.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from drakegpt.errors import UsageError, shortened

HOME_VARIABLE = "DRAKEGPT_HOME"


def home() -> Path:
    """The folder that holds datasets, runs, figures and generated texts."""
    if override := os.environ.get(HOME_VARIABLE):
        return expanded(Path(override))
    from platformdirs import user_data_path

    return user_data_path("drakegpt", appauthor=False)


def expanded(path: Path) -> Path:
    """The path with the folder that a leading `~` or `~name` stands for; raises `UsageError`."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"The folder that '{path.parts[0]}' stands for in '{shortened(str(path))}' is unknown.",
            "Write the path out.",
        ) from error


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
def write_atomically(path: Path, place: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes `path` only if the block succeeds.

    The bytes go to a temporary file beside `path` or in `place`, a folder on the
    same disk, are forced to the disk, and take its place in one step: a reader or
    a crash sees the old file or the new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path, place)
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
def folder_atomically(path: Path, place: Path | None = None) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` only if the block succeeds.

    It is beside `path` or in `place`, a folder on the same disk. A folder that is
    there already makes way just before, and comes back if the new one cannot take
    its place.
    """
    temporary, aside = _temporary(path, place), _temporary(path, place)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        path.parent.mkdir(parents=True, exist_ok=True)
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


def write_text(path: Path, text: str, place: Path | None = None) -> None:
    """Write `text` as UTF-8 with line feeds, atomically, by way of `place` if it is given."""
    with write_atomically(path, place) as file:
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


def _temporary(path: Path, place: Path | None) -> Path:
    return (place or path.parent) / f".{path.name}.{os.urandom(4).hex()}{_SUFFIX}"


_WORKPLACE = ".drakegpt-work-"
_LOCK = "lock"  # in a workplace, held by the process it belongs to


@contextmanager
def workplace(parent: Path) -> Iterator[Path]:
    """Give a temporary folder in `parent`, which is gone after the block.

    If the process is killed, `remove_dead_workplaces` does that: the system has let
    go of the lock in it.
    """
    from filelock import FileLock, Timeout

    parent.mkdir(parents=True, exist_ok=True)
    for tries_left in reversed(range(_TRIES)):
        folder = Path(tempfile.mkdtemp(prefix=_WORKPLACE, dir=parent))
        lock = FileLock(folder / _LOCK, timeout=0)
        try:
            lock.acquire()
            if (folder / _LOCK).exists():
                break
            lock.release()
        except (Timeout, OSError):  # before it was locked, another took it for a dead one's
            shutil.rmtree(folder, ignore_errors=True)
            if not tries_left:
                raise
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def remove_dead_workplaces() -> None:
    """Remove the workplaces of processes that are no more; others' are left alone."""
    for parent in (Path(tempfile.gettempdir()), datasets()):
        for folder in parent.glob(f"{_WORKPLACE}*"):
            with suppress(OSError):
                _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    from filelock import FileLock, Timeout

    # The folder for temporary files is everybody's: nothing is opened that another user has made.
    if os.name == "posix" and folder.lstat().st_uid != os.getuid():
        return
    if folder.is_symlink() or not folder.is_dir():
        return
    with suppress(Timeout):
        with FileLock(folder / _LOCK, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)  # an open file may have been in the way


def _sync_names(folder: Path) -> None:
    """Force a folder's list of names to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
