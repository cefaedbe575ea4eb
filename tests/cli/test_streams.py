"""Streams that are closed, full or no longer read: nothing is lost, and no traceback ever."""

import os
import subprocess
import sys

import pytest
from learning import prepare, small_text

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX streams")
BRIEF = ("--eval-iters", 1, "--embedding-dim", 8, "--num-heads", 2, "--num-layers", 1,
         "--batch-size", 2, "--context-length", 4)  # fmt: skip
SAVED = ("TransformerLM", "--iters", 20, "--save-interval", 2, *BRIEF)


def shell(line, *arguments):
    """Run `drakegpt` by a shell, which alone can close its streams: `"$@" >&-`."""
    words = [sys.executable, "-m", "drakegpt", *map(str, arguments)]
    return subprocess.run(["sh", "-c", line, "sh", *words], capture_output=True, text=True)


def train_x(drakegpt):
    prepare(small_text())
    done = drakegpt("train", "TransformerLM", "--iters", 4, "--name", "x", *BRIEF, "-q")
    assert done.code == 0, done.err


def train_whole(drakegpt):
    prepare(small_text())
    done = drakegpt("train", *SAVED, "--name", "whole", "-q")
    assert done.code == 0, done.err


@pytest.fixture
def run(home_as):
    home_as(train_x)


COMMANDS = [
    ("data", "list", "--json"), ("generate", "x", "-n", 9), ("eval", "x"), ("runs", "show", "y"),
    ("train", "BigramLM", "--iters", 2, "--eval-iters", 1),
]  # fmt: skip
FULL = [
    ("runs",), ("runs", "list", "--json"), ("params", "--json"), ("generate", "x", "-n", 9),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(map(str, words)))
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_with_closed_streams_the_work_is_done(run, command, closed):
    done = shell(f'"$@" {closed}', *command)
    assert done.returncode == (1 if command[-1] == "y" else 0), done.stderr
    assert "Traceback" not in done.stderr
    if ">&-" not in closed.split():
        assert bool(done.stdout) == (command[-1] != "y")


@pytest.mark.slow
def test_training_goes_on_without_a_reader_of_its_messages(run, home):
    from drakegpt.runs.run import open_run

    done = shell('"$@" 2>&1 | head -1', "train", "BlocksLM", "--iters", 60, "--eval-interval", 5,
                 "--name", "p", *BRIEF)  # fmt: skip
    assert done.stdout.count("\n") == 1
    assert open_run(home / "runs" / "p").finished


@pytest.mark.parametrize("command", FULL[:2])
def test_a_reader_of_results_that_has_gone_ends_nothing_badly(run, command):
    done = shell('("$@"; echo "code $?" >&2) | true', *command)
    assert done.stderr == "code 0\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", FULL)
def test_results_that_find_no_room_are_an_error_in_a_sentence(run, command):
    done = shell('"$@" > /dev/full', *command)
    assert done.returncode == 1
    assert "The results cannot be written to stdout: No space left on device." in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_messages_that_find_no_room_end_no_training(run, home):
    from drakegpt.runs.run import open_run

    done = shell('"$@" 2> /dev/full', "train", "BigramLM", "--iters", 4, "--name", "p", *BRIEF)
    assert done.returncode == 0
    assert open_run(home / "runs" / "p").finished


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [2, 8, 16, 40])
def test_a_full_disk_is_told_in_a_sentence_and_nothing_is_lost(drakegpt, home_as, home, blocks):
    """A limit on a file's size stands for a full disk."""
    home_as(train_whole)
    train = ("train", *SAVED, "--name", "r")
    done = shell(f'ulimit -f {blocks}; "$@"', *train, "-q")
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert str(home) in done.stderr
        assert "File too large" in done.stderr
    more = ("train", "--resume", "r") if (home / "runs" / "r").exists() else train
    again = drakegpt(*more, "-q")
    assert again.code == 0, again.err
    last = "checkpoints/00000020/weights.safetensors"
    files = [(home / "runs" / name / last).read_bytes() for name in ("r", "whole")]
    assert files[0] == files[1]
