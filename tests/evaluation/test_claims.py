"""The original's claims, on made-up rows."""

import dataclasses
import math

from comparison_rows import RESULT, evaluated, row, rows

from drakegpt.evaluation.claims import _claims


def test_claims_hold_when_the_ladder_descends():
    falls, ahead, _ = _claims("default", rows(3.0, 2.8, 2.6, 2.4, 2.0, 1.5))
    assert falls.holds is True
    assert ahead.holds is True
    assert "0.500 nats ahead of ResidualBlocksLM" in ahead.finding
    assert f"{math.exp(0.5):.2f}" in ahead.finding


def test_claims_fail_when_it_does_not_and_say_where():
    falls, ahead, _ = _claims("default", rows(3.0, 2.8, 2.6, 2.4, 1.5, 1.6))
    assert falls.holds is False
    assert "TransformerLM is 0.100 nats above the rung before" in falls.finding
    assert ahead.holds is False
    assert "0.100 nats behind ResidualBlocksLM" in ahead.finding


def test_with_rungs_missing_the_claims_stay_open_unless_refuted():
    falls, _ = _claims("default", rows(3.0, 2.8, 2.6))
    assert falls.holds is None
    falls, _ = _claims("default", rows(3.0, 2.8, 2.9))
    assert falls.holds is False


def test_several_overfit_where_validation_rose_while_training_fell():
    def rung(name, rise, *losses):
        evaluations = evaluated(*(losses or ((2.6, 2.5), (2.5, 2.8))))
        return row(
            {"best_val_loss": RESULT.val_loss - rise, "evaluations": evaluations}, model=name
        )

    first, second = rung("BigramLM", 0.2), rung("SingleHeadAttentionLM", 0.3)
    claim = _claims("default", [first, second])[-1]
    assert claim.holds
    assert (
        "BigramLM by 0.200 nats, from iteration 10 on; SingleHeadAttentionLM by 0.300 nats"
        in claim.finding
    )
    small = rung("SingleHeadAttentionLM", 0.009)
    alone = _claims("default", [first, small])[-1]
    assert alone.holds is None  # the rungs that are missing might
    assert "Single" not in alone.finding
    both_rise = rung("SingleHeadAttentionLM", 0.3, (2.5, 2.5), (2.6, 2.8))
    none = _claims("default", [small, both_rise])[-1]
    assert none.finding.endswith("none.")


def test_whether_several_overfit_takes_all_rungs_with_their_curves():
    whole = rows(3.0, 2.8, 2.6, 2.4, 2.0, 1.5)
    assert _claims("default", whole)[-1].holds is False
    imported = [dataclasses.replace(whole[0], results=row({"evaluations": ()}).results), *whole[1:]]
    assert _claims("default", imported)[-1].holds is None
    assert _claims("default", whole[:5])[-1].holds is None


def test_rungs_that_are_no_neighbours_make_no_step():
    falls, *_ = _claims("default", [row({}, model="BigramLM"), row({}, model="BlocksLM")])
    assert (falls.holds, falls.finding) == (None, "None of these are neighbours.")


def test_a_model_that_went_wild_has_no_factor():
    _, ahead, _ = _claims("default", rows(9e9, 9e9, 9e9, 9e9, 9e9, 1.5))
    assert ahead.holds is True
    assert ahead.finding == "It ends 8999999998.500 nats ahead of BigramLM."


def test_no_claims_from_a_single_run():
    assert _claims("default", rows(1.0)) == []
