import dataclasses

import pytest

from drakegpt.errors import UsageError
from drakegpt.experiments.experiment import collect
from drakegpt.experiments.launcher import train_runs
from drakegpt.experiments.regularization import NONE, REGULARIZERS, plan, score_rows, summarize
from drakegpt.experiments.results import ResultRow, RunResult

SMALL = {"context_length": 8, "embedding_dim": 8, "num_layers": 1, "batch_size": 4, "iters": 20,
         "eval_interval": 2, "eval_iters": 1}  # fmt: skip


def test_each_regularizer_changes_its_own_settings_alone(prepared):
    configs = plan({**SMALL, "seed": 3}, "default", prepared, [3]).variants
    assert list(configs) == list(REGULARIZERS)
    plain = dataclasses.asdict(configs[NONE])
    assert (plain["dropout"], plain["schedule"], plain["patience"]) == (0.0, "constant", 0)
    for name, config in configs.items():
        changed = {k for k, v in dataclasses.asdict(config).items() if v != plain[k]}
        assert changed == set(REGULARIZERS[name]), name
        assert config.seed == 3
    assert configs["step decay"].decay_interval == 4


@pytest.mark.parametrize("name", ["dropout", "schedule", "patience"])
def test_what_is_compared_cannot_be_set(prepared, name):
    with pytest.raises(UsageError, match=f"Leave {name} out"):
        plan({name: 1}, "default", prepared, [42])


def test_a_lower_highest_rate_takes_the_lowest_along(prepared):
    assert plan({"max_lr": 1e-4}, "default", prepared, [42]).variants[NONE].base_lr == 1e-4


@pytest.mark.parametrize("name", ["minutes", "epochs"])
def test_all_have_as_many_iterations(prepared, name):
    with pytest.raises(UsageError, match="same number of iterations"):
        plan({name: 1}, "default", prepared, [42])


def test_runs_are_found_again_and_scored_by_variant(prepared):
    experiment = plan(SMALL, "default", prepared, [42])
    assert len(collect(experiment, prepared).missing) == len(REGULARIZERS)
    there = collect(experiment, prepared, lambda jobs: train_runs(jobs, prepared))
    assert there.missing == ()
    found = there.with_seed(42)
    assert {name: run.config for name, run in found.items()} == experiment.variants
    table = score_rows(there, "cpu")
    assert list(table) == list(REGULARIZERS)
    assert all(row.results[0].run == found[name].name for name, row in table.items())


def regularized(best, val_loss, train_loss=1.0):
    """A row whose estimates were lowest at iteration 10."""
    evaluations = tuple(
        {"iteration": 10 * number, "train_loss": 2.0 - 0.1 * number, "val_loss": loss}
        for number, loss in enumerate((best, val_loss), 1)
    )
    result = RunResult(
        run="r", seed=1, train_loss=train_loss, val_loss=val_loss, best_val_loss=best,
        bits_per_character=2.0, tokens_per_second=1.0, seconds=1.0, iterations=20,
        evaluations=evaluations,
    )  # fmt: skip
    return ResultRow(model="TransformerLM", size="default", parameters=1, results=(result,))


def test_the_summary_says_what_the_rows_do():
    table = {NONE: regularized(1.8, 2.1), "early stopping": regularized(1.8, 1.85),
             "dropout 0.2": regularized(1.7, 1.75),
             "step decay": regularized(1.79, 2.5)}  # fmt: skip
    assert summarize(table) == [
        "Without a regularizer the validation loss is lowest after 10 iterations and then rises by "
        "0.300 nats, while the training loss falls to 1.000.",
        "Early stopping: final loss 0.250 nats lower; best weights level (within noise: "
        "0.0000 of 0.0141 nats).",
        "Dropout 0.2: final loss 0.350 nats lower; best weights 0.100 nats lower.",
        "Step decay: final loss 0.400 nats higher; best weights level (within noise: "
        "0.0100 of 0.0141 nats).",
        "The lowest final loss, 1.750: dropout 0.2.",
    ]
    (only,) = summarize({NONE: regularized(1.8, 1.8), "dropout 0.2": regularized(1.7, 1.7)})
    assert only.startswith("This model does not overfit")


def test_seeds_with_equal_weights_and_windows_are_paired():
    """Far apart, but each falls by as much: 0.02 ± 0.001 of three seeds."""

    def of_seeds(*losses):
        one = regularized(1.8, 2.1)
        runs = [
            dataclasses.replace(one.results[0], seed=seed, val_loss=loss)
            for seed, loss in enumerate(losses)
        ]
        return dataclasses.replace(one, results=tuple(runs), pairing_key=("TransformerLM", 8))

    table = {NONE: of_seeds(2.1, 2.2, 2.3), "dropout 0.2": of_seeds(2.08, 2.179, 2.281)}
    sentences = summarize(table)
    assert sentences[1].startswith("Dropout 0.2: final loss 0.020 nats lower (paired by seed); ")
    assert sentences[-1] == "The lowest final loss, 2.180: dropout 0.2."
    unlike = dataclasses.replace(table["dropout 0.2"], pairing_key=("TransformerLM", 9))
    table["dropout 0.2"] = unlike
    sentences = summarize(table)
    assert "Dropout 0.2: final loss level (within noise: 0.0200 of 0.1637 nats); " in sentences[1]
    assert sentences[-1].endswith("2.180: dropout 0.2; within noise of it: none.")
