"""Several seeds: one after another or side by side, each the run it would be alone."""

import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time

import pytest
from program_runs import settings

from drakegpt.cli.run_launcher import RunLauncher
from drakegpt.config import resolve
from drakegpt.data import dataset
from drakegpt.errors import RunError
from drakegpt.experiments import launcher
from drakegpt.experiments.launcher import Job, Observer
from drakegpt.runs.create import create_run
from drakegpt.runs.lock import is_training
from drakegpt.runs.run import open_run
from drakegpt.runs.session import TrainingSession

TEXT = "the quick brown fox jumps over the lazy dog and then it runs away\n" * 60
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
SETTINGS = {"iters": 12, "eval_interval": 4, "eval_iters": 1}
# Long enough that processes are worth starting.
LONG = ("--iters", 2600, "--eval-interval", 1300, "--eval-iters", 1)


@pytest.fixture
def song(drakegpt, tmp_path):
    (tmp_path / "song.txt").write_text(TEXT)
    assert drakegpt("data", "fetch", tmp_path / "song.txt").code == 0


def weights(home, name):
    return open_run(home / "runs" / name).last_checkpoint().weights.read_bytes()


@pytest.mark.slow
def test_side_by_side_each_run_is_what_it_is_alone(program, song, home, tmp_path, monkeypatch):
    """An option from the environment, too, goes into the runs and not twice into their making.

    A file in the folder is not taken for a module.
    """
    (tmp_path / "random.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    seeds = ("--seed", 5, "--seeds", 2, "--name", "both")
    done = program("train", "TransformerLM", *LONG, *seeds, OMP_NUM_THREADS=2, DRAKEGPT_DROPOUT=0)
    assert done.code == 0, done.err
    assert "2 runs, 2 at a time" in done.err
    assert "2 of 2: TransformerLM on 'song', seed" in done.err
    alone = ("train", "TransformerLM", *LONG, "--dropout", 0, "--seed", 6, "--name", "alone", "-q")
    assert program(*alone, "--json").code == 0
    assert weights(home, "both_6") == weights(home, "alone") != weights(home, "both_5")
    losses = [float(loss) for loss in re.findall(r"│ \d +│ [\d.]+ │ +([\d.]+) │", done.out)]
    mean, spread = statistics.fmean(losses), statistics.stdev(losses)
    shown = re.search(r"Validation loss ([\d.]+) ± ([\d.]+)", done.out)
    assert [float(number) for number in shown.groups()] == pytest.approx([mean, spread], abs=2e-4)


def test_short_runs_follow_each_other(drakegpt, song):
    done = drakegpt("train", "BigramLM", "--iters", 5, "--eval-iters", 1, "--seeds", 3, "--json")
    assert done.code == 0, done.err
    assert [run["seed"] for run in done.json["runs"]] == [42, 43, 44]
    losses = [run["val_loss"] for run in done.json["runs"]]
    assert len(set(losses)) == 3
    assert done.json["val_loss"] == pytest.approx(statistics.fmean(losses))
    assert "3 of 3: BigramLM on 'song', seed 44" in done.err


def test_seeds_make_new_runs(drakegpt, song):
    refused = drakegpt("train", "BigramLM", "--seeds", 2, "--resume")
    assert refused.code == 2
    assert "Resume each run by its name" in refused.err
    refused = drakegpt("train", "BigramLM", "--seeds", 2, WORLD_SIZE=2)
    assert refused.code == 2
    assert "torchrun" in refused.err


@pytest.fixture
def start(song):
    """Begin training of three seeds without end, two at a time; killed when the test is over."""
    begun = []

    def go(threads=2):
        command = [sys.executable, "-m", "drakegpt", "train", "TransformerLM", "--iters", "1000000"]
        begun.append(subprocess.Popen(
            [*command, "--eval-interval", "50", "--eval-iters", "1", "--seeds", "3", "--name", "r"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        ))  # fmt: skip
        return begun[-1]

    yield go
    for process in begun:
        process.kill()
        process.communicate()


def wait_until(condition):
    patience = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.05)


def wait_for(process, *conditions):
    """Wait for something that a process does."""
    wait_until(lambda: process.poll() is not None or all(condition() for condition in conditions))
    assert process.poll() is None, process.communicate()


def learning(folder):
    """Whether a run has been evaluated, and so is at work."""
    metrics = folder / "metrics.jsonl"
    return lambda: metrics.exists() and metrics.stat().st_size > 0


@pytest.mark.slow
@posix
def test_asked_to_stop_all_of_them_are_saved(drakegpt, start, home):
    process, runs = start(), home / "runs"
    wait_for(process, learning(runs / "r_42"), learning(runs / "r_43"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert out == b""
    assert "2 runs saved, 1 not started" in err.decode()
    rest = re.search(
        r"Next: drakegpt (train TransformerLM .*--seed 44 .*--name r_44)", err.decode()
    )
    for name in ("r_42", "r_43"):
        assert f"Next: drakegpt train --resume {name}" in err.decode()
        saved = open_run(runs / name).last_checkpoint().iteration
        more = drakegpt("train", "--resume", name, "--iters", saved + 5, "--json", "-q")
        assert more.json["iterations"] == saved + 5  # and nobody else is at it
    assert not (runs / "r_44").exists()
    assert drakegpt(*shlex.split(rest[1]), "--iters", 5, "-q").code == 0
    assert open_run(runs / "r_44").config.seed == 44


@pytest.mark.slow
@posix
@pytest.mark.parametrize("how", ["killed", "told again and again", "hung up"])
def test_nothing_goes_on_alone(start, home, how):
    """However the command ends, its processes save and end too."""
    process, runs = start(), home / "runs"
    wait_for(process, learning(runs / "r_42"), learning(runs / "r_43"))
    if how == "killed":
        process.kill()
    elif how == "hung up":  # as by closing the terminal
        process.send_signal(signal.SIGHUP)
    else:
        for _ in range(4):
            process.send_signal(signal.SIGINT)
            time.sleep(0.08)
    process.communicate(timeout=60)
    for name in ("r_42", "r_43"):
        run = open_run(runs / name)
        wait_until(lambda run=run: not is_training(run))
        assert run.last_checkpoint().iteration > 0


@pytest.mark.slow
@posix
def test_stopped_at_its_start_it_says_what_is_there(start, home):
    process, runs = start(), home / "runs"
    wait_for(process, lambda: (runs / "r_42" / "config.toml").exists())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    told = re.search(r"(\d) runs? saved, (\d) not started", err.decode())
    saved, not_begun = map(int, told.groups())
    assert saved + not_begun == 3
    there = sorted(folder.name for folder in runs.iterdir())
    assert there == re.findall(r"train --resume (\w+)", err.decode())
    assert len(there) == saved
    assert len(re.findall("--name r_4", err.decode())) == not_begun
    for name in there:
        assert open_run(runs / name).last_checkpoint()


@pytest.mark.slow
@posix
def test_asked_to_stop_those_after_it_are_named(start, home):
    process = start(threads=1)  # one after another
    wait_for(process, learning(home / "runs" / "r_42"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert "Next: drakegpt train --resume r_42" in err.decode()
    assert re.findall(r"Next: .*--seed 4\d .*--name (r_4\d)", err.decode()) == ["r_43", "r_44"]


@pytest.mark.slow
def test_when_one_fails_it_says_why_and_the_others_are_saved(start, home):
    process, runs = start(), home / "runs"
    wait_for(process, learning(runs / "r_42"), learning(runs / "r_43"))
    (runs / "r_42").rename(home / "elsewhere")  # in one step, though it is written just now
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err.decode()
    assert "Error: Training r_42 failed: The run's folder" in err.decode()
    assert "Traceback" not in err.decode()
    assert open_run(runs / "r_43").last_checkpoint().iteration > 0


def test_nothing_is_trained_if_one_could_not_be(drakegpt, song, home):
    few = ("--iters", 3, "--eval-iters", 1, "-q")
    assert drakegpt("train", "BigramLM", *few, "--name", "x_44").code == 0
    for wrong, why in (
        (("--name", "x"), "There is a run named 'x_44' already"),
        (("--seed", 2**32 - 1), "seed"),
    ):
        refused = drakegpt("train", "BigramLM", *few, "--seeds", 3, *wrong)
        assert refused.code == 2, refused.err
        assert why in refused.err
    assert [folder.name for folder in (home / "runs").iterdir()] == ["x_44"]


def test_what_is_taken_up_is_kept_as_asked_for_now(prepared):
    given = {"iters": 12, "eval_interval": 4, "eval_iters": 1}
    before = resolve("BigramLM", "default", prepared.name, given | {"save_interval": 3})
    with TrainingSession(create_run(before, prepared, "cut")) as recorder:
        for report in recorder.reports():
            if report.iteration == 7:
                break
    now = resolve("BigramLM", "default", prepared.name, given | {"device": "cpu"})
    run = launcher._start_or_resume(Job(now), prepared, Observer(), resume=True)
    assert (run.name, run.config.device, run.config.save_interval) == ("cut", "cpu", 0)
    assert open_run(run.folder).config == before  # until it goes on
    with TrainingSession(run, resume=True):
        pass
    assert open_run(run.folder).config == run.config


@pytest.mark.parametrize("seen_at_work", [1, 2, 3])
def test_a_process_may_end_at_any_moment(prepared, monkeypatch, capsys, seen_at_work):
    """The screen shows its end, or its error, just after it was seen running too."""
    config = resolve("BigramLM", "default", prepared.name, {"iters": 1, "eval_iters": 1})

    class Ending:
        def __init__(self, run, title):
            self.run, self.title, self.seen = run, title, 0

        @property
        def running(self):
            self.seen += 1
            return self.seen <= seen_at_work

        def check(self):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        stop = check

    monkeypatch.setattr(launcher, "_WorkerProcess", Ending)
    monkeypatch.setattr(launcher, "_count_at_once", lambda *_: 2)
    monkeypatch.setattr(launcher, "POLL_SECONDS", 0.001)
    RunLauncher(prepared, quiet=False, resume=False)(
        [Job(config, name=name) for name in ("a", "b", "c")]
    )
    told = capsys.readouterr().err
    assert all(f"{number} of 3: BigramLM" in told for number in (1, 2, 3))

    def fail(process):
        raise RunError("It failed.", "")

    monkeypatch.setattr(Ending, "check", fail)
    with pytest.raises(RunError, match="It failed"):
        RunLauncher(prepared, quiet=True, resume=False)(
            [Job(config, name=name) for name in ("d", "e")]
        )


def test_compare_goes_on_with_what_was_interrupted(drakegpt, song, home):
    """The run of one rung was killed; its others are trained, and it ends as it would have."""
    few = ("--iters", 12, "--eval-interval", 4, "--eval-iters", 1)
    whole = drakegpt("train", "BlocksLM", *few, "--name", "whole", "--json", "-q").json
    (home / "runs" / "whole").rename(home / "whole")
    run = create_run(resolve("BlocksLM", "default", "song", SETTINGS), dataset.load("song"), "cut")
    with TrainingSession(run) as recorder:
        for report in recorder.reports():
            if report.iteration == 7:
                recorder.save()
                break
        beside = drakegpt("compare", "--train", *settings(*few), "--json")  # while another is at it
        assert "Resuming" not in beside.err
        assert "cut" not in [row["runs"][0]["run"] for row in beside.json["rows"]]
    for name in os.listdir(home / "runs"):
        if name != "cut":
            shutil.rmtree(home / "runs" / name)
    shown = drakegpt("compare", "--train", *settings(*few), "--json")
    assert shown.code == 0, shown.err
    assert "Resuming cut" in shown.err
    (row,) = (row for row in shown.json["rows"] if row["model"] == "BlocksLM")
    assert row["runs"][0]["run"] == "cut"
    assert row["val_loss"] == whole["val_loss"]


def test_all_seeds_begin_with_the_same_weights(drakegpt, song, home):
    """A model's name is its latest run, which by the second seed would be the first."""
    few = ("--iters", 3, "--eval-iters", 1, "-q")
    assert drakegpt("train", "BigramLM", *few, "--name", "start").code == 0
    begun = ("--init-from", "BigramLM", "--seeds", 3, "--name", "more")
    assert drakegpt("train", "BigramLM", *few, *begun).code == 0
    for seed in (42, 43, 44):
        assert open_run(home / "runs" / f"more_{seed}").config.init_from == "start"


@posix
@pytest.mark.parametrize("minded", [True, False])
def test_a_closed_terminal_saves_unless_told_not_to_mind(minded):
    """SIGHUP asks to stop; under nohup, which ignores it, training goes on."""
    code = (
        "import os, signal\n"
        f"minded = {minded}\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL if minded else signal.SIG_IGN)\n"
        "from drakegpt.cli.interrupts import Interrupts\n"
        "with Interrupts() as interrupts:\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "assert interrupts.requested == minded\n"
        "expected = signal.SIG_DFL if minded else signal.SIG_IGN\n"
        "assert signal.getsignal(signal.SIGHUP) == expected\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
