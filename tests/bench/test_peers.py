"""Other programs beside drakegpt: what is measured where they are installed, and where not."""

import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from small_bench import CPU, tiny
from torch import nn

from drakegpt.bench import peers
from drakegpt.bench.workloads import VOCAB_SIZE, usual_loop


@pytest.fixture
def transformers(monkeypatch):
    """A stand-in for the package; holds the configuration that it was given."""
    package = ModuleType("transformers")
    package.__spec__ = ModuleSpec("transformers", None)

    class GPT2LMHeadModel(nn.Module):
        def __init__(self, config):
            super().__init__()
            package.given = config
            self.table = nn.Embedding(VOCAB_SIZE, VOCAB_SIZE)

        def forward(self, tokens, use_cache):
            assert not use_cache
            return SimpleNamespace(logits=self.table(tokens))

    package.GPT2Config, package.GPT2LMHeadModel = dict, GPT2LMHeadModel
    monkeypatch.setitem(sys.modules, "transformers", package)
    return package


def uncompilable(monkeypatch):
    def refuse(model):
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(torch, "compile", refuse)


def test_what_fails_here_is_left_out_with_its_reason(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "transformers", None)
    uncompilable(monkeypatch)
    with caplog.at_level(logging.WARNING, "drakegpt"):
        assert peers.build_peers(tiny("BlocksLM"), CPU) == {}
    (record,) = caplog.records
    assert record.getMessage() == (
        "plain PyTorch, compiled does not work here, so it is not measured: no compiler"
    )


def test_gpt2_has_the_same_shape_where_it_is_installed(monkeypatch, transformers):
    uncompilable(monkeypatch)
    config = tiny(dropout=0.3)
    work = peers.build_peers(config, CPU)[peers.GPT2]
    work(2)
    shape = {"vocab_size": VOCAB_SIZE, "n_positions": 4, "n_embd": 8, "n_layer": 1, "n_head": 2}
    assert shape.items() <= transformers.given.items()
    assert {transformers.given[f"{part}_pdrop"] for part in ("resid", "embd", "attn")} == {0.3}
    assert peers.GPT2 not in peers.build_peers(tiny("BlocksLM"), CPU)


@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", "bfloat16"), ("auto", "float32")])
def test_the_usual_loop_has_autocast_if_bfloat16_is_asked_for(dtype, expected):
    config, seen = tiny(dtype=dtype), set()
    model = nn.Sequential(nn.Embedding(VOCAB_SIZE, 8), nn.Linear(8, VOCAB_SIZE))

    def forward(tokens):
        logits = model(tokens)
        seen.add(str(logits.dtype))
        return logits

    before = model[1].weight.clone()
    usual_loop(model, forward, config, CPU)(2)
    assert seen == {f"torch.{expected}"}
    assert model[1].weight.dtype == torch.float32
    assert not torch.equal(model[1].weight, before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_compiled_model_trains_where_there_is_a_compiler(caplog):
    built = peers.build_peers(tiny("SingleHeadAttentionLM"), CPU)
    assert peers.COMPILED in built or "does not work here" in caplog.text
