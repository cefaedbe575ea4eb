"""The lock of a run in training, which one process holds at a time."""

from typing import TYPE_CHECKING

from drakegpt.runs.run import Run

if TYPE_CHECKING:
    from filelock import FileLock


def make_lock(run: Run) -> "FileLock":
    """Make the lock that the process training the run holds; it ends with that process."""
    from filelock import FileLock

    return FileLock(run.folder / ".lock", timeout=0)


def is_training(run: Run) -> bool:
    """Whether a process is training the run now."""
    from filelock import Timeout

    try:
        with make_lock(run):
            return False
    except Timeout:
        return True
