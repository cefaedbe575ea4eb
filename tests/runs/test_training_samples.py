"""The texts that a run writes while it is trained: when, by which weights, and at no one's cost."""

import json
from types import SimpleNamespace

import pytest
import torch
from learning import CPU, new_trainer, prepare, record

from drakegpt.config import resolve
from drakegpt.generation.text import generate_text
from drakegpt.runs.create import create_run
from drakegpt.runs.session import TrainingSession
from drakegpt.runs.stored_samples import Sample, choose_samples, list_samples
from drakegpt.runs.training_samples import LENGTH, SampleWriter
from drakegpt.training.reports import Evaluation

SETTINGS = {"iters": 90, "eval_interval": 15, "eval_iters": 2, "save_interval": 7, "seed": 5}


def new_run(data, model="TransformerLM", **settings):
    return create_run(resolve(model, "default", data.name, SETTINGS | settings), data, None)


def samples_of(run):
    return {sample.iteration: sample.text for sample in list_samples(run.evaluations)}


def weights(run):
    return run.last_checkpoint().weights.read_bytes()


def losses(run):
    return [(line["train_loss"], line["val_loss"]) for line in run.evaluations]


def test_the_last_sample_is_what_the_last_weights_write(prepared):
    run = new_run(prepared, ema=0.9)
    record(run)
    text = "".join(generate_text(run.load_model(CPU), run.tokenizer, "", LENGTH, seed=5))
    assert samples_of(run)[90] == text
    assert len(text) == LENGTH


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("TransformerLM", {"dropout": 0.2}),
        ("TransformerLM", {"recipe": "best"}),
        ("TransformerLM", {"bits": "1.58"}),
        ("BigramLM", {}),
        ("GPT1LM", {"context_length": 40}),
    ],
)
def test_training_goes_on_as_if_no_sample_had_been_written(prepared, model, settings, monkeypatch):
    with_samples, without = (
        new_run(prepared, model, **settings),
        new_run(prepared, model, **settings),
    )
    record(with_samples)
    assert len(samples_of(with_samples)) > 1
    monkeypatch.setattr(SampleWriter, "__call__", lambda *_, **__: "")
    record(without)
    assert samples_of(without) == {}
    first, second = (run.last_checkpoint().weights.read_bytes() for run in (with_samples, without))
    assert first == second
    losses = [
        [(e["train_loss"], e["val_loss"]) for e in r.evaluations] for r in (with_samples, without)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("stop", [44, 45, 46, 89])
def test_a_resumed_run_has_the_samples_of_one_that_was_not_interrupted(prepared, stop):
    whole, broken = new_run(prepared), new_run(prepared)
    record(whole)
    record(broken, until=stop)
    record(broken, resume=True)
    assert samples_of(broken) == samples_of(whole) != {}
    assert (
        broken.last_checkpoint().weights.read_bytes()
        == whole.last_checkpoint().weights.read_bytes()
    )


def test_the_random_generator_is_left_alone(prepared):
    with TrainingSession(new_run(prepared)) as session:
        state = torch.get_rng_state()
        assert session.trainer._write_sample(session.trainer.model, 90, [], last=True)
        assert torch.equal(torch.get_rng_state(), state)
        assert session.trainer.model.training


def due(config, iterations):
    """The iterations, of those of evaluations, at which a sample is due."""
    writer = SampleWriter(config, SimpleNamespace(unit="character", vocab_size=65))
    found = []
    for iteration in iterations:
        before = found[-1] if found else None
        if writer._is_due(iteration, before, last=iteration == iterations[-1]):
            found.append(iteration)
    return found


def test_small_models_write_where_the_loss_has_fallen_and_wide_ones_at_each_evaluation():
    small = resolve("TransformerLM", "default", "x", {"recipe": "fast"})
    assert due(small, range(200, 4001, 200)) == [200, 600, 1800, 4000]
    wide = resolve(
        "TransformerLM", "default", "x",
        {"context_length": 128, "embedding_dim": 128, "num_layers": 4, "batch_size": 16},
    )  # fmt: skip
    assert due(wide, range(150, 3001, 150)) == [*range(150, 3001, 150)]


def test_a_model_that_has_read_next_to_nothing_writes_nothing(prepared):
    run = new_run(prepared, iters=20, eval_interval=10)  # of 256 tokens each
    record(run)
    assert samples_of(run) == {}
    assert "sample" not in (run.folder / "metrics.jsonl").read_text()


def test_weights_that_predict_nothing_write_nothing(prepared):
    run = new_run(prepared)
    with TrainingSession(run) as session:
        model = session.trainer.model
        with torch.no_grad():
            next(model.parameters()).fill_(torch.nan)
        writer = SampleWriter(run.config, run.tokenizer)
        assert writer(model, 90, [], last=True) == ""


def test_a_text_of_long_tokens_is_kept_short_enough_to_be_found_again():
    data = prepare("\N{GRINNING FACE}é漢" * 3000, tokenizer="bpe", vocab_size=270)
    run = new_run(data, "BigramLM", iters=40, eval_interval=40)
    record(run)
    (text,) = samples_of(run).values()
    assert len(text) <= LENGTH
    assert run.last_evaluation["iteration"] == 40


def test_samples_are_chosen_at_equal_steps_of_the_loss():
    losses = [4.0, 3.9, 3.1, 2.9, 2.1, 2.0, 1.95, 1.9]
    samples = [Sample(i, loss, loss, str(i)) for i, loss in enumerate(losses)]
    # From 4.0 to 1.9 in three steps: 3.3 and 2.6, next to which are 3.1 and 2.9
    assert [s.val_loss for s in choose_samples(samples, 4)] == [4.0, 3.1, 2.9, 1.9]
    assert choose_samples(samples[:3], 4) == samples[:3]


def test_a_trainer_without_a_writer_has_no_samples(prepared):
    trainer = new_trainer(prepared, "BigramLM", iters=40, eval_interval=40)
    (evaluation,) = (r for r in trainer.reports() if isinstance(r, Evaluation))
    assert evaluation.sample == ""


def test_a_sample_that_is_no_text_is_a_damaged_line(prepared, drakegpt):
    run = new_run(prepared, iters=40, eval_interval=40)
    record(run)
    path = run.folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["sample"] = 7
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = drakegpt("runs", "show", run.name)
    assert shown.code == 1
    assert "not a text" in shown.err
