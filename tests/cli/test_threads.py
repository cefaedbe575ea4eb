"""How threads wait for each other is settled before PyTorch, which reads it once, is loaded."""

import os
import subprocess
import sys

import pytest

from drakegpt.cli.app import OPENMP_WAITING, let_threads_wait


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """None of the settings that there are."""
    kept = {k: v for k, v in os.environ.items() if k not in {"OMP_WAIT_POLICY", *OPENMP_WAITING}}
    monkeypatch.setattr(os, "environ", kept)


def test_threads_sleep_soon():
    let_threads_wait()
    assert os.environ.items() >= OPENMP_WAITING.items()


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", *OPENMP_WAITING])
def test_what_the_user_says_stays(name):
    os.environ[name] = "ACTIVE"
    before = dict(os.environ)
    let_threads_wait()
    assert os.environ == before


def test_pytorch_is_loaded_afterwards():
    code = "import sys, drakegpt.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
