"""Where everything lives: one home folder per user, moved by `DRAKEGPT_HOME`.

The folders are computed at each call, never at import, and are created by those
who write into them. Files and folders come into the home by `write_atomically`
and `folder_atomically`: whole, or not at all. What takes long to make is made in
a `workplace`. A process holds a lock on what is temporary: `clear_leftovers`
removes what one has left that was killed.
"""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from drakegpt.errors import UsageError, shorten

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
            f"The folder that '{path.parts[0]}' stands for in '{shorten(str(path))}' is unknown.",
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
    temporary, file = _new_file(path, place)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name == "posix":  # elsewhere no open file can be renamed
                os.replace(temporary, path)
        if os.name != "posix":
            os.replace(temporary, path)
        _sync_names(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say where it is
        raise


@contextmanager
def folder_atomically(path: Path, place: Path | None = None) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` only if the block succeeds.

    It is beside `path` or in `place`, a folder on the same disk. A folder that is
    there already makes way just before, and comes back if the new one cannot take
    its place.
    """
    aside = _temporary(path, place)
    temporary, handle = _new_folder(path, place)
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
        _release(handle)


def move_new(made: Path, path: Path) -> None:
    """Let a folder or file become `path` in one step; `FileExistsError` if that is taken."""
    if path.exists() or path.is_symlink():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    try:
        os.rename(made, path)  # noqa: PTH104 - the atomic step
    except OSError as error:
        if not path.exists():
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
    _sync_names(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it; of its name there is nothing left after one step."""
    aside = _temporary(folder, None)
    os.replace(folder, aside)
    _sync_names(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str, place: Path | None = None) -> None:
    """Write `text` as UTF-8 with line feeds, atomically, by way of `place` if it is given."""
    with write_atomically(path, place) as file:
        file.write(text.encode("utf-8"))


def write_new(path: Path, text: str) -> None:
    """Write `text` into a file that is whole when it appears; `FileExistsError` if one is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, file = _new_file(path, None)
    try:
        with file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                move_new(temporary, path)
        _sync_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


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
    with suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - each command looks into thousands
            if name.startswith(".") and _LEFTOVER.fullmatch(name):
                _remove_if_left(folder / name)


def clear_leftovers() -> None:
    """Remove all that processes which are no more have left, in the home and among the system's.

    Elsewhere than on POSIX only workplaces, for there is no lock on the rest.
    """
    remove_dead_workplaces()
    if os.name != "posix":
        return
    for parent in (datasets(), runs(), sweeps(), comparisons()):
        for folder in (parent, *_folders(parent)):
            remove_leftovers(folder)
    for parent, below in ((runs(), "checkpoints"), (sweeps(), "locks")):
        for folder in _folders(parent):
            remove_leftovers(folder / below)
    remove_leftovers(generations())


_SUFFIX = ".unfinished"
_LEFTOVER = re.compile(rf"\..+\.[0-9a-f]+{re.escape(_SUFFIX)}", re.DOTALL)
_TRIES = 20  # of several that make the same folder at the same time


def _folders(parent: Path) -> list[Path]:
    try:
        return [Path(e.path) for e in os.scandir(parent) if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _temporary(path: Path, place: Path | None) -> Path:
    name = path.name.encode()[:100].decode(errors="ignore")  # names are limited in bytes
    return (place or path.parent) / f".{name}.{os.urandom(4).hex()}{_SUFFIX}"


def _new_file(path: Path, place: Path | None) -> tuple[Path, IO[bytes]]:
    """A temporary file, open, for what becomes `path`; ours as long as it is open."""
    while True:
        temporary = _temporary(path, place)
        file = temporary.open("xb")
        if _hold(file.fileno(), temporary):
            return temporary, file
        file.close()


def _new_folder(path: Path, place: Path | None) -> tuple[Path, int | None]:
    """A temporary folder for what becomes `path`, and the handle by which it is ours."""
    while True:
        temporary = _temporary(path, place)
        temporary.mkdir(parents=True)
        if os.name != "posix":
            return temporary, None
        with suppress(FileNotFoundError):
            handle = os.open(temporary, os.O_RDONLY)
            if _hold(handle, temporary):
                return temporary, handle
            os.close(handle)


def _release(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _hold(handle: int, path: Path) -> bool:
    """Lock what is open for as long as it is; whether it still is what `path` names then.

    It is not where another process took it for a leftover before it was locked.
    """
    if os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
    except OSError as error:
        # Where a file system has no locks, nothing that is left is ever taken for a leftover.
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)


def _remove_if_left(leftover: Path) -> None:
    """Remove a temporary file or folder unless a process holds it."""
    if os.name != "posix":
        _remove(leftover)
        return
    import fcntl

    try:
        handle = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(leftover)
    except OSError:
        pass
    finally:
        os.close(handle)


def _remove(leftover: Path) -> None:
    if leftover.is_dir():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


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
    places = (Path(tempfile.gettempdir()), datasets(), runs(), *_folders(sweeps()))
    for parent in places:
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
        if os.name == "nt":  # where the open lock was in the way
            shutil.rmtree(folder, ignore_errors=True)


def _sync_names(folder: Path) -> None:
    """Force a folder's list of names to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
