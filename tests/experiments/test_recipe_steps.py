import dataclasses
from itertools import pairwise

import pytest

from drakegpt.config import resolve
from drakegpt.errors import UsageError
from drakegpt.experiments.experiment import collect
from drakegpt.experiments.launcher import train_runs
from drakegpt.experiments.recipe_steps import IDEAS, LONGER, plan, score_rows

SMALL = {"context_length": 8, "embedding_dim": 8, "num_layers": 1, "batch_size": 4, "iters": 4,
         "eval_iters": 1, "dropout": 0.2}  # fmt: skip


def small(**changes):
    return {name: value for name, value in SMALL.items() if name != "dropout"} | changes


def test_each_variant_takes_over_one_idea_and_the_last_is_the_recipe(prepared):
    variants = plan(small(), "default", prepared, [1]).variants
    configs = list(variants.values())
    ideas = dict(zip((name for name in variants if name.startswith("+ ")), range(9), strict=False))
    for name, number in ideas.items():
        before, after = (dataclasses.asdict(config) for config in configs[number : number + 2])
        changed = {key for key in after if after[key] != before[key]}
        assert changed
        assert changed <= set(IDEAS[name.removeprefix("+ ")]), name
    best = resolve("TransformerLM", "default", prepared.name, small(recipe="best"))
    assert configs[-3] == best
    longer = resolve(
        "TransformerLM", "default", prepared.name, small(recipe="best", iters=LONGER * 4)
    )
    assert configs[-1] == longer
    assert configs[-2].optimizer == configs[0].optimizer == "adamw"
    assert all(one != other for one, other in pairwise(configs))


@pytest.mark.parametrize("name", ["dropout", "recipe", "positions"])
def test_what_is_compared_cannot_be_set(prepared, name):
    with pytest.raises(UsageError, match=f"Leave {name} out"):
        plan({name: "x"}, "default", prepared, [42])


def test_rows_tell_the_change_to_the_row_before(prepared):
    experiment = plan(small(), "default", prepared, [42])
    rows = score_rows(collect(experiment, prepared, lambda jobs: train_runs(jobs, prepared)), "cpu")
    assert [row.name for row in rows] == list(experiment.variants)
    for before, row in pairwise(rows[:-2]):
        change = row.result.val_loss - before.result.val_loss
        assert row.to_json()["change"] == pytest.approx(change, abs=1e-9)
    assert rows[0].formatted_change == rows[-2].formatted_change == ""
    assert rows[-1].to_json()["change"] < 0 or rows[-1].change.within_noise
