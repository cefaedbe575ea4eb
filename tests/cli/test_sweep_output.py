"""What a sweep says of its trials, where these are made up."""

import json

import pytest

from drakegpt.cli.sweep_output import find_near_best, show_trials
from drakegpt.sweep.definition import define
from drakegpt.sweep.space import Choices
from drakegpt.sweep.study import Study, TrialRow


def trial(number, loss, state="complete"):
    return TrialRow(
        number=number, params={}, state=state, loss=loss, iterations=1, why="", run="",
        seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "near"),
    [
        ((2.0, 2.1, 2.3), []),
        ((2.0, 2.0, 2.3), [2]),  # a tie
        ((2.0, 2.0141, 2.0142), [2]),  # what two single runs can differ by
    ],
)
def test_trials_that_noise_does_not_tell_from_the_best_are_named(losses, near):
    trials = [trial(number, loss) for number, loss in enumerate(losses, 1)]
    estimated = [trial(8, 2.0, "pruned"), trial(9, None, "failed")]
    assert [row.number for row in find_near_best([*trials, *estimated])] == near
    assert find_near_best(estimated) == []


@pytest.mark.parametrize("losses", [(2.0, 2.5), (2.5, 2.0)])
def test_trials_are_ranked_by_the_tail_where_validation_has_another_order(prepared, capsys, losses):
    space = {"max_lr": Choices((1e-3, 1e-2))}
    study = Study(
        define("s", "BigramLM", "default", prepared, {}, space, sampler="grid", prune=True)
    )
    for loss in losses:
        with study.next() as trial:
            trial.complete(loss, 4.5 - loss)
    capsys.readouterr()
    show_trials(study, json=True, timed_out=False)
    shown = json.loads(capsys.readouterr().out)
    best = shown["best"]
    assert (best["loss"], best["val_loss"]) == (2.0, 2.5)
    assert best["number"] == losses.index(2.0) + 1
    show_trials(study, json=False, timed_out=False)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert rows[0].split("│")[1].strip() == str(best["number"])
    assert study._study.best_trial.value == 2.0  # what the sampler learns from
