"""Several processes train one run: as one process would, and nothing is lost when one dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from drakegpt.errors import UsageError
from drakegpt.runs.checkpoint import list_checkpoints, load_weights
from drakegpt.training.distributed import ProcessGroup, connect

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
TRAIN = ["-m", "drakegpt", "train", "TransformerLM", "--eval-iters", "2", "--quiet"]


def free_port():
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def two_processes(*arguments):
    """Start them; a port of their own keeps tests apart that run side by side."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*TORCHRUN, "--master-port", str(free_port()), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def output_of(*arguments):
    process = two_processes(*arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err


def test_shares_make_up_the_whole():
    shares = [ProcessGroup(rank, 3).shard(12) for rank in range(3)]
    assert [number for share in shares for number in range(12)[share]] == list(range(12))
    with pytest.raises(UsageError, match="12 windows cannot be split evenly over 5"):
        ProcessGroup(0, 5).shard(12)


def test_an_environment_that_only_half_says_so_means_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert connect() == ProcessGroup(0, 1)
    for name, value in {"RANK": "first", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="cannot connect"):
        connect()


@pytest.mark.slow
def test_gradients_are_those_of_the_whole_batch(prepared, tmp_path):
    """Each process computes half; the mean is what one process computes, within rounding."""
    script = tmp_path / "gradients.py"
    script.write_text(
        "import sys, torch\n"
        "from drakegpt.config import resolve\n"
        "from drakegpt.data import dataset\n"
        "from drakegpt.models.registry import build_model\n"
        "from drakegpt.training import distributed\n"
        "from drakegpt.training.trainer import Trainer\n"
        "here = distributed.connect()\n"
        "data = dataset.load(sys.argv[1])\n"
        "config = resolve('TransformerLM', 'default', data.name,\n"
        "                 {'iters': 3, 'eval_iters': 4, 'dropout': 0.0, 'grad_accumulation': 2})\n"
        "torch.manual_seed(config.seed)\n"
        "model = build_model(config.model_settings(data.tokenizer.vocab_size))\n"
        "parts = data.split('train'), data.split('val')\n"
        "trainer = Trainer(config, model, *parts, torch.device('cpu'), here)\n"
        "gradients, losses = [], []\n"
        "for report in trainer.reports():\n"
        "    gradients.append(trainer.optimizer.weights.gradient.clone())\n"
        "    losses.append(getattr(report, 'val_loss', None) or float(report.loss))\n"
        "torch.save((gradients, losses), f'{sys.argv[2]}_{here.size}_{here.rank}')\n"
        "distributed.disconnect()\n"
    )
    arguments = [str(script), prepared.name, str(tmp_path / "of")]
    output_of(*arguments)
    subprocess.run([sys.executable, *arguments], check=True, timeout=120)
    alone, *both = (torch.load(tmp_path / f"of_{name}") for name in ("1_0", "2_0", "2_1"))
    for gradients, losses in both:
        assert losses == pytest.approx(alone[1], abs=1e-5)
        for ours, expected in zip(gradients, alone[0], strict=True):
            assert torch.allclose(ours, expected, atol=1e-6, rtol=1e-4)
    assert alone[0][0].norm() > 0.1


@pytest.mark.slow
def test_one_set_of_files_and_one_voice(prepared):
    out, err = output_of(*TRAIN, "--iters", "6", "--name", "both", "--json")
    result = json.loads(out)
    run = Path(result["run"])
    assert [folder.name for folder in run.parent.iterdir()] == ["both"]
    assert result["iterations"] == 6
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 7
    assert err.count("Error") == 0


@pytest.mark.slow
def test_a_batch_that_cannot_be_split_is_refused(prepared):
    process = two_processes(*TRAIN, "--iters", "4", "--batch-size", "3")
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "cannot be split evenly over 2" in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_one_process_is_killed_and_the_run_goes_on_to_the_same_bytes(prepared, home):
    """With dropout, whose dice every process throws for itself."""
    settings = ["--iters", "400", "--save-interval", "20"]
    output_of(*TRAIN, *settings, "--name", "whole")
    process = two_processes(*TRAIN, *settings, "--name", "broken")
    runs = home / "runs"
    deadline = time.monotonic() + 60
    while not list_checkpoints(runs / "broken" / "checkpoints"):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
    workers = sorted(pid for pid, parent in pairs if parent == process.pid)
    os.kill(workers[-1], signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    last = list_checkpoints(runs / "broken" / "checkpoints")[-1]
    assert last.iteration < 400, "killed in time"
    output_of(*TRAIN[:3], "--resume", "broken", "--quiet")
    ends = [list_checkpoints(runs / name / "checkpoints")[-1] for name in ("whole", "broken")]
    assert [end.iteration for end in ends] == [400, 400]
    assert ends[0].weights.read_bytes() == ends[1].weights.read_bytes()
    assert load_weights(ends[0].weights)[0]
