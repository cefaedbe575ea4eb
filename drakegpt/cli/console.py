"""Streams and exit codes, in one place.

Results go to stdout: text and tables, or exactly one JSON object. Progress,
notes, warnings and errors go to stderr.

A reader of either that has gone has had enough: what else would be written goes
nowhere, and the work goes on.
"""

import io
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from drakegpt.errors import DrakeGPTError

PIPED_WIDTH = 140  # nobody's window limits what goes to a file or another program
INTERRUPTED = 130


@cache
def results() -> Console:
    """Stdout, for people."""
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return _Results(width=width, highlight=False, emoji=False)


class _Results(Console):
    """Stdout, whose reader may go."""

    def on_broken_pipe(self) -> None:
        """Write the rest nowhere; rich would end the program without a word."""
        _silence(sys.stdout)


@cache
def messages() -> Console:
    """Stderr, for people."""
    width = None if sys.stderr.isatty() else PIPED_WIDTH
    return Console(stderr=True, width=width, highlight=False, emoji=False)


def visible(text: str) -> str:
    """A text that does to a terminal nothing but be read: control characters are spelt."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1]
        for character in text
    )


def show(renderable: Any, **how: Any) -> None:
    """A result, on stdout. Strings are text, never markup."""
    with _explained():
        results().print(Text(renderable) if isinstance(renderable, str) else renderable, **how)


def show_json(value: Any) -> None:
    """The result as one JSON object on stdout."""
    write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def write(text: str) -> None:
    """A result on stdout as it stands."""
    with _explained():
        sys.stdout.write(text)
        sys.stdout.flush()


@contextmanager
def _explained() -> Iterator[None]:
    """Say where results could not be written, unless their reader has gone."""
    try:
        yield
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        raise unwritable(error) from error


def unwritable(error: OSError) -> DrakeGPTError:
    """What to say where stdout has no room for results; nothing more is written there."""
    _silence(sys.stdout)
    return DrakeGPTError(
        f"The results cannot be written to stdout: {error.strerror or error}.",
        "Send them to a place with room.",
    )


class _Messages(io.TextIOBase):
    """Stderr as long as it can be written; after that nothing, and nothing fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._gone = stream, False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of stderr."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write a message, if there is anyone to read it."""
        return self._try(lambda: self._stream.write(text)) or len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Whether stderr is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The file that messages go to."""
        return self._stream.fileno()

    def _try(self, action: Any) -> Any:
        if self._gone:
            return None
        try:
            return action()
        except OSError:
            self._gone = True
            _silence(self._stream)
            return None


def _silence(stream: TextIO) -> None:
    """Let what is still to be written to a stream go nowhere; else Python fails at its exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def streams() -> Iterator[None]:
    """Streams that can be written to in a `with` statement, whatever we were started with."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed before the start, as services and `>&-` do
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
    use_utf8()
    with redirect_stdout(sys.stdout), redirect_stderr(_Messages(sys.stderr)):
        try:
            yield
        finally:
            try:
                sys.stdout.flush()
            except OSError:  # at a full disk, the results before have said so
                _silence(sys.stdout)


def note(text: str, style: str = "dim") -> None:
    """Something worth knowing, on stderr."""
    messages().print(Text(text, style=style), soft_wrap=True)


def warn(text: str) -> None:
    """Something that may surprise, on stderr."""
    messages().print(Text.assemble(("Note: ", "yellow"), text), soft_wrap=True)


class _Warnings(logging.Handler):
    """Shows what the library logs as warnings, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning on stderr."""
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            warn(text)


def pass_on_warnings() -> None:
    """Let the library's warnings appear as notes."""
    logging.getLogger("drakegpt").addHandler(_Warnings())


def fail(error: DrakeGPTError) -> int:
    """Print an error and how to mend it; returns the exit code."""
    messages().print(Text.assemble(("Error: ", "bold red"), error.problem), soft_wrap=True)
    messages().print(Text(error.fix), soft_wrap=True)
    return error.exit_code


def next_commands(commands: Iterable[str]) -> None:
    """What to try next, on stderr."""
    for command in commands:
        messages().print(Text.assemble(("Next: ", "dim"), (command, "cyan")), soft_wrap=True)


def use_utf8() -> None:
    """Write UTF-8 whatever the system's habit, so that lyrics and boxes survive everywhere."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
