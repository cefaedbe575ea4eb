"""One of several runs that train side by side: a process that `several` starts for it.

`several` holds the other end of its stdin. When that is closed, by `several` or
because the whole command is gone, however that came, the run is saved and ends.
"""

import _thread
import os
import signal
import sys
import threading


def main() -> None:
    """Train the run whose folder is the first argument, from where it is; flags may follow."""
    # A shell may start what it puts in the background without ears for Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_stop_with_stdin, daemon=True).start()
    from drakegpt.cli import app

    sys.argv = ["drakegpt", "train", "--quiet", "--resume", *sys.argv[1:]]
    app.main()


def _stop_with_stdin() -> None:
    """When stdin ends, do as Ctrl-C does."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    _thread.interrupt_main()


if __name__ == "__main__":
    main()
