"""Runs that begin with another run's weights: the same weights, kept, or refused in words."""

import shutil

import pytest
import torch
from learning import record

from drakegpt.config import resolve
from drakegpt.data.prepare import prepare_dataset
from drakegpt.errors import UsageError
from drakegpt.models.bitlinear import BitLinear
from drakegpt.runs.checkpoint import load_weights
from drakegpt.runs.create import create_run
from drakegpt.runs.packing import pack_run
from drakegpt.runs.run import open_run
from drakegpt.runs.session import TrainingSession
from drakegpt.runs.warm_start import load_init_weights, load_into_

SHORT = {"iters": 6, "eval_interval": 3, "eval_iters": 1, "dropout": 0.1}


def configured(data, model="TransformerLM", **settings):
    return resolve(model, "default", data.name, {**SHORT, **settings})


@pytest.fixture
def full(prepared):
    run = create_run(configured(prepared), prepared, "full")
    record(run)
    return run


def make_run(full, prepared, name=None, **settings):
    config = configured(prepared, init_from=full.name, **settings)
    return create_run(config, prepared, name, initial=load_init_weights(full, config, prepared))


@pytest.mark.parametrize("bits", ["full", "1.58", "1"])
def test_it_starts_from_exactly_those_weights(full, prepared, bits):
    run = open_run(make_run(full, prepared, bits=bits).folder)
    with TrainingSession(run) as session:
        weights = session.trainer.model.state_dict()
        last, _ = load_weights(full.last_checkpoint().weights)
        assert all(torch.equal(weights[name], tensor) for name, tensor in last.items())
        # and what is new with few bits changes nothing yet
        norms = [layer.norm for layer in session.trainer.model.modules()
                 if isinstance(layer, BitLinear)]  # fmt: skip
        assert len(norms) == (0 if bits == "full" else 3 * 4)
        for norm in (norm for norm in norms if list(norm.parameters())):
            assert (norm.weight == 1).all()
            assert (norm.bias == 0).all()


def test_training_starts_lower_than_from_random_weights(prepared):
    start = create_run(configured(prepared, iters=300, max_lr=1e-2), prepared)
    record(start)

    def first_loss(run):
        with TrainingSession(run) as session:
            return next(iter(session.reports())).loss.item()

    by_chance = create_run(configured(prepared), prepared)
    assert first_loss(make_run(start, prepared)) < first_loss(by_chance) - 1.0


def test_it_resumes_to_the_same_bytes_without_the_other_run(full, prepared):
    whole = make_run(full, prepared, "whole", bits="1.58")
    record(whole)
    cut = make_run(full, prepared, "cut", bits="1.58")
    record(cut, until=2, save=True)
    shutil.rmtree(full.folder)
    record(open_run(cut.folder), resume=True)
    ends = [run.last_checkpoint().weights.read_bytes() for run in (whole, cut)]
    assert ends[0] == ends[1]
    # killed before its first checkpoint, it begins with them again
    shutil.rmtree(cut.folder / "checkpoints")
    record(open_run(cut.folder), resume=True)
    assert cut.last_checkpoint().weights.read_bytes() == ends[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"embedding_dim": 64}, "its embedding_dim is 32, not 64"),
        ({"num_layers": 2}, "its num_layers is 3, not 2"),
        ({"model": "ResidualBlocksLM"}, "its model is TransformerLM, not ResidualBlocksLM"),
    ],
)
def test_other_shapes_are_refused(full, prepared, settings, words):
    with pytest.raises(UsageError, match=words):
        make_run(full, prepared, **settings)


def test_other_characters_are_refused(full, corpus):
    other = prepare_dataset(corpus + "?", name="other", source="", provenance="", source_sha256="0")
    with pytest.raises(UsageError, match="its vocabulary is not that of 'other'"):
        load_init_weights(full, configured(other), other)


def test_packed_runs_and_fewer_bits_than_wanted_are_refused(full, prepared):
    packed = pack_run(full, "8")
    with pytest.raises(UsageError, match="its weights are packed") as caught:
        make_run(packed, prepared)
    assert full.name in caught.value.fix
    few = make_run(full, prepared, "few", bits="1")
    record(few)
    with pytest.raises(UsageError, match="parameter .*norm.* does not match"):
        make_run(few, prepared)


def test_weights_that_are_missing_are_named():
    with pytest.raises(ValueError, match="parameter weight does not match"):
        load_into_(torch.nn.Linear(2, 2), {"bias": torch.zeros(2)})
