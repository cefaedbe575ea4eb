"""What a run's folder holds while it trains, and what goes wrong around it."""

import json
import math
import shutil

import pytest
import torch
from learning import record

from drakegpt.config import resolve
from drakegpt.data.prepare import prepare_dataset
from drakegpt.errors import NotEnoughMemoryError, RunError, UsageError
from drakegpt.runs import run_trainer
from drakegpt.runs import session as session_module
from drakegpt.runs.changes import change_settings
from drakegpt.runs.checkpoint import list_checkpoints, load_weights
from drakegpt.runs.create import create_run
from drakegpt.runs.run import open_run
from drakegpt.runs.session import TrainingSession
from drakegpt.training.reports import Evaluation, Step
from drakegpt.training.trainer import Trainer


def new_run(prepared, model="TransformerLM", name=None, **settings):
    settings = {"iters": 30, "eval_interval": 10, "eval_iters": 2, "save_interval": 4, **settings}
    return create_run(resolve(model, "default", prepared.name, settings), prepared, name)


def weights(run):
    return run.last_checkpoint().weights.read_bytes()


def history(run):
    times = ("seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if k not in times} for line in run.metrics]


def check_resumed(whole, broken, stop):
    """Train `whole` in one go, and `broken`, which is equal, with an end after step `stop`."""
    record(whole)
    record(broken, until=stop)
    torch.rand(5)
    record(broken, resume=True)
    assert weights(broken) == weights(whole)
    assert history(broken) == history(whole)


@pytest.mark.parametrize("stop", [1, 4, 9, 10, 11, 27, 30])
@pytest.mark.parametrize("schedule", ["cyclic", "plateau"])
def test_a_resumed_run_ends_with_the_same_bytes(prepared, stop, schedule):
    """Even before the first checkpoint, and between a step and its evaluation."""
    settings = {"schedule": schedule, "plateau_patience": 1, "grad_clip": 0.5}
    whole, broken = new_run(prepared, **settings), new_run(prepared, **settings)
    check_resumed(whole, broken, stop)
    best = "best.safetensors"
    assert (broken.folder / best).read_bytes() == (whole.folder / best).read_bytes()


@pytest.mark.parametrize("model", ["TransformerLM", "GPT1LM"])
@pytest.mark.parametrize("stop", [1, 10, 27])
def test_a_resumed_run_of_the_best_recipe_ends_with_the_same_bytes(prepared, model, stop):
    settings = {"recipe": "best", "warmup_iters": 5}
    whole, broken = (new_run(prepared, model, **settings) for _ in range(2))
    check_resumed(whole, broken, stop)


def test_best_weights_are_those_of_the_lowest_validation_loss(prepared):
    run = new_run(prepared)
    session = record(run)
    _, metadata = load_weights(run.folder / "best.safetensors")
    assert int(metadata["iteration"]) == session.trainer.best.iteration
    assert json.loads(metadata["model"])["model"] == "TransformerLM"
    assert json.loads(metadata["tokenizer"])["characters"] == run.tokenizer.characters
    assert metadata["dataset_version"] == prepared.metadata.version


def test_a_damaged_last_checkpoint_falls_back_and_says_so(prepared, caplog):
    whole, run = new_run(prepared), new_run(prepared)
    record(whole)
    record(run, until=14)
    last = list_checkpoints(run.folder / "checkpoints")[-1]
    last.weights.write_bytes(last.weights.read_bytes()[:-5])
    record(run, resume=True)
    assert "damaged" in caplog.text
    assert "Going back to iteration 8" in caplog.text
    assert weights(run) == weights(whole)
    assert history(run) == history(whole)


def test_all_checkpoints_damaged_is_an_error_and_changes_nothing(prepared):
    run = new_run(prepared)
    record(run, until=14)
    for checkpoint in list_checkpoints(run.folder / "checkpoints"):
        checkpoint.weights.write_bytes(b"")
    before = sorted(str(f) for f in run.folder.rglob("*") if f.name != ".lock")
    with pytest.raises(RunError, match="damaged"):
        record(run, resume=True)
    assert sorted(str(f) for f in run.folder.rglob("*") if f.name != ".lock") == before


def test_more_iterations_are_allowed_and_other_changes_named(prepared):
    run = new_run(prepared)
    record(run)
    longer = change_settings(run, {"iters": 40, "seed": 42})
    record(longer, resume=True)
    assert [e["iteration"] for e in longer.evaluations] == [10, 20, 30, 40]
    assert open_run(run.folder).config.iters == 40
    with pytest.raises(UsageError) as caught:
        change_settings(run, {"batch_size": 64, "max_lr": 0.1, "iters": 50})
    assert "batch_size (32 → 64), max_lr (0.005 → 0.1)" in str(caught.value)
    assert open_run(run.folder).config.iters == 40


def test_only_one_process_trains_a_run(prepared):
    run = new_run(prepared)
    with (
        TrainingSession(run),
        pytest.raises(UsageError, match="Another process"),
        TrainingSession(run),
    ):
        pass


def test_a_removed_folder_stops_the_run_and_is_not_made_again(prepared):
    run = new_run(prepared)
    with pytest.raises(RunError, match=r"removed; training stopped at iteration 8"):
        with TrainingSession(run) as session:
            for report in session.reports():
                if report.iteration == 7:
                    shutil.rmtree(run.folder)
    assert not run.folder.exists()


def test_a_folder_removed_while_it_is_written_is_said_to_be_removed(prepared, monkeypatch):
    run = new_run(prepared)

    def removed_meanwhile(parent, *_):
        shutil.rmtree(run.folder)
        raise FileNotFoundError(2, "No such file or directory", str(parent))

    monkeypatch.setattr(session_module, "save_checkpoint", removed_meanwhile)
    with (
        pytest.raises(RunError, match="removed; training stopped"),
        TrainingSession(run) as session,
    ):
        for _ in session.reports():
            pass


def test_a_full_disk_keeps_the_last_checkpoint_and_names_the_iteration(prepared, monkeypatch):
    run = new_run(prepared)
    save = session_module.save_checkpoint

    def full_from_the_third_on(parent, iteration, *rest):
        if iteration > 8:
            raise OSError(28, "No space left on device")
        return save(parent, iteration, *rest)

    monkeypatch.setattr(session_module, "save_checkpoint", full_from_the_third_on)
    with pytest.raises(RunError) as caught:
        record(run)
    assert "Iteration 12 could not be saved" in str(caught.value)
    assert f"--resume {run.name}" in caught.value.fix
    monkeypatch.setattr(session_module, "save_checkpoint", save)
    whole = new_run(prepared)
    record(whole)
    record(run, resume=True)
    assert weights(run) == weights(whole)


def test_a_failed_loss_keeps_the_last_checkpoint(prepared):
    run = new_run(prepared, iters=100)
    with pytest.raises(RunError, match="nan at iteration 12"), TrainingSession(run) as session:
        for report in session.reports():
            if isinstance(report, Step) and report.iteration == 11:
                with torch.no_grad():
                    session.trainer.model.head.bias.fill_(math.nan)
    assert run.last_checkpoint().iteration == 8


def test_weights_that_are_not_finite_are_never_saved(prepared):
    """The step whose loss was still a number, and whose update was not."""
    run = new_run(prepared, iters=100)
    with (
        pytest.raises(RunError, match="no longer finite after iteration 8"),
        TrainingSession(run) as r,
    ):
        for report in r.trainer.reports():
            if report.iteration == 8:
                r.trainer.model.head.bias.data.fill_(math.inf)
                r.save()
            elif report.iteration == 4:
                r.save()
    assert run.last_checkpoint().iteration == 4


def test_saving_takes_a_small_share_of_the_time(prepared, monkeypatch):
    """Slow saves become rare: here each takes as long as dozens of iterations."""
    import time

    run = new_run(prepared, "BigramLM", iters=400, eval_interval=1, eval_iters=1, save_interval=0)
    saves = []

    def slow(parent, iteration, *_):
        saves.append(iteration)
        time.sleep(0.05)

    monkeypatch.setattr(session_module, "save_checkpoint", slow)
    started = time.monotonic()
    record(run)
    took = time.monotonic() - started
    assert saves[-1] == 400
    # The first and the last are always made; each other waits for many times its cost.
    assert len(saves) <= 2 + took / (session_module.TRAIN_TO_SAVE_RATIO * 0.05)


def test_accumulated_gradients_equal_those_of_one_large_batch(prepared):
    gradients = []
    for batch, accumulation in ((32, 1), (8, 4)):
        run = new_run(prepared, batch_size=batch, grad_accumulation=accumulation, dropout=0.0)
        with TrainingSession(run) as session:
            next(session.reports())
            gradients.append(session.trainer.optimizer.weights.gradient.clone())
    assert torch.allclose(*gradients, atol=1e-6)
    assert gradients[0].norm() > 0.1


def test_gradients_are_clipped_to_their_norm(prepared):
    norms = []
    for clip in (0.0, 0.1):
        run = new_run(prepared, grad_clip=clip)
        with TrainingSession(run) as session:
            next(session.reports())
            norms.append(session.trainer.optimizer.weights.gradient.norm().item())
    assert norms[0] > 0.2
    assert norms[1] == pytest.approx(0.1, rel=1e-3)


def test_weight_decay_shrinks_weights(prepared):
    sizes = []
    for decay in (0.0, 100.0):
        run = new_run(prepared, weight_decay=decay)
        session = record(run)
        sizes.append(sum(p.norm().item() for p in session.trainer.model.parameters()))
    assert sizes[1] < sizes[0] / 2


@pytest.fixture
def tiny():
    """Small enough that a transformer learns it by heart."""
    import random

    chance = random.Random(1)
    text = "".join(chance.choice("abcdefgh ") for _ in range(600))
    return prepare_dataset(text, name="tiny", source="", provenance="", source_sha256="")


def overfit(tiny, **settings):
    settings = {"iters": 2000, "eval_interval": 20, "eval_iters": 5, "dropout": 0.0, **settings}
    run = new_run(tiny, save_interval=0, schedule="constant", **settings)
    session = record(run)
    return run, session.trainer


def test_early_stopping_ends_an_overfitting_run_and_keeps_the_best(tiny):
    run, _ = overfit(tiny, patience=3)
    ending = run.ending
    assert ending["reason"] == "patience"
    assert ending["iteration"] < 2000
    losses = [e["val_loss"] for e in run.evaluations]
    assert losses.index(min(losses)) == len(losses) - 1 - 3
    assert ending["best_iteration"] == run.evaluations[losses.index(min(losses))]["iteration"]
    _, metadata = load_weights(run.folder / "best.safetensors")
    assert int(metadata["iteration"]) == ending["best_iteration"]
    train_losses = [e["train_loss"] for e in run.evaluations]
    assert train_losses[-1] < train_losses[losses.index(min(losses))]


def test_plateau_lowers_the_rate_when_validation_stops_falling(tiny):
    run = new_run(
        tiny, iters=600, eval_interval=20, eval_iters=5, schedule="plateau", dropout=0.0,
        plateau_patience=2, decay_factor=0.5,
    )  # fmt: skip
    with TrainingSession(run) as session:
        seen = [r for r in session.reports() if isinstance(r, Evaluation)]
    best, waited, rate, expected = math.inf, 0, 5e-3, []
    for evaluation in seen:
        expected.append(rate)
        best, waited = (
            (evaluation.val_loss, 0) if evaluation.val_loss < best else (best, waited + 1)
        )
        if waited == 2:
            waited, rate = 0, rate / 2
    assert [e.learning_rate for e in seen] == pytest.approx(expected)
    assert rate < 5e-3


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError("Unable to allocate 7.28 TiB for an array"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("moment", ["start", "step", "later"])
def test_running_out_of_memory_is_one_error_and_leaves_no_run(prepared, monkeypatch, error, moment):
    """But a run that has a checkpoint stays as it is."""
    run = new_run(prepared, batch_size=16, grad_accumulation=2)
    learn = Trainer._step

    def fail(*_):
        raise error

    def fail_later(self):
        return learn(self) if self.iteration < (2 if moment == "step" else 9) else fail()

    monkeypatch.setattr(Trainer, "_step", fail_later)
    if moment == "start":
        monkeypatch.setattr(run_trainer, "build_initial_model", fail)
    with pytest.raises(NotEnoughMemoryError, match="TransformerLM with batches of 16 windows") as e:
        record(run)
    assert e.value.fix.startswith("Take --batch-size 8 --grad-accumulation 4,")
    assert run.folder.exists() == (moment == "later")
    if moment == "later":
        monkeypatch.setattr(Trainer, "_step", learn)
        record(run, resume=True)
        assert run.metrics[-1]["event"] == "finished"


def test_other_errors_of_pytorch_are_raised_as_they_are(prepared, monkeypatch):
    def fail(_self):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Trainer, "_update", fail)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        record(new_run(prepared))
