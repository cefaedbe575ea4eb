import dataclasses
from itertools import pairwise

import pytest

from drakegpt.errors import UsageError
from drakegpt.experiments.experiment import collect
from drakegpt.experiments.launcher import train_runs
from drakegpt.experiments.recipe_steps import (
    COUNTED,
    IDEAS,
    LONGER,
    LONGER_BEST,
    LONGER_COUNTED,
    LONGER_USUAL,
    USUAL,
    plan,
    score_rows,
)
from drakegpt.runs.start import resolve_run

SMALL = {"context_length": 8, "embedding_dim": 8, "num_layers": 1, "batch_size": 4, "iters": 4,
         "eval_iters": 1}  # fmt: skip


def test_each_variant_takes_over_one_idea_and_the_last_is_the_recipe(prepared):
    variants = plan(SMALL, "default", prepared, [1]).variants
    names = list(variants)
    assert names[:1] + names[-4:] == [USUAL, COUNTED, LONGER_USUAL, LONGER_BEST, LONGER_COUNTED]
    for before, name in pairwise(names[:-4]):
        one, other = (dataclasses.asdict(variants[each]) for each in (before, name))
        changed = {key for key in other if other[key] != one[key]}
        assert changed
        assert changed <= set(IDEAS[name]), name
    best = resolve_run("TransformerLM", "default", prepared, SMALL | {"recipe": "best"})
    assert variants[names[-5]] == best
    assert variants[COUNTED] == dataclasses.replace(best, select_on="training-tail")
    longer = SMALL | {"recipe": "best", "iters": LONGER * best.iters}
    assert variants[LONGER_BEST] == resolve_run("TransformerLM", "default", prepared, longer)
    assert variants[LONGER_USUAL].optimizer == "adamw"


@pytest.mark.parametrize("name", ["dropout", "recipe", "positions", "select_on"])
def test_what_is_compared_cannot_be_set(prepared, name):
    with pytest.raises(UsageError, match=f"Leave {name} out"):
        plan({name: "x"}, "default", prepared, [42])


@pytest.mark.slow
def test_rows_are_the_recipes_their_ensembles_and_their_mixtures(prepared):
    experiment = plan(SMALL, "default", prepared, [42, 43])
    found = collect(experiment, prepared, lambda jobs: train_runs(jobs, prepared))
    rows = score_rows(found, "cpu")
    recipes = [row for row in rows if row.name in experiment.variants and row.name != COUNTED]
    assert [row.name for row in recipes] == [
        name for name in experiment.variants if name not in (COUNTED, LONGER_COUNTED)
    ]
    for before, row in pairwise(recipes[:-2]):
        change = row.val_loss - before.val_loss
        assert row.to_json()["change"] == pytest.approx(change, abs=1e-9)
    assert rows[0].formatted_change == recipes[-2].formatted_change == ""
    for recipe, ensemble, mixed in (rows[-7:-4], rows[-3:]):
        assert ensemble.name == "ensemble of 2 seeds"
        assert ensemble.val_loss <= recipe.val_loss
        assert mixed.name == COUNTED
        assert mixed.val_loss < recipe.val_loss
        assert (ensemble.iterations, mixed.iterations) == (recipe.iterations,) * 2
    assert score_rows(found, "cpu") == rows, "scores that are stored are those that were made"
