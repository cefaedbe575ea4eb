"""Each implementation does its work, and does what its name says."""

import pytest
import torch
from small_bench import CPU, tiny
from torch.utils._python_dispatch import TorchDispatchMode

from drakegpt.bench import workloads
from drakegpt.bench.workloads import BUILDERS, VOCAB_SIZE, pytorch_kernels, random_text
from drakegpt.compute import kernels
from drakegpt.config import LADDER
from drakegpt.models import reference
from drakegpt.models.registry import build_model
from drakegpt.training import step_runner


@pytest.mark.parametrize("model", LADDER)
@pytest.mark.parametrize("name", BUILDERS)
def test_everyone_can_do_their_work(name, model):
    for build in BUILDERS[name].values():
        work = build(tiny(model), CPU)
        for units in (1, 3):
            work(units)


@pytest.mark.parametrize("name", ["drakegpt", "textbook"])
def test_work_goes_on_where_a_text_ends(monkeypatch, name):
    monkeypatch.setattr("drakegpt.bench.workloads.TEXT_LENGTH", 3)
    generated = {"drakegpt": workloads, "textbook": reference}[name]
    generate, lengths = generated.generate, []

    def counted(model, prompt, length, *others):
        lengths.append(length)
        return generate(model, prompt, length, *others)

    monkeypatch.setattr(generated, "generate", counted)
    BUILDERS[name]["generation"](tiny(), CPU)(10)
    assert lengths == ([3, 3, 3, 3] if name == "drakegpt" else [3, 3, 3, 1])


def test_the_text_is_random_and_always_the_same():
    train, val = random_text()
    assert (len(train), len(val), train.dtype) == (900_000, 100_000, torch.uint8)
    assert torch.equal(train, random_text()[0])
    assert set(train[:10_000].tolist()) == set(range(VOCAB_SIZE))


class Operations(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_plain_pytorch_uses_no_kernels_of_ours_and_computes_the_same():
    """At a shape that drakegpt gives to oneDNN and to its own attention."""
    shape = {"context_length": 32, "embedding_dim": 128, "batch_size": 16, "dropout": 0.0}
    config = tiny(size="scaled", **shape)
    model = build_model(config.model_settings(VOCAB_SIZE))
    tokens = torch.randint(VOCAB_SIZE, (16, 32))
    linear = kernels.linear
    with Operations() as ours:
        expected = model(tokens)
    with pytorch_kernels(), Operations() as plain:
        logits = model(tokens)
    assert kernels.linear is linear
    assert torch.allclose(logits, expected, atol=1e-4)
    assert any("mkldnn" in name for name in ours.names)
    assert not any("mkldnn" in name for name in plain.names)
    assert any("scaled_dot_product" in name for name in plain.names)


@pytest.mark.parametrize(("name", "recorded"), [("drakegpt", 1), ("without replay", 0)])
def test_steps_are_replayed_unless_that_is_switched_off(monkeypatch, name, recorded):
    record, calls = step_runner.KernelTrace, []
    monkeypatch.setattr(step_runner, "KernelTrace", lambda step: calls.append(step) or record(step))
    BUILDERS[name]["training"](tiny(), CPU)(6)
    assert len(calls) == recorded
