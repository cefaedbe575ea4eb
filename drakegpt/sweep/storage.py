"""The storage of a study: an SQLite file, or a database that several machines share."""

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

TIMEOUT_SECONDS = 60  # seconds that SQLite waits for another process

# Exceptions for a database that cannot be reached, and those that the three libraries and this
# package raise for rows that none of them can have written.
FAULTS = (
    OptunaError, SQLAlchemyError, CommandError, ImportError, ArithmeticError, AssertionError,
    AttributeError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip

optuna.logging.set_verbosity(logging.ERROR)  # the command line reports what matters


def open_storage(place: str) -> BaseStorage:
    """Open the storage in an SQLite file or at a database's URL; a new file is made atomically.

    Raises `UsageError` for a file that is something else, which is not changed, and
    `RunError` for a database that cannot be reached.
    """
    with explain_errors(place):
        if "://" in place:
            return _open_url(place)
        file = Path(place).absolute()
        if file.exists() or file.is_symlink():
            _check_file(file)
        elif not file.parent.is_dir():
            raise UsageError(
                f"There is no folder {file.parent}.",
                "Create it, or name a file elsewhere with --storage.",
            )
        else:
            _create_file(file)
        return _open_url(_make_url(file))


def _open_url(url: str) -> RDBStorage:
    waits = {"timeout": TIMEOUT_SECONDS} if url.startswith("sqlite") else {}
    return RDBStorage(url, engine_kwargs={"connect_args": waits})


def _make_url(file: Path) -> str:
    return URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)


def _create_file(file: Path) -> None:
    """Create an empty study file atomically, unless another process is faster."""
    with temporary_folder(file.parent) as folder:
        made = folder / "study.db"
        _open_url(_make_url(made)).engine.dispose()
        with suppress(FileExistsError):
            os.link(made, file)


def _check_file(file: Path) -> None:
    """Raise `UsageError` unless `file` holds an Optuna study."""
    try:
        if not file.is_file():  # SQLite would block on a pipe
            raise sqlite3.DatabaseError
        # Not read-only: what a killed process left half written has to be rolled back.
        with closing(
            sqlite3.connect(f"{file.as_uri()}?mode=rw", TIMEOUT_SECONDS, uri=True)
        ) as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone():
                return
    except sqlite3.OperationalError:
        if file.is_file() and not file.is_symlink():
            return  # it is locked, which Optuna reports
    except sqlite3.DatabaseError:
        pass
    raise UsageError(
        f"{file} is not an SQLite file with an Optuna study.",
        "Name a new file with --storage, or leave it out.",
    )


@contextmanager
def explain_errors(place: str) -> Iterator[None]:
    """Turn exceptions of Optuna and databases into a `RunError` about the storage."""
    try:
        yield
    except FAULTS as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        where = hide_password(place)
        first = first.replace(place, where)
        raise RunError(
            f"The study in {where} cannot be read or written: {first}",
            "Check --storage. No run and no result is lost: once the study can be read, the same "
            "command resumes it.",
        ) from error


def hide_password(place: str) -> str:
    """Return a file as it is, or a database's URL without password and query."""
    if "://" not in place:
        return place
    try:
        return make_url(place).set(query={}).render_as_string()
    except (ArgumentError, ValueError):
        return "a database"
