"""A process that trains and scores one run, for `launcher`, beside others like it.

`launcher` holds the other end of its stdin. When that is closed, by `launcher` or
because the whole command is gone, however that came, the run is saved and ends.
An error that ends it goes to stdout as it is, pickled.
"""

import _thread
import json
import os
import pickle
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

STOPPED = 130


class _Stop:
    """Turns an interrupt into a question while a run is in training; else it ends the process."""

    def __init__(self) -> None:
        self.training = False
        self.asked = False

    def interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked or not self.training:
            raise KeyboardInterrupt
        self.asked = True


def main() -> None:
    """Train the run whose folder is the first argument, with the changed settings of the second."""
    stop = _Stop()
    signal.signal(signal.SIGINT, stop.interrupt)
    threading.Thread(target=_interrupt_with_stdin, daemon=True).start()
    answer = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    try:
        sys.exit(0 if _train(Path(sys.argv[1]), json.loads(sys.argv[2]), stop) else STOPPED)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except Exception as error:
        traceback.print_exc()
        with suppress(Exception), os.fdopen(answer, "wb") as file:  # not every error can be pickled
            file.write(pickle.dumps(error))
        sys.exit(1)


def _train(folder: Path, changes: dict[str, Any], stop: _Stop) -> bool:
    """Train what is left of a run and score it; whether it came to its end."""
    from drakegpt.runs.run import open_run, with_changes
    from drakegpt.runs.scores import score_run
    from drakegpt.runs.session import train_run

    run = with_changes(open_run(folder), changes)
    stop.training = True
    train_run(run, resume=True, stop=lambda: stop.asked)
    stop.training = False
    if stop.asked:  # perhaps only just too late to stop its training
        return False
    score_run(run, run.config.device)
    return True


def _interrupt_with_stdin() -> None:
    """When stdin ends, do as Ctrl-C does."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    _thread.interrupt_main()


if __name__ == "__main__":
    main()
