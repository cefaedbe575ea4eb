"""Where an export is written: a new file or folder, or one that drakegpt has exported before.

What is written appears complete or not at all (`files`), and nothing of a user's is replaced.
"""

import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from drakegpt.errors import DrakeGPTError, UsageError, is_disk_full


def check_folder(
    path: Path, names: Collection[str], is_export: Callable[[Path], bool], *, replace: bool
) -> None:
    """Raise `UsageError` if no export may be written as the folder `path`; changes nothing.

    An empty folder may be filled. With `replace`, one that `is_export`, with files of these
    `names` only, may be replaced.
    """
    with explain_write_errors(path):
        _check_folder(path, names, is_export, replace=replace)


def check_file(path: Path, is_export: Callable[[Path], bool], *, replace: bool) -> None:
    """Raise `UsageError` if no export may be written as the file `path`; changes nothing.

    With `replace`, a file that `is_export` may be replaced.
    """
    with explain_write_errors(path):
        _check_file(path, is_export, replace=replace)


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an error that says how an export can be written."""
    try:
        yield
    except OSError as error:
        fix = "Name a place that you can write to."
        if is_disk_full(error):
            fix = "Make room, or name a place on another disk."
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DrakeGPTError(f"{path} cannot be written: {reason}.", fix) from error


def _check_folder(
    path: Path, names: Collection[str], is_export: Callable[[Path], bool], *, replace: bool
) -> None:
    _check_place(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file.", "Name a new folder.")
    found = sorted(each.name for each in path.iterdir()) if path.exists() else []
    if not found:
        return
    others = [name for name in found if name not in names]
    if others or not is_export(path):
        held = f"files that are no export of drakegpt, such as {(others or found)[0]}"
        raise UsageError(
            f"{path} has {held}.",
            "Name a new folder; --force replaces only what drakegpt has exported.",
        )
    if not replace:
        raise UsageError(
            f"{path} has an export already.", "Name a new folder, or replace this one with --force."
        )


def _check_file(path: Path, is_export: Callable[[Path], bool], *, replace: bool) -> None:
    _check_place(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "Name a new file in it.")
    if not path.exists():
        return
    if not path.is_file() or not is_export(path):
        raise UsageError(
            f"{path} exists and is no export of drakegpt.",
            "Name a new file; --force replaces only what drakegpt has exported.",
        )
    if not replace:
        raise UsageError(f"{path} exists.", "Name a new file, or replace this one with --force.")


def _check_place(path: Path) -> None:
    """Raise `UsageError` unless something can be written beside `path`, which is no link."""
    folder = path.absolute().parent
    if path.is_symlink():
        raise UsageError(f"{path} is a link.", "Name a new place, or the link's target.")
    if not folder.is_dir():
        raise UsageError(
            f"{path} cannot be written: there is no folder {folder}.",
            "Create the folder, or name a place elsewhere.",
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(
            f"{path} cannot be written: {reason} ({folder}).",
            "Name a place in a folder that you can write to.",
        ) from error
