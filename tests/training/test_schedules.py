"""Each schedule against a table worked out by hand: base_lr 1e-3, max_lr 5e-3."""

import math
from itertools import groupby

import pytest

from drakegpt.config import resolve
from drakegpt.errors import UsageError
from drakegpt.training.schedules import LossHistory, learning_rate, weight_decay_factor

FEW_BITS = {"bits": "1.58", "max_lr": 5e-3, "weight_decay": 0.01}


def rates(schedule, places, losses=(), **settings):
    settings = {"schedule": schedule, "warmup_iters": 0, **settings}
    config = resolve("BigramLM", "default", "x", settings)
    assert (config.base_lr, config.max_lr) == (1e-3, 5e-3)
    return [learning_rate(config, place, LossHistory.of(config, losses)) for place in places]


def test_cyclic_is_the_original_triangle_twice_in_twenty_evaluations():
    config = resolve("BigramLM", "default", "x")
    assert config.iters // config.eval_interval == 20
    triangle = [1.0e-3, 1.8e-3, 2.6e-3, 3.4e-3, 4.2e-3, 5.0e-3, 4.2e-3, 3.4e-3, 2.6e-3, 1.8e-3]
    got = [learning_rate(config, 500 * n, LossHistory.of(config, [2.0] * n)) for n in range(21)]
    assert got == pytest.approx([*triangle * 2, 1e-3])


def test_constant():
    assert rates("constant", [0, 1, 9_999]) == [5e-3] * 3


def test_cosine_with_warm_up_and_floor():
    got = rates("cosine", [0, 49, 99, 100, 600, 1099], iters=1100, warmup_iters=100)
    expected = [5e-5, 2.5e-3, 5e-3, 5e-3, 3e-3, 1e-3]
    # the last step is one short of the floor
    assert got == pytest.approx(expected, abs=2e-8)
    quarter = 1e-3 + (1 + math.sqrt(0.5)) / 2 * 4e-3
    assert rates("cosine", [250], iters=1000) == pytest.approx([quarter])


def test_hold_falls_in_a_straight_line_from_the_warm_up_on():
    got = rates("hold", [0, 49, 99, 100, 350, 600, 1099], iters=1100, warmup_iters=100)
    expected = [5e-5, 2.5e-3, 5e-3, 5e-3, 4e-3, 3e-3, 1.004e-3]
    assert got == pytest.approx(expected)


def test_two_stages_fall_to_two_thirds_at_half_way_and_drop_weight_decay():
    places = [0, 49, 100, 549, 550, 1098, 1099]
    settings = {"iters": 1100, "warmup_iters": 100, "base_lr": 1e-3}
    expected = [5e-5, 2.5e-3, 5e-3, 2.755e-3, 5e-3 * 0.55 * 2 / 3, 1e-3, 1e-3]
    config = resolve("TransformerLM", "default", "x", FEW_BITS | settings)
    assert [
        learning_rate(config, place, LossHistory.of(config, ())) for place in places
    ] == pytest.approx(expected)
    config = resolve("TransformerLM", "default", "x", FEW_BITS | settings)
    assert [weight_decay_factor(config, place) for place in (0, 549, 550)] == [1.0, 1.0, 0.0]
    config = resolve("BigramLM", "default", "x", settings | {"schedule": "cosine"})
    assert weight_decay_factor(config, 1000) == 1.0


def test_step_is_nine_tenths_every_thousand():
    got = rates("step", [0, 999, 1000, 1999, 2000, 9999])
    assert got == pytest.approx([5e-3, 5e-3, 4.5e-3, 4.5e-3, 4.05e-3, 5e-3 * 0.9**9])
    adjusted = rates("step", [0, 10, 20], decay_factor=0.5, decay_interval=10)
    assert adjusted == pytest.approx([5e-3, 2.5e-3, 1.25e-3])


@pytest.mark.parametrize(
    ("losses", "decays"),
    [
        ([], 0),
        ([3.0, 2.0, 1.0], 0),
        ([1.0, 2.0], 0),
        ([1.0, 2.0, 1.5], 1),
        ([1.0, 1.0, 1.0], 1),  # no lower is no better
        ([1.0, 2.0, 0.9, 2.0, 2.0], 1),
        ([1.0, 2.0, 2.0, 2.0], 1),
        ([1.0, 2.0, 2.0, 2.0, 2.0], 2),
    ],
)
def test_plateau_decays_after_two_evaluations_without_progress(losses, decays):
    got = rates("plateau", [10 * len(losses)], losses, plateau_patience=2)
    assert got == pytest.approx([5e-3 * 0.9**decays])


def test_hold_warms_up_stays_and_falls_in_the_share_that_is_left():
    places = [0, 24, 50, 799, 800, 850, 900, 999]
    got = rates("hold", places, iters=1000, warmup_iters=50, hold_share=0.8)
    expected = [1e-4, 2.5e-3, 5e-3, 5e-3, 5e-3, 4e-3, 3e-3, 1.02e-3]
    assert got == pytest.approx(expected)
    # A warm-up that is longer than the share is not cut short; all of the run may be held.
    late = rates("hold", [99, 499, 500, 750], iters=1000, warmup_iters=500, hold_share=0.1)
    assert late == pytest.approx([1e-3, 5e-3, 5e-3, 3e-3])
    assert rates("hold", [0, 999], iters=1000, hold_share=1.0) == [5e-3, 5e-3]


def test_hold_may_fall_to_zero():
    config = resolve("BigramLM", "default", "x", {"schedule": "hold", "base_lr": 0.0, "iters": 100})
    assert learning_rate(config, 99, LossHistory.of(config, [])) == pytest.approx(5e-3 / 95)
    assert learning_rate(config, 100, LossHistory.of(config, [])) == 0.0


def test_two_stage_comes_with_few_bits_alone():
    with pytest.raises(UsageError, match="two-stage is a schedule for low-bit weights"):
        resolve("TransformerLM", "default", "x", {"schedule": "two-stage"})


def test_warm_up_is_a_twentieth_where_it_belongs():
    for schedule, warmup in (("cosine", 500), ("hold", 500), ("cyclic", 0), ("step", 0)):
        assert resolve("BigramLM", "default", "x", {"schedule": schedule}).warmup_iters == warmup


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_losses_summed_up_say_what_all_of_them_would(patience):
    """Against their definitions, read from the whole list each time."""
    losses = [3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.5, 0.5, 0.75, 0.75, 0.75, 0.75, 0.25]
    config = resolve("BigramLM", "default", "x", {"plateau_patience": patience})
    for count in range(len(losses) + 1):
        seen = losses[:count]
        summed_up = LossHistory.of(config, seen)
        assert summed_up.count == count
        if seen:
            assert summed_up.since_lowest == count - 1 - seen.index(min(seen))
        runs = [sum(1 for _ in group) for fell, group in groupby(fell_below(seen)) if not fell]
        assert summed_up.plateaus == sum(run // patience for run in runs)


def fell_below(losses):
    return [all(loss < other for other in losses[:place]) for place, loss in enumerate(losses)]
