"""A run with a time: its length is estimated anew, stored before it is used, and read again."""

import time

import pytest

from drakegpt.config import resolve
from drakegpt.errors import RunError, UsageError
from drakegpt.runs.changes import change_settings
from drakegpt.runs.create import create_run
from drakegpt.runs.run import open_run
from drakegpt.runs.run_trainer import LENGTHS, read_lengths
from drakegpt.runs.session import TrainingSession, train_run
from drakegpt.training.reports import Evaluation, Step
from drakegpt.training.schedules import LossHistory, learning_rate
from drakegpt.training.time_limit import Estimate, TimeLimit

SETTINGS = {
    "recipe": "fast", "iters": 100, "eval_interval": 40, "eval_iters": 1, "warmup_iters": 10,
    "minutes": 10.0, "save_interval": 7, "device": "cpu",
}  # fmt: skip


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it: `clock.now`."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    return Clock


def create(data, name, **changes):
    config = resolve("TransformerLM", "default", data.name, SETTINGS | changes)
    return create_run(config, data, name)


def train(run, clock, pace, **how):
    """Train a run whose steps take `pace(iteration)` seconds; returns the reports."""
    reports = []

    def progress(report):
        reports.append(report)
        if isinstance(report, Step):
            clock.now += pace(report.iteration)

    assert train_run(run, progress=progress, tokens_after=0, **how)
    return reports


def test_the_pace_of_the_last_interval_counts(clock):
    limit = TimeLimit(2000.0, tokens_at_end=10)
    limit.pass_iteration(0)
    clock.now += 50
    limit.pass_iteration(100)
    assert limit.estimate(100, 0.0) == 100 + 950 * 2  # two iterations a second
    assert limit.estimate(100, 5.0) == 100 + 900 * 2  # 50 s for scoring after it
    for iteration in range(110, 200, 10):
        clock.now += 20  # busy: half an iteration a second
        limit.pass_iteration(iteration)
    assert limit.estimate(190, 0.0) == 190 + (2000 - clock.now) // 2
    clock.now = 2001.0
    limit.pass_iteration(200)
    assert limit.estimate(200, 0.0) == 200


def test_no_more_iterations_than_epochs_allow(clock):
    limit = TimeLimit(2000.0, most=150)
    limit.pass_iteration(0)
    clock.now += 1
    limit.pass_iteration(100)
    assert limit.estimate(100, 0.0) == 150


@pytest.mark.parametrize(("slow", "expected"), [(1.0, 600), (2.0, 350), (0.5, 1100)])
def test_a_run_ends_on_time_though_its_pace_changes(prepared, clock, slow, expected):
    """Steps take a second, and from iteration 100 on another time."""
    run = create(prepared, "run")
    began = clock.now
    reports = train(run, clock, lambda iteration: 1.0 if iteration <= 100 else slow)
    assert clock.now - began == pytest.approx(600, rel=0.02)
    assert reports[-1].iteration == pytest.approx(expected, rel=0.02)
    assert isinstance(reports[-1], Evaluation)
    assert read_lengths(run.folder) == {
        report.iteration: report for report in reports if isinstance(report, Estimate)
    }
    last = [report.learning_rate for report in reports if isinstance(report, Step)][-1]
    assert last < 0.02 * run.config.max_lr  # the rate has fallen to the end


def test_a_run_with_a_time_resumes_to_the_same_bytes(prepared, clock):
    """Killed between checkpoints, and on a machine that is ten times faster afterwards."""
    whole, killed = create(prepared, "whole"), create(prepared, "killed")
    reports = train(whole, clock, lambda _: 1.0)
    lengths = (whole.folder / LENGTHS).read_text()
    with TrainingSession(killed, started=clock.now, tokens_after=0) as session:
        for report in session.reports():
            if isinstance(report, Step):
                clock.now += 1.0
                if report.iteration == 404:
                    break
    written = (killed.folder / LENGTHS).read_text()
    assert lengths.startswith(written)
    # All estimates that were made, as if it had been killed after the last of them.
    (killed.folder / LENGTHS).write_text(lengths)
    train(open_run(killed.folder), clock, lambda _: 0.1, resume=True)
    ends = [open_run(run.folder).last_checkpoint() for run in (whole, killed)]
    assert ends[0].iteration == ends[1].iteration == reports[-1].iteration
    assert ends[0].weights.read_bytes() == ends[1].weights.read_bytes()
    assert (killed.folder / LENGTHS).read_text() == lengths


def test_an_estimate_is_written_before_a_step_uses_it(prepared, clock):
    run = create(prepared, "run")
    with TrainingSession(run, started=clock.now, tokens_after=0) as session:
        for report in session.reports():
            clock.now += 1.0
            if isinstance(report, Estimate):
                assert read_lengths(run.folder)[report.iteration] == report
                assert session.trainer.config.iters != report.iters
                break


def test_more_time_is_a_new_part_with_a_warm_up(prepared, clock):
    run = create(prepared, "run", minutes=5.0)
    train(run, clock, lambda _: 1.0)
    done = open_run(run.folder).ending["iteration"]
    assert done == pytest.approx(300, rel=0.02)
    longer = change_settings(open_run(run.folder), {"minutes": 10.0})
    reports = train(longer, clock, lambda _: 1.0, resume=True)
    assert reports[-1].iteration == pytest.approx(600, rel=0.03)
    rates = [report.learning_rate for report in reports if isinstance(report, Step)]
    assert rates[0] == pytest.approx(run.config.max_lr / 10 * (rates[20] / run.config.max_lr), 0.2)
    assert rates[:10] == sorted(rates[:10])  # warms up
    assert "10 minutes" in open_run(run.folder).history


def test_a_fixed_length_ends_the_estimates(prepared, clock):
    run = create(prepared, "run", minutes=1.0)
    train(run, clock, lambda _: 1.0)
    fixed = change_settings(open_run(run.folder), {"iters": 90})
    assert (fixed.config.minutes, fixed.config.iters) == (0.0, 90)
    reports = train(fixed, clock, lambda _: 9.0, resume=True)
    assert reports[-1].iteration == 90
    assert not any(isinstance(report, Estimate) for report in reports)


@pytest.mark.parametrize("line", ["[]", "{}", '{"iteration": 1}', '{"iteration": 1, "iters": -1}',
                                  '{"iteration": 1, "iters": "9"}', "\0"])  # fmt: skip
def test_damaged_lengths_are_explained(prepared, line):
    run = create(prepared, "run")
    (run.folder / LENGTHS).write_text(line + "\n")
    with pytest.raises(RunError, match="damaged"):
        read_lengths(run.folder)


def test_epochs_at_most_need_a_time(prepared):
    with pytest.raises(UsageError, match="max_epochs"):
        resolve("BigramLM", "default", prepared.name, {"max_epochs": 3})


def test_the_warm_up_counts_from_the_start_of_a_part(prepared):
    config = resolve("TransformerLM", "default", prepared.name, SETTINGS | {"schedule": "constant"})
    rates = [learning_rate(config, 50 + step, LossHistory(2), 50) for step in range(12)]
    assert rates == pytest.approx([min(1, n / 10) * config.max_lr for n in range(1, 13)])


def test_a_run_without_a_time_is_never_estimated(prepared, clock):
    reports = train(create(prepared, "run", minutes=0.0, iters=60), clock, lambda _: 1e6)
    assert not any(isinstance(report, Estimate) for report in reports)
    assert reports[-1].iteration == 60
