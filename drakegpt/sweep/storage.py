"""Where a study is kept: an SQLite file, or a database that several machines share."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import optuna
from alembic.util.exc import CommandError
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from drakegpt.errors import RunError, UsageError
from drakegpt.files import temporary_folder

PATIENCE = 60  # seconds that SQLite waits for another process

optuna.logging.set_verbosity(logging.ERROR)  # what there is to say, the command says


def open_storage(place: str) -> BaseStorage:
    """The storage in an SQLite file or at a database's URL; a new file is made whole.

    Raises `UsageError` for a file that is something else, which is left as it is, and
    `RunError` for a database that cannot be reached.
    """
    with explained(place, ImportError, RuntimeError, ValueError, KeyError, AssertionError):
        if "://" in place:
            return _open(place)
        file = Path(place).absolute()
        if file.exists() or file.is_symlink():
            _check_file(file)
        elif not file.parent.is_dir():
            raise UsageError(
                f"There is no folder {file.parent}.",
                "Make it first, or name a file elsewhere with --storage.",
            )
        else:
            _make_file(file)
        return _open(_url(file))


def _open(url: str) -> RDBStorage:
    waits = {"timeout": PATIENCE} if url.startswith("sqlite") else {}
    return RDBStorage(url, engine_kwargs={"connect_args": waits})


def _url(file: Path) -> str:
    return URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)


def _make_file(file: Path) -> None:
    """Make an empty study file in one step, unless another process is quicker."""
    with temporary_folder(file.parent) as folder:
        made = folder / "study.db"
        _open(_url(made)).engine.dispose()
        with suppress(FileExistsError):
            os.link(made, file)


def _check_file(file: Path) -> None:
    """Raise `UsageError` unless `file` holds a study of Optuna's."""
    try:
        if not file.is_file():  # nor would SQLite ever come back from a pipe
            raise sqlite3.DatabaseError
        # Not read-only: what a killed process left half written is to be taken back.
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", PATIENCE, uri=True)) as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone():
                return
    except sqlite3.OperationalError:
        if file.is_file() and not file.is_symlink():
            return  # it is locked: for Optuna to say
    except sqlite3.DatabaseError:
        pass
    raise UsageError(
        f"{file} is not a study of Optuna's in an SQLite file.",
        "Name a new file with --storage, or leave it out.",
    )


@contextmanager
def explained(place: str, *more: type[Exception]) -> Iterator[None]:
    """Turn what Optuna and databases raise into a sentence about the storage."""
    faults: tuple[type[Exception], ...] = (OptunaError, SQLAlchemyError, CommandError, *more)
    try:
        yield
    except faults as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        where = without_password(place)
        first = first.replace(place, where)
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
