"""Runs in epochs: counted in iterations, and gone on with in the middle of one."""

import time
from itertools import count

import pytest
from learning import record

from drakegpt.config import resolve
from drakegpt.errors import UsageError
from drakegpt.runs.create import create_run
from drakegpt.runs.run import open_run
from drakegpt.runs.start import resolve_run
from drakegpt.training import run_length
from drakegpt.training.loss_estimates import count_evaluated_tokens
from drakegpt.training.run_length import (
    count_operations,
    estimate_seconds,
    iters_for_epochs,
    resolve_length,
)


def configured(data, **settings):
    settings = {"window_order": "epoch", "eval_interval": 50, "eval_iters": 1, **settings}
    return resolve("TransformerLM", "default", data.name, settings)


@pytest.mark.parametrize(
    ("epochs", "batch", "accumulation"), [(1, 32, 1), (3, 32, 1), (2, 7, 3), (1, 10_000, 1)]
)
def test_epochs_in_iterations(prepared, epochs, batch, accumulation):
    config = configured(prepared, epochs=epochs, batch_size=batch, grad_accumulation=accumulation)
    windows = (prepared.metadata.train_tokens - 1) // 8
    iterations = iters_for_epochs(config, prepared)
    assert (iterations - 1) * batch * accumulation < epochs * windows
    assert iterations * batch * accumulation >= epochs * windows


def test_a_run_goes_on_in_the_middle_of_an_epoch(prepared):
    length = resolve_length(configured(prepared, epochs=2), prepared)
    assert length["window_order"] == "epoch"
    per_epoch = iters_for_epochs(configured(prepared, epochs=1), prepared)
    config = configured(prepared, **length)
    whole, cut = (create_run(config, prepared, name) for name in ("whole", "cut"))
    record(whole)
    stop = per_epoch + per_epoch // 3
    record(cut, until=stop, save=True)
    record(open_run(cut.folder), resume=True)
    ends = [run.last_checkpoint().weights.read_bytes() for run in (whole, cut)]
    assert ends[0] == ends[1]


def test_other_windows_than_drawn_at_random(prepared):
    weights = []
    for windows in ("random", "epoch"):
        run = create_run(configured(prepared, window_order=windows, iters=5), prepared)
        record(run)
        weights.append(run.last_checkpoint().weights.read_bytes())
    assert weights[0] != weights[1]


def test_the_time_of_a_run_grows_with_it():
    brief = {"eval_iters": 1, "iters": 100}

    def seconds_for_text(settings, learnt=9, validated=1):
        config = resolve("TransformerLM", "default", "", settings)
        return estimate_seconds(config, 65, learnt, validated)

    small = seconds_for_text(brief)
    longer = seconds_for_text(brief | {"iters": 10_000})
    wide = {"embedding_dim": 256, "context_length": 64}
    large = seconds_for_text(brief | wide)
    assert 0 < small < large
    assert 20 * small < longer < 500 * small


def test_the_time_of_a_run_has_all_that_is_scored(monkeypatch):
    clock = count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))

    def seconds(learnt, validated, **settings):
        given = {"iters": 100, "eval_interval": 5, "batch_size": 32, **settings}
        return estimate_seconds(resolve("BigramLM", "default", "", given), 65, learnt, validated)

    def steps(scored):
        return 100 + scored / (32 * 8) / 3  # to score a token takes a third of learning it

    # Twenty evaluations of one batch of either split; then both splits, validation twice.
    usual = seconds(0, 0, eval_iters=1) / steps(20 * 2 * 256)
    drawn = seconds(9_000_000, 1_000_000, eval_iters=1)
    assert drawn == pytest.approx(usual * steps(20 * 2 * 256 + 9_000_000 + 2 * 1_000_000))
    # The whole of validation where that is less than as many batches.
    whole = seconds(9000, 1000, eval_iters=10, recipe="fast")
    assert whole == pytest.approx(usual * steps(20 * (10 * 256 + 1000) + 9000 + 2 * 1000))
    # As many windows at once in an iteration, but not in an evaluation.
    twice = seconds(0, 0, eval_iters=1, grad_accumulation=2)
    assert twice == pytest.approx(usual * (2 * 100 + 20 * 2 / 3))


def test_minutes_are_those_of_steps_evaluations_and_scoring(prepared, monkeypatch):
    """By a measurement of 0.1 s a step; to score a token takes a third of learning it."""
    monkeypatch.setattr(run_length, "measure_step", lambda *_: 0.1)
    given = {"minutes": 10.0, "recipe": "fast", "batch_size": 2, "device": "cpu"}
    config = resolve_run("BigramLM", "default", prepared, given)
    evaluations = -(-config.iters // config.eval_interval)
    scored = evaluations * count_evaluated_tokens(config, prepared.metadata.val_tokens)
    scored += prepared.metadata.train_tokens + 2 * prepared.metadata.val_tokens
    assert 599 < config.iters * 0.1 + scored * 0.1 / (2 * 8) / 3 < 600.2
    assert config.eval_iters == max(128, int(0.12 * config.eval_interval))
    limited = resolve_run("BigramLM", "default", prepared, given | {"max_epochs": 1})
    assert limited.iters == iters_for_epochs(limited, prepared, 1) < config.iters


def test_epochs_and_minutes_are_not_given_together(prepared):
    with pytest.raises(UsageError, match="both set the length of a run"):
        configured(prepared, epochs=1, minutes=1.0)


def test_operations_are_six_per_parameter_and_token():
    config = resolve("BigramLM", "default", "x", {"iters": 10, "grad_accumulation": 2})
    assert count_operations(config, 20) == 6 * 400 * 10 * 2 * 32 * 8
