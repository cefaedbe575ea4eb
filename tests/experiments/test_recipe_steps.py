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
    assert names[:1] + names[-2:] == [USUAL, LONGER_USUAL, LONGER_BEST]
    for before, name in pairwise(names[:-2]):
        one, other = (dataclasses.asdict(variants[each]) for each in (before, name))
        changed = {key for key in other if other[key] != one[key]}
        assert changed
        assert changed <= set(IDEAS[name]), name
    best = resolve_run("TransformerLM", "default", prepared, SMALL | {"recipe": "best"})
    assert variants[names[-3]] == best
    longer = SMALL | {"recipe": "best", "iters": LONGER * best.iters}
    assert variants[LONGER_BEST] == resolve_run("TransformerLM", "default", prepared, longer)
    assert variants[LONGER_USUAL].optimizer == "adamw"


@pytest.mark.parametrize("name", ["dropout", "recipe", "positions"])
def test_what_is_compared_cannot_be_set(prepared, name):
    with pytest.raises(UsageError, match=f"Leave {name} out"):
        plan({name: "x"}, "default", prepared, [42])


@pytest.mark.slow
def test_rows_are_the_recipes_their_ensembles_and_their_mixtures(prepared):
    experiment = plan(SMALL, "default", prepared, [42, 43])
    found = collect(experiment, prepared, lambda jobs: train_runs(jobs, prepared))
    rows = score_rows(found, "cpu")
    recipes = [row for row in rows if row.name in experiment.variants]
    assert [row.name for row in recipes] == list(experiment.variants)
    for before, row in pairwise(recipes[:-2]):
        change = row.val_loss - before.val_loss
        assert row.to_json()["change"] == pytest.approx(change, abs=1e-9)
    assert rows[0].formatted_change == recipes[-2].formatted_change == ""
    for recipe, counted, ensemble, both in (rows[-9:-5], rows[-4:]):
        assert [row.name for row in (counted, ensemble, both)] == [
            COUNTED, "ensemble of 2 seeds", f"ensemble of 2 seeds, {COUNTED}"
        ]  # fmt: skip
        assert ensemble.val_loss <= recipe.val_loss
        assert both.val_loss <= counted.val_loss < recipe.val_loss
        assert {row.iterations for row in (recipe, counted, ensemble, both)} == {recipe.iterations}
    assert score_rows(found, "cpu") == rows, "scores that are stored are those that were made"
