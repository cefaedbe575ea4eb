"""Streams and exit codes, in one place.

Results go to stdout: text and tables, or exactly one JSON object. Progress,
notes, warnings and errors go to stderr.

A reader of either that has gone has had enough: what else would be written goes
nowhere, and the work goes on.

Names, paths, lyrics and other people's messages are text on both: never markup,
and on a terminal never orders to it. Text that a screen shows is made here, by
`styled` and by `Screen`, and what is written without rich goes through `write`.
"""

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from typing import IO, Any, TextIO

from rich.console import Console
from rich.text import Text

from drakegpt.errors import DrakeGPTError
from drakegpt.wording import CONTROLS, escape_control_characters

PIPED_WIDTH = 140  # nobody's window limits what goes to a file or another program
INTERRUPTED = 130


class Screen(Console):
    """One of the two streams, as rich draws on it; strings are text, not markup.

    It is `limited` where lines cannot be longer than its `width`, a window's if not given.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, highlight=False, emoji=False, markup=False)
        self.limited = bool(width) or self.file.isatty()
        if not self.limited:
            self.width = PIPED_WIDTH

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as rich does, but where no terminal is, with the characters that it drops."""
        if self.file.isatty():
            super().print(*objects, **how)
            return
        with self.capture() as captured:
            super().print(*objects, **how)
        self._write(captured.get().translate(_KEPT_OUT))

    def put(self, text: str) -> None:
        """Write a line as it is, neither wrapped nor styled."""
        self._write(self.text(text) + "\n")

    def _write(self, text: str) -> None:
        try:
            self.file.write(text)
            self.file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Write the rest nowhere; rich would end the program without a word."""
        _silence(self.file)

    @contextmanager
    def at_least(self, width: int) -> Iterator[None]:
        """Have lines be so long within the block, where they may be."""
        usual = self.width
        if not self.limited:
            self.width = max(width, usual)
        try:
            yield
        finally:
            if not self.limited:
                self.width = usual

    def text(self, text: str) -> str:
        """A text as this stream gets it: visible on a terminal, as it is elsewhere."""
        return escape_control_characters(text) if self.file.isatty() else text

    def drawn(self, text: str) -> str:
        """A text as rich gets it, to draw it on this stream by `print`."""
        return escape_control_characters(text) if self.file.isatty() else text.translate(_KEPT_IN)

    def render_str(self, text: str, **how: Any) -> Text:
        """The cells and titles of tables, and whatever else is given as a string."""
        return super().render_str(self.drawn(text), **how | {"markup": False})


# Rich drops some control characters, and makes spaces of tabs. Where they are to stay, surrogates
# that no text has stand for them as long as it draws.
_KEPT_IN = {code: 0xD800 + code for code in map(ord, "\a\b\t\v\f\r")}
_KEPT_OUT = {surrogate: code for code, surrogate in _KEPT_IN.items()}


@cache
def results() -> Screen:
    """Stdout, for people."""
    return Screen(stderr=False)


@cache
def messages() -> Screen:
    """Stderr, for people."""
    return Screen(stderr=True)


def styled(text: str, style: str = "", screen: Screen | None = None) -> Text:
    """A text in a style, for `screen`: the results' if none is given."""
    return Text((screen or results()).drawn(text), style=style)


def show(renderable: Any, **how: Any) -> None:
    """A result, on stdout. Strings are text, never markup."""
    with _explained():
        results().print(styled(renderable) if isinstance(renderable, str) else renderable, **how)


def show_text(text: str) -> None:
    """A text of others, on stdout: neither wrapped nor styled, and in a pipe as it is."""
    with _explained():
        results().put(text)


def write(text: str) -> None:
    """A piece of such a text, not flushed; raises `OSError` if it cannot be written."""
    sys.stdout.write(results().text(text))


# JSON leaves most of these as they are; escaped they are the same value.
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in CONTROLS}


def show_json(value: Any) -> None:
    """The result as one JSON object on stdout."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    with _explained():
        sys.stdout.write(text.translate(_JSON_ESCAPES) + "\n")
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


def _silence(stream: IO[str]) -> None:
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
    _forget_impossible_windows()
    with redirect_stdout(sys.stdout), redirect_stderr(_Messages(sys.stderr)):
        try:
            yield
        finally:
            try:
                sys.stdout.flush()
            except OSError:  # at a full disk, the results before have said so
                _silence(sys.stdout)


def _forget_impossible_windows() -> None:
    """Leave out sizes of a window that none has; rich and typer believe any of the environment."""
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        if not re.fullmatch(r"[1-9][0-9]{0,3}", os.environ.get(name, "")):
            os.environ.pop(name, None)


def note(text: str, style: str = "dim") -> None:
    """Something worth knowing, on stderr."""
    _say((text, style))


def warn(text: str) -> None:
    """Something that may surprise, on stderr."""
    _say(("Note: ", "yellow"), (text, ""))


def _say(*parts: tuple[str, str]) -> None:
    screen = messages()
    if screen.is_terminal:
        said = Text.assemble(*(styled(text, style, screen) for text, style in parts))
        screen.print(said, soft_wrap=True)
    else:
        screen.put("".join(text for text, _ in parts))


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
    """Print an error and how to fix it; return the exit code."""
    _say(("Error: ", "bold red"), (error.problem, ""))
    _say((error.fix, ""))
    return error.exit_code


def next_commands(commands: Iterable[str]) -> None:
    """What to try next, on stderr."""
    for command in commands:
        _say(("Next: ", "dim"), (command, "cyan"))


def use_utf8() -> None:
    """Write UTF-8 whatever the system's habit, so that lyrics and boxes survive everywhere."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
