"""Where a study is kept: an SQLite file, or a database that several machines share."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from drakegpt.errors import RunError, UsageError

PATIENCE = 60  # seconds that SQLite waits for another process

optuna.logging.set_verbosity(logging.ERROR)  # what there is to say, the command says


def open_storage(place: str | Path) -> BaseStorage:
    """The storage in an SQLite file or at a database's URL; a new file is made.

    Raises `UsageError` for a file that is something else, which is left as it is, and
    `RunError` for a database that cannot be reached.
    """
    url = str(place)
    if "://" not in url:
        file = Path(place).absolute()
        _check_file(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        url = URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)
    with explained(place, ImportError, RuntimeError, ValueError, KeyError, AssertionError):
        waits = {"timeout": PATIENCE} if url.startswith("sqlite") else {}
        return RDBStorage(url, engine_kwargs={"connect_args": waits})


def _check_file(file: Path) -> None:
    """Raise `UsageError` unless `file` is new or holds a study of Optuna's."""
    if not file.exists() and not file.is_symlink():
        return
    known: set[str] = set()
    if file.is_file():
        try:
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
                known = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        except sqlite3.Error:
            pass
    if not {"studies", "trials"} <= known:
        raise UsageError(
            f"{file} is not a study of Optuna's in an SQLite file.",
            "Name a new file with --storage, or leave it out.",
        )


@contextmanager
def explained(place: str | Path, *more: type[Exception]) -> Iterator[None]:
    """Turn what Optuna and databases raise into a sentence about the storage."""
    faults: tuple[type[Exception], ...] = (StorageInternalError, SQLAlchemyError, *more)
    try:
        yield
    except faults as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        where = without_password(str(place))
        first = first.replace(str(place), where)
        raise RunError(
            f"The study in {where} cannot be read or written: {first}",
            "Check --storage. All runs are whole, and what the study knows is kept: once it can "
            "be reached, the same command resumes it.",
        ) from error


def without_password(place: str) -> str:
    """A file as it is, or a database's URL with neither password nor query."""
    if "://" not in place:
        return place
    try:
        return make_url(place).set(query={}).render_as_string()
    except (ArgumentError, ValueError):
        return "a database"
