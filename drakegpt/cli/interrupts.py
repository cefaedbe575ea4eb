"""Ctrl-C and SIGTERM while a model trains: the first requests a stop, the second stops now.

A terminal that is closed counts as well, unless the program ignores that (nohup).
"""

import signal
from types import FrameType
from typing import Self

from drakegpt.cli import console

_HANGUP = getattr(signal, "SIGHUP", None)
_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP else [])]


class Interrupts:
    """In a `with` statement, sets `requested` on the first signal."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if number == _HANGUP:  # nobody reads it
            return
        console.note(
            "Finishing this iteration, then saving. Press Ctrl-C again to stop now.", style=""
        )
