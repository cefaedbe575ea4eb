"""Differences of losses beside what chance does, worked out by hand."""

import math

import pytest

from drakegpt.evaluation.noise import MIN_NOISE, compare_losses, compare_within_runs, find_lowest
from drakegpt.experiments.formatting import describe_seeds, format_difference, format_signed

NAN = float("nan")


@pytest.mark.parametrize(
    ("first", "second", "noise"),
    [
        # 2 √(0.005² + 0.005²): a single run counts as one of a standard deviation of 0.005.
        ((2.0,), (1.9,), 0.014142),
        # 2 √(0.1² / 3 + 0.05² / 3)
        ((1.9, 2.0, 2.1), (1.947, 1.997, 2.047), 0.129099),
        # 2 √(0.005² + 0.01² / 2)
        ((2.0,), (1.9, 1.9 + 0.01 * math.sqrt(2)), 0.017321),
        # Seeds that end alike by chance leave the least.
        ((2.0, 2.0), (1.9, 1.9), 0.005),
    ],
)
def test_noise_is_two_standard_errors_of_the_difference(first, second, noise):
    found = compare_losses(first, second)
    assert found.noise == pytest.approx(noise, abs=1e-6)
    assert found.runs == (len(first), len(second))
    assert not found.paired


def test_seeds_that_share_chance_are_paired_where_that_is_less_noise():
    # Falls of 0.02, 0.01 and 0.03: 2 · 0.01 / √3.
    first, second = (2.1, 2.2, 2.3), (2.08, 2.19, 2.27)
    found = compare_losses(first, second, same_seeds=True)
    assert found.noise == pytest.approx(0.011547, abs=1e-6)
    assert found.lower
    assert found.remarks == " (paired by seed)"
    assert compare_losses(first, second).within_noise
    # Against each other, the falls vary more than the means do.
    apart = compare_losses((2.0, 2.02, 2.04), (1.99, 1.97, 1.95), same_seeds=True)
    assert not apart.paired
    # Never below the least, and of one seed there is no pair.
    assert compare_losses(first, (2.09, 2.19, 2.29), same_seeds=True).noise == MIN_NOISE
    assert not compare_losses((2.0,), (1.9,), same_seeds=True).paired


@pytest.mark.parametrize(
    ("first", "second", "where", "grounds"),
    [
        (2.0, 1.5, "0.500 nats below", ""),
        (2.0, 2.5, "0.500 nats above", ""),
        (2.0, 2.0, "level with", " (within noise: 0.0000 of 0.0141 nats)"),
        (2.0, 2.0003, "level with", " (within noise: 0.0003 of 0.0141 nats)"),
    ],
)
def test_where_a_loss_lies(first, second, where, grounds):
    found = compare_losses([first], [second])
    assert found.where("below", "above", "level with") == where
    assert found.remarks == grounds


def test_one_seed_against_several_is_said():
    assert compare_losses([2.0], [1.0, 1.1, 0.9]).remarks == " (one seed against a mean of 3)"
    assert compare_losses([2.0, 2.1], [1.0, 1.1, 0.9]).remarks == ""


@pytest.mark.parametrize("loss", [NAN, math.inf, -math.inf])
def test_what_is_not_finite_tells_nothing(loss):
    for found in (
        compare_losses([2.0, 2.1], [1.0, loss]),
        compare_losses([loss], [1.0]),
        compare_within_runs([loss, 1.0]),
    ):
        told = (found.finite, found.lower, found.higher, found.within_noise)
        assert told == (False, False, False, False)


def test_the_lowest_comes_first_with_what_noise_does_not_tell_from_it():
    def of(losses):
        return find_lowest(losses, lambda loss: loss, lambda a, b: compare_losses([a], [b]))

    assert of([NAN, 2.3, 2.01, 2.0, 2.02]) == [2.0, 2.01]
    assert of([NAN]) == []


def test_a_fall_within_runs_is_paired_by_itself():
    assert compare_within_runs([0.02], 0.01).lower
    assert compare_within_runs([0.01], 0.01).within_noise
    assert compare_within_runs([-0.1, 0.3]).within_noise  # 0.1, of 2 · 0.2828 / √2


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.00001, "+0.0000"), (-0.0, "+0.0000"), (-0.0151, "-0.0151")]
)
def test_no_zero_is_negative(value, shown):
    assert format_signed(value) == shown
    assert format_difference(value, within_noise=True) == f"≈ {shown}"


def test_it_is_said_of_how_many_seeds_means_are():
    assert describe_seeds([1, 1]) == ""
    assert describe_seeds([3, 3]) == "Means of 3 seeds each; ±: their sample standard deviation."
    assert describe_seeds([3, 1]).startswith("Means of 1 to 3 seeds each; ")
