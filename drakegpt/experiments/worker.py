"""A process that trains and scores one run for `launcher`, in parallel with others.

`launcher` holds the other end of its stdin. When that is closed, by `launcher` or
because the parent has ended in any way, the run is saved and the process ends. An error
that ends it is pickled to stdout.
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
    """Turns the first interrupt during training into a request; any other ends the process."""

    def __init__(self) -> None:
        self.training = False
        self.requested = False

    def interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested or not self.training:
            raise KeyboardInterrupt
        self.requested = True


def main() -> None:
    """Train the run in the folder `argv[1]` with the changed settings in `argv[2]`, as JSON."""
    stop = _Stop()
    signal.signal(signal.SIGINT, stop.interrupt)
    threading.Thread(target=_interrupt_with_stdin, daemon=True).start()
    answer = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keep stdout free of what libraries print
    try:
        sys.exit(0 if _train(Path(sys.argv[1]), json.loads(sys.argv[2]), stop) else STOPPED)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except Exception as error:
        traceback.print_exc()
        with suppress(Exception), os.fdopen(answer, "wb") as file:  # some errors cannot be pickled
            file.write(pickle.dumps(error))
        sys.exit(1)


def _train(folder: Path, changes: dict[str, Any], stop: _Stop) -> bool:
    """Train the rest of a run and score it; returns whether it was finished."""
    from drakegpt.runs.changes import change_settings
    from drakegpt.runs.run import open_run
    from drakegpt.runs.scores import score_run
    from drakegpt.runs.session import train_run

    run = change_settings(open_run(folder), changes)
    stop.training = True
    train_run(run, resume=True, stop=lambda: stop.requested)
    stop.training = False
    if stop.requested:  # perhaps after its last iteration
        return False
    score_run(run, run.config.device)
    return True


def _interrupt_with_stdin() -> None:
    """Interrupt the main thread when stdin is closed."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    _thread.interrupt_main()


if __name__ == "__main__":
    main()
