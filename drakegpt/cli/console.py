"""Streams and exit codes, in one place.

Results go to stdout: text and tables, or exactly one JSON object. Progress,
notes, warnings and errors go to stderr. If a reader closes either, further output is
dropped and the work continues.

Names, paths, lyrics and messages of other programs are text: never markup, and on a
terminal never control sequences. All text that is shown is made by `styled` or by
`Screen`; what is written without rich goes through `write`.
"""

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from typing import IO, Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from drakegpt.errors import DrakeGPTError
from drakegpt.wording import CONTROLS, escape_control_characters

PIPED_WIDTH = 140  # columns of tables to a file or another program
PROSE_WIDTH = 100  # and of sentences
INTERRUPTED = 130


class Screen(Console):
    """Stdout or stderr, as rich draws on it; strings are text, not markup.

    It is `limited` if lines cannot be longer than `width`, by default that of the window.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, highlight=False, emoji=False, markup=False)
        self.limited = bool(width) or self.file.isatty()
        if not self.limited:
            self.width = PIPED_WIDTH

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as rich does; off a terminal, with the control characters that rich drops."""
        if self.file.isatty():
            super().print(*objects, **how)
            return
        with self.capture() as captured:
            super().print(*objects, **how)
        self._write(captured.get().translate(_FROM_SURROGATES))

    def print_line(self, text: str) -> None:
        """Write a line, neither wrapped nor styled."""
        self._write(self.text(text) + "\n")

    def _write(self, text: str) -> None:
        try:
            self.file.write(text)
            self.file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Drop further output; rich would exit silently."""
        _silence(self.file)

    @contextmanager
    def at_least(self, width: int) -> Iterator[None]:
        """Widen lines to at least `width` within the block, unless the screen is limited."""
        before = self.width
        if not self.limited:
            self.width = max(width, before)
        try:
            yield
        finally:
            if not self.limited:
                self.width = before

    def text(self, text: str) -> str:
        """Return a text for this stream: on a terminal, with control characters escaped."""
        return escape_control_characters(text) if self.file.isatty() else text

    def drawn(self, text: str) -> str:
        """Return a text for rich, to be drawn on this stream by `print`."""
        return (
            escape_control_characters(text)
            if self.file.isatty()
            else text.translate(_TO_SURROGATES)
        )

    def render_str(self, text: str, **how: Any) -> Text:
        """Render cells and titles of tables, and whatever else is given as a string."""
        return super().render_str(self.drawn(text), **how | {"markup": False})


# Rich drops some control characters, and turns tabs into spaces. Off a terminal they are kept:
# while rich draws, surrogates, which no text has, stand for them.
_TO_SURROGATES = {code: 0xD800 + code for code in map(ord, "\a\b\t\v\f\r")}
_FROM_SURROGATES = {surrogate: code for code, surrogate in _TO_SURROGATES.items()}


@cache
def results() -> Screen:
    """Return the screen of stdout."""
    return Screen(stderr=False)


@cache
def messages() -> Screen:
    """Return the screen of stderr."""
    return Screen(stderr=True)


def styled(text: str, style: str = "", screen: Screen | None = None) -> Text:
    """Return a text in a style, for `screen`: by default that of the results."""
    return Text((screen or results()).drawn(text), style=style)


def show(renderable: Any, **how: Any) -> None:
    """Print a result on stdout. Strings are text, never markup."""
    if isinstance(renderable, str):
        renderable = styled(renderable)
        if not results().limited:
            how = {"width": PROSE_WIDTH, **how}
    with _report_write_errors():
        results().print(renderable, **how)


def show_text(text: str) -> None:
    """Print a text on stdout, neither wrapped nor styled, and in a pipe unchanged."""
    with _report_write_errors():
        results().print_line(text)


def write(text: str) -> None:
    """Write a piece of a text to stdout, not flushed; raises `OSError`."""
    sys.stdout.write(results().text(text))


# JSON leaves most of these unchanged; escaped they are the same value.
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in CONTROLS}


def show_json(value: Any) -> None:
    """Print the result as one JSON object on stdout."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    with _report_write_errors():
        sys.stdout.write(text.translate(_JSON_ESCAPES) + "\n")
        sys.stdout.flush()


@contextmanager
def _report_write_errors() -> Iterator[None]:
    """Raise an error that explains why stdout cannot be written, unless its reader closed it."""
    try:
        yield
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        raise explain_unwritable(error) from error


