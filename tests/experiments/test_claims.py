"""The original's claims, on made-up rows."""

import dataclasses
import math

import pytest
from comparison_rows import evaluated, row, rows

from drakegpt.config import LADDER
from drakegpt.experiments.claims import check_claims

NAN = float("nan")


def curve(model, *losses, size="default"):
    """A row with these estimates of training and validation."""
    train_loss, val_loss = losses[-1]
    result = {"train_loss": train_loss, "val_loss": val_loss, "evaluations": evaluated(*losses)}
    return row(result, model=model, size=size)


def test_claims_hold_when_the_ladder_descends():
    falls, lowest, _ = check_claims(rows(3.0, 2.8, 2.6, 2.4, 2.0, 1.5))
    assert (falls.holds, falls.verdict) == (True, "true")
    assert "at each of the 5 steps" in falls.finding
    assert lowest.holds is True
    assert lowest.finding == "It ends 0.500 nats ahead of ResidualBlocksLM, e^0.50 = 1.65 times."


def test_claims_fail_when_it_does_not_and_say_where():
    falls, lowest, _ = check_claims(rows(3.0, 2.8, 2.6, 2.4, 1.5, 1.6))
    assert (falls.holds, falls.verdict) == (False, "false")
    assert "TransformerLM is 0.100 nats above the model before" in falls.finding
    assert lowest.holds is False
    assert "0.100 nats behind ResidualBlocksLM" in lowest.finding


def test_with_models_missing_the_claims_stay_open_unless_refuted():
    falls, _ = check_claims(rows(3.0, 2.8, 2.6))
    assert (falls.holds, falls.verdict) == (None, "unknown")
    falls, _ = check_claims(rows(3.0, 2.8, 2.9))
    assert falls.holds is False


def seeds(model, *losses):
    """A row with a run of each training loss."""
    return row(
        *({"seed": seed, "train_loss": loss} for seed, loss in enumerate(losses)), model=model
    )


def test_steps_within_the_noise_of_seeds_are_unknown():
    """Means of 2.000 ± 0.10 and 1.997 ± 0.05, of three seeds each."""
    *before, _, _ = rows(3.0, 2.8, 2.6, 2.4, 2.0, 1.5)
    last = seeds("ResidualBlocksLM", 1.9, 2.0, 2.1), seeds("TransformerLM", 1.947, 1.997, 2.047)
    assert [each.train_spread for each in last] == pytest.approx([0.1, 0.05])
    falls, lowest, _ = check_claims([*before, *last])
    assert (falls.holds, falls.verdict) == (None, "unknown")
    assert falls.finding == (
        "TransformerLM is level with the model before (within noise: 0.0030 of 0.1291 nats). "
        "Single seed, compared with means over several: BigramLM, SingleHeadAttentionLM, "
        "MultiHeadAttentionLM, BlocksLM."
    )
    assert lowest.holds is None
    assert lowest.finding == (
        "It ends level with ResidualBlocksLM (within noise: 0.0030 of 0.1291 nats)."
    )


@pytest.mark.parametrize("loss", [2.0, 2.0 - 0.0141, 2.0 + 0.0141])
def test_a_tie_and_what_two_single_runs_can_differ_by_are_no_verdict(loss):
    claims = check_claims(rows(3.0, 2.8, 2.6, 2.4, 2.0, loss))
    for claim in claims[:2]:
        assert claim.holds is None
        assert "level with" in claim.finding
        assert "-0.0" not in claim.finding
        assert "−0.0" not in claim.finding
    assert check_claims(rows(3.0, 2.8, 2.6, 2.4, 2.0, 2.0 - 0.0142))[0].holds is True
    assert check_claims(rows(3.0, 2.8, 2.6, 2.4, 2.0, 2.0 + 0.0142))[0].holds is False


def test_a_row_with_other_settings_is_in_no_claim():
    ladder = rows(3.0, 2.8, 2.6, 2.4, 2.0, 1.5)
    ladder[-1] = dataclasses.replace(ladder[-1], differs={"dropout": (0.0, 0.1)})
    falls, overfit = check_claims(ladder)
    assert falls.finding == "It falls at each of the 4 steps between neighbours."
    assert falls.holds is None
    assert "TransformerLM" not in overfit.finding


