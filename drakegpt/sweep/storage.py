"""Where a study is kept: a journal, which is a file of lines, or a database.

The journal's format is Optuna's; its lock is ours. Optuna's own stays behind
when its process is killed, and a line cut off then would spoil the journal.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError

from drakegpt.errors import RunError

PLACEHOLDER = "PASSWORD"
# In `mysql://me:secret@host` and in `postgresql://host/x?password=secret`. The first may hold any
# sign if it was mistyped, so it ends at the last @.
_PASSWORD = re.compile(
    r"(://[^:/]*:).*(?=@)|([?&]\w*(?:password|passwd|pwd)=)[^&#]*", re.IGNORECASE
)
PATIENCE = 60  # seconds that SQLite waits for another process

optuna.logging.set_verbosity(logging.ERROR)  # what there is to say, the command says


class JournalLock(JournalFileOpenLock):
    """Who has it may write. It is gone with its process, and leaves whole lines behind."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._lock = FileLock(f"{journal}.lock")

    def acquire(self) -> bool:
        """Wait for the lock; cut off half a line that a killed process has left."""
        self._lock.acquire()
        try:
            _mend(self._journal)
        except BaseException:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        """Let others write."""
        self._lock.release()


def open_storage(place: str | Path) -> BaseStorage:
    """The storage at a file or a database's address.

    Raises `RunError` for a database that cannot be reached and a file that is no journal.
    """
    with explained(place, ImportError, RuntimeError, ValueError, KeyError, AssertionError):
        if isinstance(place, str) and "://" in place:
            waits = {"timeout": PATIENCE} if place.startswith("sqlite") else {}
            return RDBStorage(place, engine_kwargs={"connect_args": waits})
        journal = Path(place).absolute()
        journal.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(journal), JournalLock(journal)))


@contextmanager
def explained(place: str | Path, *more: type[Exception]) -> Iterator[None]:
    """Turn what Optuna and databases raise into a sentence about the storage."""
    faults: tuple[type[Exception], ...] = (StorageInternalError, SQLAlchemyError, *more)
    try:
        yield
    except faults as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        where = masked(str(place))
        first = first.replace(str(place), where)
        raise RunError(
            f"The study in {where} cannot be read or written: {first}",
            "Check --storage. All runs are whole, and what the study knows is kept: once it can "
            "be reached, the same command goes on.",
        ) from error


def masked(place: str) -> str:
    """A file or a database's address to show, or an argument with one, without its password."""
    return _PASSWORD.sub(lambda found: (found[1] or found[2]) + PLACEHOLDER, place)


def _mend(journal: Path) -> None:
    """Cut the journal after its last line feed."""
    with journal.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(end - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
