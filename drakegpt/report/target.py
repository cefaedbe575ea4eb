"""Where a page may be written: a new file, or in the place of an older page."""

import os
import tempfile
from pathlib import Path

from drakegpt.errors import UsageError
from drakegpt.wording import quote

HEAD_BYTES = 2000  # of a page, in which its generator is named


def check_target(
    path: Path, option: str = "--html", force: str = "--force", *, replace: bool = False
) -> None:
    """Raise `UsageError` if no page may be written to `path`; changes nothing.

    An existing page may be replaced, any other file with `replace` only. `option` and `force`:
    what names the file, and what replaces it.
    """
    folder = path.absolute().parent
    if path.is_symlink():
        raise UsageError(
            f"{path} is a link.", f"Name a new file with {option}, or the link's target."
        )
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder.", f"Name a file: {option} {quote(str(path / 'page.html'))}"
        )
    if not folder.is_dir():
        raise UsageError(
            f"No page can be written to {path}: there is no folder {folder}.",
            f"Create the folder, or name a file elsewhere with {option}.",
        )
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a regular file.", f"Name a new file with {option}.")
    if path.exists() and not replace and not _is_report(path):
        raise UsageError(
            f"{path} exists and is not a page of drakegpt.",
            f"Name a new file with {option}, or replace this one with {force}.",
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(
            f"No page can be written to {path}: {reason} ({folder}).",
            f"Name a file in a folder that you can write to with {option}.",
        ) from error


def _is_report(path: Path) -> bool:
    """Whether the head of a file names drakegpt as its generator."""
    try:
        with path.open("rb") as file:
            return b'<meta name="generator" content="drakegpt ' in file.read(HEAD_BYTES)
    except OSError:
        return False
