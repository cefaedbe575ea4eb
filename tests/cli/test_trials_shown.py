"""What a sweep says of its trials, where these are made up."""

import pytest

from drakegpt.cli.trials import near_best
from drakegpt.sweep.study import Row


def trial(number, loss, state="complete"):
    return Row(
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
    assert [row.number for row in near_best([*trials, *estimated])] == near
    assert near_best(estimated) == []
