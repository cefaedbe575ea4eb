"""A stopwatch adds up the time of its blocks, and no other time."""

import contextlib
import time

import pytest

from drakegpt.compute.stopwatch import Stopwatch


def test_blocks_are_added_up_and_pauses_are_not(monkeypatch):
    now = iter([10.0, 12.5, 100.0, 101.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = Stopwatch()
    with watch:
        pass
    assert (watch.last, watch.seconds) == (2.5, 2.5)
    with contextlib.suppress(KeyError), watch:
        raise KeyError
    assert (watch.last, watch.seconds) == (pytest.approx(1.0), pytest.approx(3.5))
