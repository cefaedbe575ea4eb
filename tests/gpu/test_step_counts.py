"""What a training step moves, counted on a CPU, and on a stand-in GPU where there is one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from step_counts import Watch, new_trainer

PROGRAM = Path(__file__).parent / "step_counts.py"
CHECKOUT = PROGRAM.parents[2]


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_bytes_read_and_written_are_counted_and_views_are_not():
    a, b = torch.zeros(2, 3), torch.zeros(3, 5)
    with Watch() as watch:
        c = a @ b.t().t()
        c.add_(1)
        torch.empty(1000)
    counts = {name: (count.calls, count.bytes) for name, count in watch.counts.items()}
    product, added = 4 * (6 + 15 + 10), 4 * (10 + 10)
    assert counts == {"aten.mm.default": (1, product), "aten.add_.Tensor": (1, added)}


def test_settings_reach_the_trainer():
    trainer = new_trainer({"size": "default", "optimizer": "muon"}, torch.device("cpu"))
    assert (trainer.config.size, trainer.config.optimizer) == ("default", "muon")


@pytest.mark.slow
def test_a_step_is_counted_on_a_cpu():
    done = start('{"size": "default", "dropout": 0.0}', "--dry-run")
    assert done.returncode == 0, done.stderr
    _, whole, *rows = done.stdout.splitlines()
    operations, moved = re.fullmatch(r"(\d+) operations, 0 launches, ([\d.]+) MB", whole).groups()
    parts = [re.match(r" *(\d+) calls     0 launches +([\d.]+) MB  aten", row) for row in rows]
    assert sum(int(part[1]) for part in parts) == int(operations) > 100
    assert sum(float(part[2]) for part in parts) == pytest.approx(float(moved), abs=2)


def test_without_a_stand_in_launches_are_not_counted(monkeypatch):
    monkeypatch.delenv("NULLGPU", raising=False)
    done = start()
    assert done.returncode == 2
    assert "NULLGPU names no folder" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif("NULLGPU" not in os.environ, reason="NULLGPU names a stand-in GPU's folder")
@pytest.mark.skipif(torch.version.cuda is None, reason="needs a PyTorch built for CUDA")
def test_launches_are_counted_on_a_stand_in_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    done = start('{"size": "default", "compile": false}')
    assert done.returncode == 0, done.stderr
    assert "mode graph" in done.stdout
    assert int(re.search(r"(\d+) launches", done.stdout)[1]) > 100
