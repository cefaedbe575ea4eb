"""Atomic writing of files and folders, JSON, and token arrays written as a stream.

A file or folder appears at its path complete or not at all. Until then it has a temporary
name that ends in `.unfinished`, and the process that writes it holds a lock on it: the
system drops the lock of a killed process, so that `remove_leftovers` can tell what is in use.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHECKSUM_BLOCK = 1 << 20  # tokens hashed at once
_POSIX = os.name == "posix"  # else Windows
_SUFFIX = ".unfinished"
_LEFTOVER = re.compile(rf"\..+\.[0-9a-f]+{re.escape(_SUFFIX)}", re.DOTALL)
_TEMPORARY_FOLDER = "drakegpt-work"
_LOCK = "lock"  # on Windows: the open file that locks a temporary folder
_TRIES = 20  # of processes that replace the same folder at the same time


@contextmanager
def write_atomically(path: Path, place: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes `path` only if the block succeeds.

    The bytes go to a temporary file beside `path`, or in `place`, a folder on the same
    disk. They are synced to the disk before the file is renamed, so that a reader, or a
    crash, sees the old file or the new one, never a part of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, file = _create_file(path, place)
    try:
        with file:
            yield file
            _sync_file(file)
            if _POSIX:  # Windows cannot rename an open file
                os.replace(temporary, path)
        if not _POSIX:
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # the error of a full disk does not name the file
        raise


def write_text(path: Path, text: str, place: Path | None = None) -> None:
    """Write `text` atomically as UTF-8 with line feeds; `place` as in `write_atomically`."""
    with write_atomically(path, place) as file:
        file.write(text.encode("utf-8"))


def write_exclusively(path: Path, text: str) -> None:
    """Write `text` into a new file, atomically; raises `FileExistsError` if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, file = _create_file(path, None)
    try:
        with file:
            file.write(text.encode("utf-8"))
            _sync_file(file)
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                move_exclusively(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def write_folder_atomically(
    path: Path, place: Path | None = None, keep: Callable[[], bool] = lambda: False
) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` only if the block succeeds.

    It is beside `path` or in `place`, a folder on the same disk. A folder that is at
    `path` by then stays if `keep()`. Otherwise it is moved aside just before, and moved
    back if the new one cannot be renamed.
    """
    aside = _temporary_path(path, place)
    temporary, handle = _create_folder(path, place)
    try:
        yield temporary
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace_folder(temporary, path, aside, keep)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _replace_folder(new: Path, path: Path, aside: Path, keep: Callable[[], bool]) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            os.replace(new, path)
            return
        except OSError:
            if aside.exists() and not path.exists():
                os.replace(aside, path)
                raise
            if not tries_left or not path.exists():
                raise
        if keep():
            return
        # In its first turn the folder that was there, in later ones that of a quicker process.
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(FileNotFoundError):  # another process has just moved it
            os.replace(path, aside)


def move_exclusively(source: Path, path: Path) -> None:
    """Rename a file or folder to `path` in one step; `FileExistsError` if that exists."""
    if path.exists() or path.is_symlink():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    try:
        os.rename(source, path)  # noqa: PTH104 - the atomic step
    except OSError as error:
        if not path.exists():
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
    _sync_folder(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder and its contents; its name is gone after one step."""
    aside = _temporary_path(folder, None)
    os.replace(folder, aside)
    _sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Give a temporary folder in `parent`, which is removed after the block.

    If the process is killed, `remove_leftovers` removes it later.
    """
    folder, handle = _create_folder(parent / _TEMPORARY_FOLDER, None, private=True)
    if handle is None:
        handle = os.open(folder / _LOCK, os.O_CREAT | os.O_WRONLY)
    try:
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path, *, temporary_folders_only: bool = False) -> None:
    """Remove temporary files and folders that killed processes left in `folder`.

    On Windows only the folders of `temporary_folder` have locks: with
    `temporary_folders_only=False`, no other process may be writing into `folder`.
    """
    start = f".{_TEMPORARY_FOLDER}." if temporary_folders_only else "."
    try:
        names = os.listdir(folder)  # noqa: PTH208 - each command looks into thousands
    except OSError:
        return
    for name in names:
        if name.startswith(start) and _LEFTOVER.fullmatch(name):
            with suppress(OSError):
                _remove_unless_locked(folder / name)


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON text; raises `ValueError` for anything wrong with it.

    Nesting deep enough to exhaust Python's stack counts as wrong too.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


@dataclass(frozen=True)
class WrittenArray:
    """The length and checksum of an array written by `write_array`."""

    tokens: int
    sha256: str  # of the tokens, without the file's header


def write_array(
    path: Path, kind: "type[np.integer[Any]]", blocks: "Iterable[NDArray[Any]]"
) -> WrittenArray:
    """Write blocks, (n,) each, as one array of type `kind`, atomically.

    The file is the one `numpy.save` writes, byte for byte, but neither all blocks nor
    their number need be known beforehand.
    """
    import numpy as np

    dtype, tokens, digest = np.dtype(kind), 0, hashlib.sha256()
    with write_atomically(path) as file:
        start = _write_array_header(file, dtype, 0)
        for block in blocks:
            array = np.ascontiguousarray(block, dtype)
            digest.update(array.data)
            file.write(array.data)
            tokens += len(array)
        file.seek(0)
        if _write_array_header(file, dtype, tokens) != start:
            raise RuntimeError("numpy's header no longer leaves room for the length")
    return WrittenArray(tokens, digest.hexdigest())


def compute_checksum(array: "NDArray[Any]") -> str:
    """Compute the SHA-256 of an array (N,), which may be mapped from the disk."""
    import numpy as np

    digest = hashlib.sha256()
    for start in range(0, len(array), CHECKSUM_BLOCK):
        digest.update(np.ascontiguousarray(array[start : start + CHECKSUM_BLOCK]).data)
    return digest.hexdigest()


def _write_array_header(file: IO[bytes], dtype: "np.dtype[Any]", length: int) -> int:
    """Write numpy's header for an array (length,); returns where the tokens start."""
    from numpy.lib import format as npy

    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    npy.write_array_header_1_0(file, header)
    return file.tell()


def _temporary_path(path: Path, place: Path | None) -> Path:
    name = path.name.encode()[:100].decode(errors="ignore")  # names are limited in bytes
    return (place or path.parent) / f".{name}.{os.urandom(4).hex()}{_SUFFIX}"


def _create_file(path: Path, place: Path | None) -> tuple[Path, IO[bytes]]:
    """Create and open a temporary file for `path`, locked as long as it is open."""
    while True:
        temporary = _temporary_path(path, place)
        file = temporary.open("xb")
        if _lock(file.fileno(), temporary):
            return temporary, file
        file.close()


def _create_folder(
    path: Path, place: Path | None, *, private: bool = False
) -> tuple[Path, int | None]:
    """Create a temporary folder for `path`; returns it and the handle whose closing unlocks it."""
    while True:
        temporary = _temporary_path(path, place)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700 if private else 0o777)
        if not _POSIX:
            return temporary, None
        with suppress(FileNotFoundError):
            handle = os.open(temporary, os.O_RDONLY)
            if _lock(handle, temporary):
                return temporary, handle
            os.close(handle)


def _lock(handle: int, path: Path) -> bool:
    """Lock an open file or folder until it is closed; False if `path` was removed meanwhile.

    That happens if another process took it for a leftover before it was locked.
    """
    if not _POSIX:
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
    except OSError as error:
        # On a file system without locks, leftovers are never removed.
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)


def _remove_unless_locked(leftover: Path) -> None:
    """Remove a temporary file or folder; raises `OSError` if a process has locked it."""
    if not _POSIX:
        _remove_unless_open(leftover)
        return
    import fcntl

    # The system's temporary folder is shared: what another user has made is not even opened.
    if leftover.lstat().st_uid != os.getuid():
        return
    handle = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(leftover)
    finally:
        os.close(handle)


def _remove_unless_open(leftover: Path) -> None:
    """Do the same on Windows, which raises `PermissionError` for a file that is open."""
    if leftover.name.startswith(f".{_TEMPORARY_FOLDER}."):
        (leftover / _LOCK).unlink()  # missing: created just now, and about to be locked
    _remove(leftover)


def _remove(leftover: Path) -> None:
    if leftover.is_dir():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


def _sync_file(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Sync a folder's list of names to the disk, where the system can."""
    if _POSIX:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