def test_sizes_that_were_trained_unlike_are_no_set():
    """As the original shows it: the last one scaled, else trained as the others."""
    default = rows(3.0, 2.8, 2.6, 2.4, 2.0, 2.1)
    scaled = row({"train_loss": 0.65}, model="TransformerLM", size="scaled", shared=(("iters", 5),))
    assert not any("as the original" in c.claim for c in check_claims([*default, scaled]))


@pytest.mark.parametrize("place", [0, 3, 5])
def test_a_loss_that_is_no_number_is_no_verdict(place):
    losses = [3.0, 2.8, 2.6, 2.4, 2.0, 1.5]
    losses[place] = NAN
    falls, lowest, _ = check_claims(rows(*losses))
    assert (falls.holds, lowest.holds) == (None, None)
    assert "nan" not in falls.finding + lowest.finding


@pytest.mark.parametrize(
    ("losses", "overfits"),
    [
        (((2.6, 2.6), (2.4, 2.4), (2.2, 2.5)), True),  # validation rises
        (((2.6, 2.6), (2.4, 2.4), (2.2, 2.395)), True),  # it stays
        (((2.6, 2.6), (2.4, 2.4), (2.2, 2.3)), False),  # both fall
        (((2.6, 2.6), (2.4, 2.4), (2.395, 2.5)), False),  # training has stopped falling
        (((2.6, 2.6), (2.4, 2.4), (2.5, 2.6)), False),  # both rise
    ],
)
def test_overfitting_is_validation_that_stays_or_rises_while_training_falls(losses, overfits):
    ladder = [
        curve(model, *(losses if model == "BlocksLM" else ((3, 3), (2, 2), (1, 1))))
        for model in LADDER
    ]
    claim = check_claims(ladder)[-1]
    assert claim.claim.startswith("For some of the models, training loss goes on falling while")
    assert claim.holds is overfits
    assert ("BlocksLM" in claim.finding) == overfits
    if not overfits:
        assert claim.finding.endswith("none.")
    # Without the curve of another model it cannot be ruled out.
    ladder[0] = dataclasses.replace(ladder[0], results=row({"evaluations": ()}).results)
    assert check_claims(ladder)[-1].holds is (True if overfits else None)
    assert check_claims(ladder[1:])[-1].holds is (True if overfits else None)


def test_what_the_original_shows_is_the_last_model_scaled_beside_five_of_default_size():
    default = rows(3.0, 2.8, 2.6, 2.4, 2.0, 2.1)
    scaled = row({"train_loss": 0.65}, model="TransformerLM", size="scaled")
    claims = check_claims([*default, scaled])
    (falls,) = (c for c in claims if "falls with" in c.claim and "as the original" in c.claim)
    assert falls.holds is True  # though at default size alone it does not
    (lowest,) = (c for c in claims if "lowest" in c.claim and "as the original" in c.claim)
    assert lowest.holds is True
    assert "1.350 nats ahead of ResidualBlocksLM, e^1.35 = 3.86 times." in lowest.finding
    assert "Published: 1.35 nats, called 4.85 times better; e^1.35 = 3.86." in lowest.finding
    assert math.exp(1.35) == pytest.approx(3.86, abs=0.005)
    at_default = [c for c in claims if "(default size)" in c.claim]
    assert [c.holds for c in at_default][:2] == [False, False]
    assert "Published" not in at_default[1].finding
    assert not any("(scaled size)" in c.claim for c in claims)


def test_models_that_are_no_neighbours_make_no_step():
    falls, *_ = check_claims([row({}, model="BigramLM"), row({}, model="BlocksLM")])
    assert (falls.holds, falls.finding) == (None, "No neighbouring models to compare.")


def test_a_model_that_went_wild_has_no_factor():
    _, lowest, _ = check_claims(rows(9e9, 9e9, 9e9, 9e9, 9e9, 1.5))
    assert lowest.finding == "It ends 8999999998.500 nats ahead of BigramLM."


def test_no_claims_from_a_single_run():
    assert check_claims(rows(1.0)) == []
