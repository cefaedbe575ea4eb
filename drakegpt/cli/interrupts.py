"""Ctrl-C and SIGTERM while a model trains: the first asks it to stop, the second stops at once."""

import signal
from types import FrameType
from typing import Self

from drakegpt.cli import console


class Interrupts:
    """In a `with` statement, turns the first signal into `requested`."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._take_note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _take_note(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        console.note("Finishing this iteration, then saving. Once more stops at once.", style="")
