"""The memory of a process of its own."""

import dataclasses
import subprocess
import sys

import pytest
from small_bench import CPU, tiny

from drakegpt.bench import memory, timing
from drakegpt.errors import RunError


def peak(config):
    order = ["textbook", "training", dataclasses.asdict(config)]
    return memory.peak_memory("The training of textbook", timing.work_briefly, order, CPU)


@pytest.mark.slow
def test_memory_is_what_a_process_of_its_own_needs():
    if sys.platform not in ("linux", "darwin"):
        assert peak(tiny()) is None
        return
    small = peak(tiny())
    large = peak(tiny(context_length=256, batch_size=64, num_heads=4))
    # four heads whose weights, 64 windows of 256 x 256 floats, are kept for the way back
    assert large - small > 4 * 64 * 256 * 256 * 4


def test_a_failure_in_the_other_process_is_explained(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nMemoryError: too much\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    words = r"The training of textbook ended with code 1: MemoryError: too much\."
    with pytest.raises(RunError, match=words):
        peak(tiny())