def explain_unwritable(error: OSError) -> DrakeGPTError:
    """Return the error for results that cannot be written; further output is dropped."""
    _silence(sys.stdout)
    return DrakeGPTError(
        f"The results cannot be written to stdout: {error.strerror or error}.",
        "Write them to a disk with free space.",
    )


class _Messages(io.TextIOBase):
    """Stderr; once it cannot be written, output is dropped and nothing fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._closed = stream, False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of stderr."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write a message, if stderr can be written."""
        return self._try(lambda: self._stream.write(text)) or len(text)

    def flush(self) -> None:
        """Flush stderr."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Return whether stderr is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of stderr."""
        return self._stream.fileno()

    def _try(self, action: Any) -> Any:
        if self._closed:
            return None
        try:
            return action()
        except OSError:
            self._closed = True
            _silence(self._stream)
            return None


def _silence(stream: IO[str]) -> None:
    """Drop further output to a stream, at which Python would otherwise fail on exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextmanager
def streams() -> Iterator[None]:
    """Make the standard streams writable in a `with` statement, even if they were closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the parent, as services and `>&-` do
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
    use_utf8()
    _remove_invalid_window_sizes()
    with redirect_stdout(sys.stdout), redirect_stderr(_Messages(sys.stderr)):
        try:
            yield
        finally:
            try:
                sys.stdout.flush()
            except OSError:  # a full disk, which was reported with the results
                _silence(sys.stdout)


def _remove_invalid_window_sizes() -> None:
    """Remove invalid window sizes from the environment, which rich and typer would use."""
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        if not re.fullmatch(r"[1-9][0-9]{0,3}", os.environ.get(name, "")):
            os.environ.pop(name, None)


def note(text: str, style: str = "dim") -> None:
    """Print a note on stderr."""
    _print_message((text, style))


def warn(text: str) -> None:
    """Print a warning on stderr."""
    _print_message(("Note: ", "yellow"), (text, ""))


def _print_message(*parts: tuple[str, str], wrapped: bool = True) -> None:
    """Print a message; on a terminal its lines end between words, unless it is to be copied."""
    screen = messages()
    if screen.is_terminal:
        message = Text.assemble(*(styled(text, style, screen) for text, style in parts))
        for line in _wrap_at_spaces(message, screen.width) if wrapped else (message,):
            screen.print(line, soft_wrap=True)
    else:
        screen.print_line("".join(text for text, _ in parts))


def _wrap_at_spaces(message: Text, width: int) -> Iterator[Text]:
    """Divide a message into lines between words; a word longer than a line, as a path, stays whole.

    Rich would cut such a word, which could not be copied then.
    """
    for paragraph in message.split("\n", allow_blank=True):
        offsets, used = [], 0
        for word in re.finditer(r"\S+\s*", paragraph.plain):
            if used and used + cell_len(word[0].rstrip()) > width:
                offsets.append(word.start())
                used = 0
            used += cell_len(word[0])
        for line in paragraph.divide(offsets):
            line.rstrip()
            yield line


class _Warnings(logging.Handler):
    """Prints the warnings that the library logs, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning on stderr."""
        text = record.getMessage()
        if text not in self._printed:
            self._printed.add(text)
            warn(text)


def show_warnings() -> None:
    """Print the warnings that the library logs; where the program runs again, by one handler."""
    logger = logging.getLogger("drakegpt")
    for earlier in [each for each in logger.handlers if isinstance(each, _Warnings)]:
        logger.removeHandler(earlier)
    logger.addHandler(_Warnings())


def fail(error: DrakeGPTError) -> int:
    """Print an error and how to fix it; return the exit code."""
    _print_message(("Error: ", "bold red"), (error.problem, ""))
    _print_message((error.fix, ""))
    return error.exit_code


def confirm_removal(names: Sequence[str]) -> None:
    """Ask whether these may be removed for good; raises `typer.Exit` if not."""
    import typer

    listed = messages().text(", ".join(names))
    try:
        answer = typer.confirm(f"Remove {listed} for good?", err=True)
    except typer.Abort:
        note("\nNobody answered: nothing is removed. --yes removes without asking.", style="")
        raise typer.Exit(1) from None
    if not answer:
        note("Nothing is removed.", style="")
        raise typer.Exit(1)


def next_commands(commands: Iterable[str]) -> None:
    """Print commands to try next, on stderr."""
    for command in commands:
        _print_message(("Next: ", "dim"), (command, "cyan"), wrapped=False)


def use_utf8() -> None:
    """Write UTF-8 whatever the system's encoding is, for lyrics and box characters."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
