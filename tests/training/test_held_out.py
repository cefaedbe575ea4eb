"""The tail of the training split, where a run is chosen by it: never trained on."""

import pytest
import torch
from learning import CPU, record

from drakegpt.config import resolve
from drakegpt.data.prepare import prepare_dataset
from drakegpt.data.windows import Stream
from drakegpt.errors import CorpusError
from drakegpt.models.registry import build_model
from drakegpt.runs.create import create_run
from drakegpt.runs.session import TrainingSession
from drakegpt.training.reports import Evaluation
from drakegpt.training.run_length import iters_for_epochs
from drakegpt.training.trainer import Trainer

# Of 2,000 characters the last 200 validate; the 180 before them are the tail, which alone has a Z.
HEAD, TAIL, REST = "ab cd\n" * 270, "Zz" * 90, "zy" * 100
BRIEF = {"iters": 40, "eval_interval": 10, "eval_iters": 2, "batch_size": 16}


def prepare(tail=TAIL, rest=REST):
    text = HEAD + tail + rest
    return prepare_dataset(text, name="text", source="", provenance="", source_sha256="")


def held_out(**settings):
    return resolve("BigramLM", "default", "text", BRIEF | {"select_on": "training-tail"} | settings)


def test_the_tail_is_the_last_tenth_of_the_training_split():
    data = prepare()
    learnt, tail = data.select_splits(tail=True)
    assert torch.equal(torch.cat([learnt, tail]), data.split("train"))
    assert data.tokenizer.decode(tail.tolist()) == TAIL
    whole, val = data.select_splits(tail=False)
    assert torch.equal(whole, data.split("train"))
    assert torch.equal(val, data.split("val"))


@pytest.mark.parametrize("windows", ["random", "epoch"])
def test_no_token_of_the_tail_is_in_a_window_that_is_trained_on(windows, monkeypatch):
    data = prepare()
    run = create_run(held_out(window_order=windows), data)
    of_tail = {data.tokenizer.encode(letter)[0] for letter in "Zz"}
    drawn, scored = set(), {Stream.ESTIMATE_TRAIN: set(), Stream.ESTIMATE_VAL: set()}
    with TrainingSession(run) as recorder:
        trainer = recorder.trainer
        at, of = trainer._windows.at, trainer._estimator._iterate_batches

        def noted(iteration):
            for part in at(iteration):
                drawn.update(part.flatten().tolist())
            return at(iteration)

        def noted_too(stream, *given):
            for inputs, targets in of(stream, *given):
                scored[stream].update(inputs.flatten().tolist() + targets.flatten().tolist())
                yield inputs, targets

        monkeypatch.setattr(trainer._windows, "at", noted)
        monkeypatch.setattr(trainer._estimator, "_iterate_batches", noted_too)
        evaluations = [r for r in recorder.reports() if isinstance(r, Evaluation)]
    letters = {data.tokenizer.encode(letter)[0] for letter in "abcd \n"}
    assert drawn == scored[Stream.ESTIMATE_TRAIN] == letters
    assert scored[Stream.ESTIMATE_VAL] == of_tail
    assert {evaluation.scored_on for evaluation in evaluations} == {"training-tail"}


@pytest.mark.parametrize("schedule", ["cyclic", "cosine"])
def test_what_the_tail_and_the_rest_say_has_no_part_in_the_weights(schedule):
    weights = []
    for tail, rest in [(TAIL, REST), (TAIL[::-1], REST), (TAIL, REST[::-1])]:
        run = create_run(held_out(schedule=schedule), prepare(tail, rest))
        weights.append(record(run).trainer.model.state_dict())
    for other in weights[1:]:
        assert all(torch.equal(weights[0][name], other[name]) for name in other)


def test_patience_and_plateaus_go_by_the_tail():
    """The same trainer on the tail, called validation, does the same; its letters are reversed."""
    data = prepare("\ndc ba" * 30)
    settings = {"schedule": "plateau", "plateau_patience": 1, "patience": 4, "iters": 1000}
    config = held_out(**settings, max_lr=0.1, base_lr=0.1)
    run = create_run(config, data)
    with TrainingSession(run) as recorder:
        ours = [r for r in recorder.reports() if isinstance(r, Evaluation)]
    torch.manual_seed(config.seed)
    model = build_model(config.model_settings(data.tokenizer.vocab_size))
    theirs = Trainer(config, model, *data.split("train").tensor_split([1620]), CPU).reports()
    losses = [e.val_loss for e in theirs if isinstance(e, Evaluation)]
    assert [e.val_loss for e in ours] == losses
    assert len({e.learning_rate for e in ours}) > 1
    assert ours[-1].iteration < config.iters


def test_epochs_are_of_what_is_trained_on():
    data = prepare()
    iterations = iters_for_epochs(held_out(epochs=3, context_length=9), data)
    assert iterations == -(-3 * ((1620 - 1) // 9) // 16)


def test_a_tail_too_short_for_the_context_is_said_with_what_else_may_choose():
    data = prepare()
    create_run(held_out(context_length=179), data)
    with pytest.raises(CorpusError, match="the tail of its training split has 180") as caught:
        create_run(held_out(context_length=180), data)
    assert "--select-on validation" in caught.value.fix
    create_run(held_out(context_length=180, select_on="validation"), data)
