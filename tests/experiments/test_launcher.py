"""Training several runs, without the command line: resuming, errors and the ends of processes."""

import pickle
import shutil

import pytest

from drakegpt.config import resolve
from drakegpt.errors import DivergedError, RunError
from drakegpt.experiments import launcher
from drakegpt.experiments.launcher import Job, Observer, train_runs
from drakegpt.runs.create import create_run
from drakegpt.runs.run import open_run
from drakegpt.runs.session import TrainingSession

SETTINGS = {"iters": 12, "eval_interval": 4, "eval_iters": 1}


def test_a_resumed_run_has_the_device_and_storage_given_now(prepared):
    before = resolve("BigramLM", "default", prepared.name, SETTINGS | {"save_interval": 3})
    with TrainingSession(create_run(before, prepared, "cut")) as session:
        for report in session.reports():
            if report.iteration == 7:
                break
    now = resolve("BigramLM", "default", prepared.name, SETTINGS | {"device": "cpu"})
    run = launcher._start_or_resume(Job(now), prepared, Observer(), resume=True)
    assert (run.name, run.config.device, run.config.save_interval) == ("cut", "cpu", 0)
    assert open_run(run.folder).config == before  # until it goes on
    with TrainingSession(run, resume=True):
        pass
    assert open_run(run.folder).config == run.config


def test_the_error_that_ends_a_process_is_raised_here(prepared):
    """Without an error that can be unpickled, the last message of the process is quoted."""
    run = create_run(resolve("BigramLM", "default", prepared.name, SETTINGS), prepared, "gone")
    shutil.rmtree(run.folder)
    with launcher._WorkerProcess(run, "gone") as process:
        process._process.wait(60)
        with pytest.raises(RunError, match="Training gone failed: .*is not a whole run") as refused:
            process.check()
        assert refused.value.fix == "Remove it: `drakegpt runs remove gone`; or train it again."
        answer(process, pickle.dumps(DivergedError("It grew.", "Lower it.")))
        with pytest.raises(DivergedError, match=r"Training gone failed: It grew\. Lower it\."):
            process.check()
        answer(process, pickle.dumps(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            process.check()
        process._messages.seek(0)
        process._messages.truncate()
        process._messages.write(b"warning\nPython: no room")
        for nothing_known in (b"", b"garbage", pickle.dumps("text"), pickle.dumps(KeyError("x"))):
            answer(process, nothing_known)
            with pytest.raises(RunError, match=r"ended with code 1: Python: no room"):
                process.check()


def answer(process, content):
    process._answer.seek(0)
    process._answer.truncate()
    process._answer.write(content)


class Listener(Observer):
    """Notes the last state of each run."""

    def __init__(self):
        self.running = {}

    def poll(self, run, title, *, running):
        self.running[run.name] = running


@pytest.mark.parametrize("polls_while_running", [1, 2, 3])
def test_a_process_may_end_at_any_moment(prepared, monkeypatch, polls_while_running):
    """Its end is reported, and its error raised, just after it was seen running too."""
    config = resolve("BigramLM", "default", prepared.name, {"iters": 1, "eval_iters": 1})

    class Ending:
        def __init__(self, run, title):
            self.run, self.title, self.polls = run, title, 0

        @property
        def running(self):
            self.polls += 1
            return self.polls <= polls_while_running

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
    listener = Listener()
    train_runs([Job(config, name=name) for name in "abc"], prepared, observer=listener)
    assert listener.running == {"a": False, "b": False, "c": False}

    def fail(process):
        raise RunError("It failed.", "")

    monkeypatch.setattr(Ending, "check", fail)
    with pytest.raises(RunError, match="It failed"):
        train_runs([Job(config, name=name) for name in "de"], prepared)
