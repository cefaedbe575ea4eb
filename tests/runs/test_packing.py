"""Packed runs: of few bytes, equal to what was trained, refused when damaged."""

import json

import pytest
import torch
from learning import record, train
from safetensors.torch import load_file

from drakegpt.config import resolve
from drakegpt.errors import RunError, UsageError
from drakegpt.models.reference import ReferenceLM
from drakegpt.runs.create import create_run
from drakegpt.runs.lookup import find_run
from drakegpt.runs.packing import pack_run
from drakegpt.runs.run import open_run
from drakegpt.runs.scores import score_run
from drakegpt.runs.session import TrainingSession
from drakegpt.runs.upstream import import_original

CPU = torch.device("cpu")


def batch(model):
    chance = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (5, 8), generator=chance)


@pytest.mark.parametrize("bits", ["1.58", "1"])
def test_a_run_trained_with_few_bits_is_packed_exactly(prepared, bits):
    given = {"iters": 40, "eval_interval": 20, "eval_iters": 2, "bits": bits}
    config = resolve("TransformerLM", "default", prepared.name, given)
    run = create_run(config, prepared)
    model = record(run).trainer.model.eval()
    packed = pack_run(run, bits)
    tokens = batch(model)
    with torch.no_grad():
        assert torch.allclose(packed.load_model(CPU)(tokens), model(tokens), atol=1e-4)
        assert torch.allclose(run.load_model(CPU)(tokens), model(tokens), atol=1e-4)
    assert score_run(packed).val.loss == pytest.approx(score_run(run).val.loss, abs=1e-5)
    stored = load_file(packed.last_checkpoint().weights)
    assert any(tensor.dtype == torch.uint8 for tensor in stored.values())
    assert sum(t.nbytes for t in stored.values()) < 0.4 * 4 * sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize(("bits", "close"), [("8", True), ("1.58", False), ("1", False)])
def test_quantizing_after_training_raises_the_loss(prepared, bits, close):
    run = train(prepared, iters=300, eval_interval=300)
    packed = pack_run(run, bits)
    lost = score_run(packed).val.loss - score_run(run).val.loss
    assert (abs(lost) < 0.02) == close
    assert lost > -0.02


def test_packed_runs_are_runs_but_cannot_be_trained_on(prepared):
    run = train(prepared)
    packed = open_run(pack_run(run, "8", "small").folder)
    assert packed.finished
    assert packed.derived == "packed"
    assert packed.info["packed"] == {"bits": "8", "trained": False, "from": run.name}
    with (
        pytest.raises(RunError, match="no optimizer state"),
        TrainingSession(packed, resume=True),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "bits", "words"),
    [
        ({"bits": "1.58"}, "1", "was trained with 1.58 bits"),
        ({"bits": "1.58"}, "8", "was trained with 1.58 bits"),
        ({"model": "BigramLM"}, "8", "no linear layers"),
    ],
)
def test_what_cannot_be_packed_is_explained(prepared, settings, bits, words):
    run = train(prepared, **settings)
    with pytest.raises(UsageError, match=words):
        pack_run(run, bits)


def test_an_imported_run_can_be_packed(prepared, tmp_path):
    """It has no final norm, and stays known as imported."""
    config = resolve("TransformerLM", "default", prepared.name)
    reference = ReferenceLM(config.model_settings(prepared.tokenizer.vocab_size))
    torch.save(reference.state_dict(), tmp_path / "old.pt")
    run = import_original(tmp_path / "old.pt", config, prepared, "old")
    packed = pack_run(run, "8")
    tokens = torch.randint(5, (2, 8))
    with torch.no_grad():
        close = packed.load_model(CPU)(tokens), run.load_model(CPU)(tokens)
    assert torch.allclose(*close, atol=0.1)
    assert packed.info["imported_from"] == run.info["imported_from"]


def test_a_model_named_means_what_was_trained(prepared):
    run = train(prepared)
    packed = pack_run(run, "1")
    assert find_run("TransformerLM").name == find_run(None).name == run.name
    assert find_run(packed.name).name == packed.name


def test_a_packed_run_is_not_packed_again(prepared):
    run = train(prepared)
    with pytest.raises(UsageError, match="packed already"):
        pack_run(pack_run(run, "8"), "8")


def test_a_damaged_packed_run_is_refused(prepared):
    run = train(prepared, bits="1.58")
    packed = pack_run(run, "1.58")
    info = json.loads((packed.folder / "run.json").read_text())
    info["packed"]["bits"] = "1"
    (packed.folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunError, match="do not fit its settings"):
        open_run(packed.folder).load_model(CPU)
