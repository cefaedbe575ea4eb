"""Streams and exit codes, in one place.

Results go to stdout: text and tables, or exactly one JSON object. Progress,
notes, warnings and errors go to stderr.
"""

import json
import logging
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

from rich.console import Console
from rich.text import Text

from drakegpt.errors import DrakeGPTError

PIPED_WIDTH = 140  # nobody's window limits what goes to a file or another program
INTERRUPTED = 130


@cache
def results() -> Console:
    """Stdout, for people."""
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(width=width, highlight=False, emoji=False)


@cache
def messages() -> Console:
    """Stderr, for people."""
    width = None if sys.stderr.isatty() else PIPED_WIDTH
    return Console(stderr=True, width=width, highlight=False, emoji=False)


def show(renderable: Any, **how: Any) -> None:
    """A result, on stdout. Strings are text, never markup."""
    results().print(Text(renderable) if isinstance(renderable, str) else renderable, **how)


def show_json(value: Any) -> None:
    """The result as one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def note(text: str, style: str = "dim") -> None:
    """Something worth knowing, on stderr."""
    messages().print(Text(text, style=style), soft_wrap=True)


def warn(text: str) -> None:
    """Something that may surprise, on stderr."""
    messages().print(Text.assemble(("Note: ", "yellow"), text), soft_wrap=True)


class _Warnings(logging.Handler):
    """Shows what the library logs as warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning on stderr."""
        warn(record.getMessage())


def pass_on_warnings() -> None:
    """Let the library's warnings appear as notes."""
    logging.getLogger("drakegpt").addHandler(_Warnings(logging.WARNING))


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
