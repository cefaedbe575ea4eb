"""What can go wrong through no fault of the program, and the exit code of each.

Every error a user can cause is a `DrakeGPTError`: one sentence that says what
happened and where, and one that names the command or edit that mends it. The
command line prints both and exits; nothing else catches them.
"""

import errno
from collections.abc import Iterable


class DrakeGPTError(Exception):
    """Something failed: a file, a download, a run. Exit code 1."""

    exit_code = 1

    def __init__(self, problem: str, fix: str) -> None:
        """`problem`: what happened, with the name or number that shows it; `fix`: what to do."""
        super().__init__(f"{problem} {fix}")
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> "tuple[type[DrakeGPTError], tuple[str, str]]":
        """Both sentences, for another process; `Exception` would keep them as one."""
        return type(self), (self.problem, self.fix)


class UsageError(DrakeGPTError):
    """The command line or a setting asks for something impossible. Exit code 2."""

    exit_code = 2


class FetchError(DrakeGPTError):
    """A corpus could not be fetched; what was there before is untouched."""


class CorpusError(DrakeGPTError):
    """A text cannot serve as a corpus: wrong encoding, empty, too short, column missing."""


class DamagedDatasetError(CorpusError):
    """A prepared dataset is not what was stored."""


class RunError(DrakeGPTError):
    """A run is missing, incomplete or damaged."""

    state = "damaged"  # in a list of runs


class DivergedError(RunError):
    """A run's loss or weights grew beyond all numbers: its settings are at fault, not its files."""


class NotEnoughMemoryError(DrakeGPTError):
    """The processor or the GPU has not as much memory as the settings need."""


# What PyTorch says on a CPU of Linux, macOS and Windows, and what the GPU's libraries say.
_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "alloc_failed")


def is_disk_full(error: OSError) -> bool:
    """Whether a file could not be written for want of room: on the disk, or of a user's share."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory that was asked for was not there; PyTorch need not be loaded to ask."""
    if isinstance(error, MemoryError | NotEnoughMemoryError) or (
        type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    ):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(text in said for text in _NO_MEMORY)


MAX_SHOWN = 200  # characters of a value in a message


def show_value(value: object) -> str:
    """A value from outside as messages show it, whatever it is: short, and at once.

    Its `repr` alone may take all memory: that of lists which hold each other.
    """
    import reprlib

    short = reprlib.Repr()
    short.maxlevel = 3
    short.maxstring = short.maxlong = short.maxother = MAX_SHOWN
    try:
        return short.repr(value)[:MAX_SHOWN]
    except ValueError:  # Python writes no whole number of more than some thousand digits
        return "a number of thousands of digits"


def shorten(text: str) -> str:
    """A name or a sentence from outside as messages quote it."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def suggest_name(text: str, names: Iterable[str]) -> str:
    """The question whether a name close to `text`, in any case, is meant; empty if none is."""
    import difflib

    known = {name.lower(): name for name in names}
    close = difflib.get_close_matches(text.lower(), known, n=1)
    return f"Did you mean {known[close[0]]}? " if close else ""
