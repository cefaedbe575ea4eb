"""Nothing is ever lost: real training processes, killed again and again."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

TEXT = "the quick brown fox jumps over the lazy dog and then it runs away\n" * 60
KILLS = 22
SETTINGS = ("--iters", 1500, "--eval-interval", 30, "--eval-iters", 2, "--save-interval", 3,
            "--schedule", "plateau", "--grad-clip", 1, "--seed", 3)  # fmt: skip
TIMES = ("seconds", "tokens_per_second")


def start(*arguments):
    """A training process of its own group, its messages kept."""
    command = [sys.executable, "-m", "drakegpt", "train", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def saving(checkpoints):
    """Whether a checkpoint is half written at this moment."""
    try:
        return any(name.endswith(".unfinished") for name in os.listdir(checkpoints))
    except FileNotFoundError:
        return False


def newest(checkpoints):
    try:
        return max((name for name in os.listdir(checkpoints) if name.isdigit()), default="")
    except FileNotFoundError:
        return ""


@pytest.fixture
def song(drakegpt, tmp_path):
    (tmp_path / "song.txt").write_text(TEXT)
    assert drakegpt("data", "fetch", tmp_path / "song.txt").code == 0


@pytest.mark.slow
def test_killed_anywhere_a_run_ends_with_the_same_bytes(drakegpt, song, home):
    from drakegpt.runs.run import open_run

    chance = random.Random(time.time_ns())
    done = drakegpt("train", "TransformerLM", *SETTINGS, "--name", "whole", "-q")
    assert done.code == 0, done.err
    folder = home / "runs" / "broken"
    checkpoints = folder / "checkpoints"
    during_a_save = 0
    process = start("TransformerLM", *SETTINGS, "--name", "broken", "-q")
    for kill in range(KILLS):
        before = newest(checkpoints)
        patience = time.monotonic() + 60
        if kill % 5 != 0:  # every fifth is killed somewhere in its start, the others in training
            while newest(checkpoints) == before and time.monotonic() < patience:
                assert process.poll() is None, process.communicate()
                time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.25) if kill % 5 else chance.uniform(0, 1.5))
        if kill % 2:  # wait for the middle of a save
            while not saving(checkpoints) and time.monotonic() < patience:
                pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()
        during_a_save += saving(checkpoints)
        if not folder.exists():  # killed before the run began
            process = start("TransformerLM", *SETTINGS, "--name", "broken", "-q")
        else:
            process = start("--resume", "broken", "-q")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    assert during_a_save >= 1
    whole, broken = open_run(home / "runs" / "whole"), open_run(folder)
    for file in ("best.safetensors", "checkpoints/00001500/weights.safetensors"):
        assert (broken.folder / file).read_bytes() == (whole.folder / file).read_bytes(), file
    histories = [
        [{k: v for k, v in line.items() if k not in TIMES} for line in run.metrics]
        for run in (whole, broken)
    ]
    assert histories[0] == histories[1]
    assert [line["iteration"] for line in broken.evaluations] == list(range(30, 1501, 30))
    assert not saving(checkpoints)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(drakegpt, song, home, number):
    process = start("BlocksLM", "--iters", 100_000, "--eval-iters", 1, "--name", "r")
    metrics = home / "runs" / "r" / "metrics.jsonl"
    process.stderr.readline()  # the sample's first lines come once training is under way
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.01)
        if newest(home / "runs" / "r" / "checkpoints") or (home / "runs" / "r").exists():
            time.sleep(2.5)
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert out == b""
    text = err.decode()
    assert "Next: drakegpt train --resume r" in text
    assert "Traceback" not in text
    stopped = int(text.split("Stopped at iteration ")[1].split(";")[0].replace(",", ""))
    assert newest(home / "runs" / "r" / "checkpoints") == f"{stopped:08d}"
    more = drakegpt("train", "--resume", "--iters", stopped + 5, "--json", "-q")
    assert more.code == 0, more.err
    assert more.json["iterations"] == stopped + 5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_asked_twice_it_stops_at_once(song, home):
    # An evaluation of many batches takes a while: the first signal waits for it, the second not.
    process = start("TransformerLM", "--eval-iters", 100_000, "--eval-interval", 5, "--name", "r")
    while not (home / "runs" / "r" / ".lock").exists():
        time.sleep(0.01)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == 130
    assert b"Traceback" not in err
