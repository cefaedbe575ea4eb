import dataclasses
import json
import math

import pytest

from drakegpt.config import resolve
from drakegpt.errors import RunError
from drakegpt.evaluation.comparison import Row, _claims, compare, missing_models
from drakegpt.evaluation.figures import draw_curves
from drakegpt.evaluation.selection import find_run
from drakegpt.training.recorder import Recorder
from drakegpt.training.run import create_run

BLANK = Row(
    model="BigramLM", size="default", parameters=1, published=2, train_loss=2.5, val_loss=2.5,
    bits_per_character=3.6, perplexity=12.2, train_gain=None, val_gain=None,
    tokens_per_second=1.0, seconds=1.0, iterations=10, seed=1, run="r",
    evaluations=({"iteration": 5, "train_loss": 2.6, "val_loss": 2.6},
                 {"iteration": 10, "train_loss": 2.5, "val_loss": 2.5}),
)  # fmt: skip


def rows(*losses):
    names = ["BigramLM", "BlocksLM", "TransformerLM"]
    return [
        dataclasses.replace(BLANK, model=name, train_loss=loss)
        for name, loss in zip(names, losses, strict=True)
    ]


def train(prepared, model, **settings):
    settings = {"iters": 4, "eval_interval": 2, "eval_iters": 1, **settings}
    run = create_run(resolve(model, "default", prepared.name, settings), prepared)
    with Recorder(run) as recorder:
        list(recorder.reports())
    return run


def test_claims_hold_when_the_ladder_descends():
    falls, ahead, _ = _claims("default", rows(2.5, 2.0, 1.5))
    assert falls.holds
    assert ahead.holds
    assert "0.500 nats ahead of BlocksLM" in ahead.finding
    assert f"{math.exp(0.5):.2f}" in ahead.finding


def test_claims_fail_when_it_does_not_and_say_where():
    falls, ahead, _ = _claims("default", rows(2.5, 1.5, 1.6))
    assert not falls.holds
    assert "TransformerLM is 0.100 nats above BlocksLM" in falls.finding
    assert not ahead.holds
    assert "0.100 nats behind BlocksLM" in ahead.finding


def test_overfitting_is_a_rise_of_validation_while_training_falls():
    overfitted = ({"iteration": 5, "train_loss": 2.0, "val_loss": 2.2},
                  {"iteration": 10, "train_loss": 1.5, "val_loss": 2.4})  # fmt: skip
    two = [
        dataclasses.replace(BLANK, evaluations=overfitted),
        dataclasses.replace(BLANK, model="TransformerLM", evaluations=overfitted),
    ]
    claim = _claims("default", two)[-1]
    assert claim.holds
    assert "BigramLM (+0.200 nats), TransformerLM (+0.200 nats)" in claim.finding
    worse = ({"iteration": 5, "train_loss": 2.0, "val_loss": 2.2},
             {"iteration": 10, "train_loss": 2.1, "val_loss": 2.4})  # fmt: skip
    assert not _claims("default", [dataclasses.replace(r, evaluations=worse) for r in two])[
        -1
    ].holds


def test_no_claims_from_a_single_run():
    assert _claims("default", rows(1, 2, 3)[:1]) == []


def test_rows_come_from_the_latest_runs_in_the_order_of_the_ladder(prepared):
    train(prepared, "TransformerLM")
    train(prepared, "BigramLM")
    newest = train(prepared, "BigramLM", seed=5)
    comparison = compare("small")
    assert [row.model for row in comparison.rows] == ["BigramLM", "TransformerLM"]
    first, second = comparison.rows
    assert first.run == newest.name
    assert second.val_gain == pytest.approx(first.val_loss - second.val_loss)
    assert first.val_gain is None
    assert len(comparison.missing) == 4
    json.dumps(comparison.to_json(), allow_nan=False)


def test_missing_models_are_those_of_the_sizes_begun(prepared):
    assert len(missing_models("small")) == 6
    train(prepared, "BigramLM")
    assert ("BigramLM", "default") not in missing_models("small")
    assert {size for _, size in missing_models("small")} == {"default"}
    assert len(missing_models("small", ["scaled"])) == 6


def test_figures_are_pictures_of_both_losses(prepared):
    train(prepared, "BigramLM")
    files = draw_curves("small", compare("small").rows)
    assert sorted(f.name for f in files) == [
        "train_loss.png", "train_loss.svg", "val_loss.png", "val_loss.svg",
    ]  # fmt: skip
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in files if f.suffix == ".png")
    svg = (files[1]).read_text(encoding="utf-8")
    assert "<svg" in svg


def test_the_best_run_is_the_one_with_the_lowest_validation_loss(prepared):
    long = train(prepared, "MultiHeadAttentionLM", iters=150)
    train(prepared, "TransformerLM", iters=1)
    assert find_run(None).name == long.name
    assert find_run("multiheadattentionlm").name == long.name
    assert find_run(long.name).name == long.name
    assert find_run(str(long.folder)).name == long.name


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (None, ["Nothing is trained", "drakegpt train"]),
        ("BlocksLM", ["no run of BlocksLM", "drakegpt train BlocksLM"]),
        ("nonsense", ["'nonsense'", "BigramLM"]),
    ],
)
def test_what_is_not_there_is_explained(target, words):
    with pytest.raises(RunError) as caught:
        find_run(target)
    for word in words:
        assert word in str(caught.value)
