"""What is said of the time that is left, against clocks that are made up."""

import pytest

from drakegpt.cli import progress
from drakegpt.cli.progress import ScoringWork, TrainingProgress, _Pace
from drakegpt.config import resolve
from drakegpt.training.loss_estimates import count_evaluated_tokens
from drakegpt.training.reports import Evaluation, Step

STEP, TOKEN = 0.3, 0.001  # seconds: a step, and a token that is scored


def seconds_left(config, work, steps, evaluations=0):
    """After so many steps, and evaluations at the end of these."""
    pace, now = _Pace(config, work), 100.0
    pace.record(Step(1, None, 0.0), now)
    for _ in range(2, steps + 1):
        now += STEP
        pace.record(Step(2, None, 0.0), now)
    for _ in range(evaluations):
        now += TOKEN * work.in_evaluation
        pace.record(Evaluation(steps, 1.0, 1.0, 0.0, 1.0, 1.0), now)
    return pace.seconds_left(steps)


def test_the_first_lines_say_nothing_of_the_time_left(prepared, capsys):
    config = resolve("BigramLM", "default", "small", {"iters": 100})
    work = ScoringWork.of(config, prepared)
    with TrainingProgress(config, work, quiet=False) as progress:
        progress.report(Evaluation(0, 4.0, 4.1, 1e-3, 50.0, 1.0))
    assert capsys.readouterr().err.endswith("  50 tokens/s\n")


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_scored_when_training_is_over_is_part_of_the_time_left(prepared, whole):
    config = resolve("BigramLM", "default", "small", {"iters": 100, "eval_interval": 50})
    work = ScoringWork.of(config, prepared, whole=whole)
    train, val = prepared.metadata.train_tokens, prepared.metadata.val_tokens
    assert work.at_end == (train + 2 * val if whole else val)
    left = seconds_left(config, work, 50, evaluations=1)
    assert left == pytest.approx(50 * STEP + TOKEN * (work.in_evaluation + work.at_end))
    at_last = seconds_left(config, work, 100, evaluations=1)
    assert at_last == pytest.approx(TOKEN * work.at_end)


def test_where_the_tail_is_held_out_it_is_scored_too(prepared):
    config = resolve("BigramLM", "default", "small", {"select_on": "training-tail"})
    train, val = prepared.metadata.train_tokens, prepared.metadata.val_tokens
    assert ScoringWork.of(config, prepared).at_end == train + 2 * val
    assert ScoringWork.of(config, prepared, whole=False).at_end == val + prepared.tail_tokens


@pytest.mark.parametrize(("recipe", "eval_iters"), [("original", 50), ("fast", 2), ("fast", 50)])
def test_an_evaluation_is_guessed_by_the_tokens_that_it_scores(prepared, recipe, eval_iters):
    """A token scored takes a third of one trained; of `fast`, validation may be scored whole."""
    settings = {"recipe": recipe, "eval_iters": eval_iters, "iters": 100, "eval_interval": 20}
    config = resolve("BigramLM", "default", "small", settings)
    work = ScoringWork.of(config, prepared)
    val, drawn = prepared.metadata.val_tokens, eval_iters * 32 * 8
    whole = recipe == "fast" and val - 1 <= drawn
    assert work.in_evaluation == drawn + (val if whole else drawn)
    assert work.in_evaluation == count_evaluated_tokens(config, val)
    scored = 5 * work.in_evaluation + work.at_end
    expected = 90 * STEP + STEP / 3 * scored / (32 * 8)
    assert seconds_left(config, work, 10) == pytest.approx(expected)


def test_short_work_shows_no_progress_and_long_work_a_line_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.counting("Evaluation", quiet=False) as report:
        for done, now[0] in enumerate((1.0, 2.5, 3.0, 13.0), start=1):
            report("scoring a run", done, 4)
    assert capsys.readouterr().err.splitlines() == [
        "Evaluation: scoring a run (50%)",
        "Evaluation: scoring a run (100%)",
    ]


def test_the_time_left_is_that_of_the_work_that_is_being_done(terminal, monkeypatch):
    """The pace of the first text, which is fast, says nothing of the next one."""
    clock, made, left = [0.0], [], []

    class Bars(progress.Progress):
        def __init__(self, *columns, **given):
            super().__init__(*columns, get_time=lambda: clock[0], **given)
            made.append(self)

    monkeypatch.setattr(progress, "Progress", Bars)

    def work():
        with progress.counting("Comparison", quiet=False) as report:
            for what, pace, end in (("texts of a", 0.01, 252), ("texts of b", 1.0, 22)):
                for done in range(1, end, 5):
                    clock[0] += 5 * pace
                    report(what, done, 500)
                left.append(made[0].tasks[0].time_remaining)

    assert terminal(function=work).code == 0
    assert left == [3, 479]
