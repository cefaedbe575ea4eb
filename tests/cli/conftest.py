"""A terminal for the program, and a run for it to work with."""

import logging
import os
import re
import sys
import threading
from types import SimpleNamespace

import pytest
from learning import prepare, small_text

from drakegpt.cli import console


@pytest.fixture
def terminal(monkeypatch):
    """Run the program within this process at a pseudo-terminal; returns its code and its screen.

    The screen comes without rich's own sequences, once it is sure that there are no others.
    """
    pty = pytest.importorskip("pty")

    def run(*arguments, function=None, columns=700):
        master, slave = pty.openpty()
        parts = []

        def read():
            try:
                while part := os.read(master, 4096):
                    parts.append(part)
            except OSError:  # Linux's way to say that the other end is closed
                pass

        reader = threading.Thread(target=read)
        reader.start()
        with monkeypatch.context() as patch, os.fdopen(slave, "w", encoding="utf-8") as screen:
            patch.setattr(sys, "argv", ["drakegpt", *map(str, arguments)])
            patch.setattr(sys, "stdout", screen)
            patch.setattr(sys, "stderr", screen)
            patch.setenv("TERM", "xterm-256color")
            patch.setenv("COLUMNS", str(columns))
            clear_consoles()
            code = 0
            try:
                if function:
                    console.show_warnings()
                    function()
                else:
                    from drakegpt.cli.app import main

                    main()
            except SystemExit as stop:
                code = stop.code or 0
            finally:
                clear_consoles()
                logging.getLogger("drakegpt").handlers.clear()
                screen.flush()
        reader.join()
        os.close(master)
        shown = b"".join(parts).decode("utf-8")
        check_terminal(shown)
        return SimpleNamespace(code=code, text=without_styles(shown).replace("\r\n", "\n"))

    return run


def train_r(drakegpt):
    prepare(small_text())
    done = drakegpt("train", "BigramLM", "--iters", 2, "--eval-iters", 1, "-q", "--name", "r")
    assert done.code == 0, done.err


@pytest.fixture
def trained(home_as):
    """A home with a dataset and a short run, named r."""
    home_as(train_r)


def clear_consoles():
    console.results.cache_clear()
    console.messages.cache_clear()


def without_styles(shown):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def check_terminal(shown):
    assert "\x1b]" not in shown  # titles, clipboards, links
    assert "\x1b[31mEVIL" not in shown
    for control in ("\x07", "\x08", "\x9b", "\u202e"):
        assert control not in shown
    assert "\x1b" not in without_styles(shown)
