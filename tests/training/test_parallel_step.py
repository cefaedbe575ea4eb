"""Steps shared among threads: those of one thread but for rounding, and always the same bits."""

import pytest
import torch
from learning import losses, new_trainer, record

from drakegpt.compute.workers import Workers
from drakegpt.config import resolve
from drakegpt.runs.create import create_run
from drakegpt.runs.run import open_run
from drakegpt.training import step_runner

WIDE = {"embedding_dim": 96, "num_layers": 2, "context_length": 16, "batch_size": 7}
WIDE |= {"iters": 6, "eval_interval": 6, "eval_iters": 1}
RECIPES = {
    "adamw": {},
    "muon": {"optimizer": "muon", "muon_split_qkv": True},
    "bfloat16": {"dtype": "bfloat16"},
    "accumulation": {"grad_accumulation": 3, "grad_clip": 0.5},
    "average": {"ema": 0.9, "schedule": "hold"},
}


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    """Shares as small as these batches, on any machine."""
    monkeypatch.setattr(step_runner, "TOKENS_PER_SHARE", 16)
    monkeypatch.setattr(step_runner, "choose_thread_count", lambda _: 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_shares_add_up_to_the_whole(prepared, monkeypatch, recipe):
    shared = new_trainer(prepared, "TransformerLM", dropout=0.0, **WIDE, **recipe)
    assert shared.plan.shares == 3
    assert "shared among 3 threads" in shared.plan.description
    monkeypatch.setattr(step_runner, "_count_shares", lambda _: 1)
    whole = new_trainer(prepared, "TransformerLM", dropout=0.0, **WIDE, **recipe)
    assert whole.plan.shares == 1
    bound = 0.01 if "dtype" in recipe else 1e-5
    assert losses(shared) == pytest.approx(losses(whole), abs=bound)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_threads_that_race_compute_the_same_bits_replayed_or_not(prepared, recipe):
    """Dropout included: each share has random numbers of its own."""
    results = []
    for replay in (True, True, False):
        settings = WIDE | recipe | {"dropout": 0.2, "token_dropout": 0.1}
        trainer = new_trainer(prepared, "TransformerLM", replay=replay, **settings)
        results.append((losses(trainer), trainer.optimizer.weights.values))
    for found, weights in results[1:]:
        assert found == results[0][0]
        assert torch.equal(weights, results[0][1])


def test_shares_drop_different_activations(prepared):
    """Windows that are alike have other losses in each share."""
    trainer = new_trainer(prepared, "TransformerLM", **WIDE | {"dropout": 0.5, "batch_size": 3})
    trainer._active_model.train()
    trainer._parallel()
    work = trainer._parallel._gradients
    losses = {float(w(g)) for w, g in zip(work, trainer._parallel._generators, strict=True)}
    assert len(losses) == 3


def test_a_run_that_is_resumed_ends_in_the_same_bytes(prepared):
    settings = WIDE | RECIPES["muon"] | {"dropout": 0.2}
    config = resolve("TransformerLM", "default", prepared.name, settings)
    whole, cut = (create_run(config, prepared, name) for name in ("whole", "cut"))
    assert record(whole).trainer.plan.shares == 3
    record(cut, until=4, save=True)
    record(open_run(cut.folder), resume=True)
    cpu = torch.device("cpu")
    expected, found = (run.load_model(cpu).state_dict() for run in (whole, cut))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("settings", "shares"),
    [({}, 3), ({"batch_size": 2}, 2), ({"bits": "1.58"}, 1), ({"compile": True}, 1)],
)
def test_what_is_shared(settings, shares):
    config = resolve("TransformerLM", "default", "x", WIDE | settings)
    assert step_runner.plan_execution(config, torch.device("cpu")).shares == shares
    assert step_runner.plan_execution(config, torch.device("cpu"), 2).shares == 1


def test_narrow_models_are_left_to_one_thread(monkeypatch):
    monkeypatch.undo()
    config = resolve("TransformerLM", "default", "x", {"batch_size": 200})
    assert step_runner.plan_execution(config, torch.device("cpu")).shares == 1


def test_workers_raise_what_failed_after_all_have_ended():
    done = []

    def fail():
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        Workers(2, 1).run([fail, lambda: done.append(1), lambda: done.append(2)])
    assert sorted(done) == [1, 2]
