"""Ctrl-C and SIGTERM while a model trains: the first asks it to stop, the second stops at once.

So does a terminal that is closed, except for a program that was told not to mind (nohup).
"""

import signal
from types import FrameType
from typing import Self

from drakegpt.cli import console

_CLOSED = getattr(signal, "SIGHUP", None)
_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([_CLOSED] if _CLOSED else [])]


class Interrupts:
    """In a `with` statement, turns the first signal into `requested`."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._record_evaluation)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _record_evaluation(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if number == _CLOSED:  # nobody would read it
            return
        console.note("Finishing this iteration, then saving. Once more stops at once.", style="")
