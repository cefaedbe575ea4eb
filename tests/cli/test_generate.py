"""`drakegpt generate`: windows, several texts at once, and what becomes of them when stopped."""

import signal
import subprocess
import sys

import pytest
from learning import prepare

TEXT = "one two three four five six seven eight nine ten\n" * 80
PROGRAM = [sys.executable, "-m", "drakegpt", "generate", "mine"]


def train_mine(drakegpt, *settings):
    prepare(TEXT, "song")
    brief = ("--iters", 20, "--eval-iters", 2, "--quiet", "--name", "mine")
    done = drakegpt("train", "TransformerLM", *brief, *settings)
    assert done.code == 0, done.err


@pytest.fixture
def run(home_as):
    home_as(train_mine)


def texts(folder):
    return [path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())]


def test_several_texts_are_those_of_their_seeds(drakegpt, run):
    arguments = ("generate", "mine", "-n", 60, "--prompt", "one ")
    written = drakegpt(*arguments, "--num-samples", 3, "--seed", 5)
    alone = [drakegpt(*arguments, "--seed", seed).out.rstrip("\n") for seed in (5, 6, 7)]
    assert written.code == 0
    assert len(set(alone)) == 3
    for text in alone:
        assert text in written.out
    assert written.err.count("Saved as") == 3


def test_a_long_context_is_cached_and_said_so(drakegpt, home):
    train_mine(drakegpt, "--context-length", 32)
    ask = ("generate", "mine", "--seed", 1, "--json")
    told = "it drops to the last 16"
    automatic = drakegpt(*ask, "-n", 80)
    cached = drakegpt(*ask, "-n", 80, "--context-window", "cached")
    exact = drakegpt(*ask, "-n", 80, "--context-window", "exact")
    short = drakegpt(*ask, "-n", 32)
    assert [told in done.err for done in (automatic, cached, exact, short)] == [1, 1, 0, 0]
    text, same, other, start = (
        done.json["samples"][0]["text"] for done in (automatic, cached, exact, short)
    )
    assert text == same
    assert text != other
    assert text[:32] == other[:32] == start


def test_a_short_context_is_exact_unless_asked(drakegpt, run):
    ask = ("generate", "mine", "--seed", 1, "-n", 80)
    assert "longer than the context" not in drakegpt(*ask).err
    assert "drops to the last 4" in drakegpt(*ask, "--context-window", "cached").err
    assert drakegpt(*ask, "--context-window", "sliding").code == 2


@pytest.mark.slow
def test_interrupted_texts_are_all_kept(run, home):
    process = subprocess.Popen(
        [*PROGRAM, "-n", "1000000", "--num-samples", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # where tests run in the background, SIGINT may be ignored, and that is inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while b"Generating 3 texts at once" not in (line := process.stderr.readline()):
        assert line, "it ended without a word on how far it is"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    kept = texts(home / "generations")
    assert len(kept) == 3
    assert len({len(text) for text in kept}) == 1
    assert 100 < len(kept[0]) < 1_000_000
    for text in kept:
        assert text in out.decode()


@pytest.mark.slow
def test_texts_nobody_reads_to_the_end_are_kept(run, home):
    command = f"{' '.join(PROGRAM)} -n 40000 --num-samples 2 | head -c 10"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert [len(text) for text in texts(home / "generations")] == [40_000] * 2
