"""Errors that a user can cause, and their exit codes.

Each is a `DrakeGPTError`: one sentence says what happened and where, another names the
command or edit that fixes it. The command line prints both and exits.
"""

import errno
from collections.abc import Iterable


class DrakeGPTError(Exception):
    """Something failed: a file, a download, a run. Exit code 1."""

    exit_code = 1

    def __init__(self, problem: str, fix: str) -> None:
        """`problem`: what happened, with names and numbers; `fix`: what to do about it."""
        super().__init__(f"{problem} {fix}")
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> "tuple[type[DrakeGPTError], tuple[str, str]]":
        """Pickle both sentences; `Exception` would pickle one."""
        return type(self), (self.problem, self.fix)


class UsageError(DrakeGPTError):
    """The command line or a setting asks for something impossible. Exit code 2."""

    exit_code = 2


class FetchError(DrakeGPTError):
    """A corpus could not be fetched; existing datasets are unchanged."""


class CorpusError(DrakeGPTError):
    """A text cannot serve as a corpus: wrong encoding, empty, too short, column missing."""


class DamagedDatasetError(CorpusError):
    """A prepared dataset is not what was written."""


class RunError(DrakeGPTError):
    """A run is missing, incomplete or damaged."""

    state = "damaged"  # in a list of runs


class DivergedError(RunError):
    """A run's loss or weights became infinite or NaN: its settings are wrong, not its files."""


class NotEnoughMemoryError(DrakeGPTError):
    """The CPU or the GPU has less memory than the settings need."""


# From PyTorch's messages on the CPU of Linux, macOS and Windows, and those of CUDA's libraries.
_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "alloc_failed")


def is_disk_full(error: OSError) -> bool:
    """Tell whether writing failed because the disk, or the user's quota, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an allocation of memory failed, without importing PyTorch."""
    if isinstance(error, MemoryError | NotEnoughMemoryError) or (
        type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    ):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(text in message for text in _NO_MEMORY)


MAX_SHOWN = 200  # characters of a value in a message


def show_value(value: object) -> str:
    """Format any value from outside for a message, shortened.

    `repr` alone may exhaust the memory, as for lists that contain each other many times.
    """
    import reprlib

    short = reprlib.Repr()
    short.maxlevel = 3
    short.maxstring = short.maxlong = short.maxother = MAX_SHOWN
    try:
        return short.repr(value)[:MAX_SHOWN]
    except ValueError:  # Python refuses to write integers of several thousand digits
        return "a number of thousands of digits"


def shorten(text: str) -> str:
    """Shorten a name or a sentence from outside for a message."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def suggest_name(text: str, names: Iterable[str]) -> str:
    """Ask whether the name closest to `text` is meant, ignoring case; "" if none is close."""
    import difflib

    known = {name.lower(): name for name in names}
    close = difflib.get_close_matches(text.lower(), known, n=1)
    return f"Did you mean {known[close[0]]}? " if close else ""


def suggest_or_list(text: str, names: Iterable[str], what: str) -> str:
    """Ask whether the closest name is meant; if none is close, say `what` all of them are."""
    known = list(names)
    return suggest_name(text, known).strip() or f"{what}: {', '.join(known)}."
