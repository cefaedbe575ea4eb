"""What training needs is known before: never more than it takes, and of the right order."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from drakegpt.bench.memory import peak_memory
from drakegpt.compute import memory
from drakegpt.config import TrainConfig, resolve
from drakegpt.errors import CorpusError, NotEnoughMemoryError
from drakegpt.models.registry import build_model
from drakegpt.training.memory import check_memory, estimate_training_memory
from drakegpt.training.trainer import Trainer

CPU = torch.device("cpu")
VOCAB = 50
ENOUGH = {"iters": 2, "eval_interval": 2, "eval_iters": 1, "device": "cpu"}
WIDE = {"context_length": 32, "embedding_dim": 256, "num_heads": 4, "num_layers": 4}
TRAINED = {
    "weights": ("TransformerLM", WIDE),
    "muon": ("TransformerLM", WIDE | {"optimizer": "muon"}),
    "batch": ("BigramLM", {"batch_size": 2**15, "context_length": 16}),
    "many batches": ("BigramLM", {"grad_accumulation": 2**14, "window_order": "epoch"}),
    "scored": ("BigramLM", {"eval_iters": 2**16, "context_length": 16}),
    "deep": ("BlocksLM", {"num_layers": 50, "batch_size": 256, "context_length": 16}),
}


def train(model, settings, device):
    """A step and an evaluation; run in a process of its own."""
    config = resolve(model, "default", "", ENOUGH | settings)
    tokens = torch.arange(10_000) % VOCAB
    built = build_model(config.model_settings(VOCAB)).to(device)
    for _ in Trainer(config, built, tokens, tokens, device).reports():
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_training_takes_no_less_than_is_told(name, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    model, settings = TRAINED[name]
    config = resolve(model, "default", "", ENOUGH | settings)
    told = sum(estimate_training_memory(config, VOCAB, CPU).values())
    taken = peak_memory("the training", train, [model, settings], CPU)
    if taken is None:
        pytest.skip("no system tells how much")
    assert told <= taken
    assert taken < 20 * told + 2**28


SMALLER = {
    "embedding_dim": "--embedding-dim",
    "num_layers": "--num-layers",
    "batch_size": "--batch-size",
    "grad_accumulation": "--grad-accumulation",
    "eval_iters": "--eval-iters",
}


@pytest.mark.parametrize("name", SMALLER)
def test_the_largest_part_is_what_is_to_be_smaller(prepared, name, monkeypatch):
    monkeypatch.setattr(memory, "get_memory_limit", lambda _: 2**33)
    config = resolve("TransformerLM", "default", "small", ENOUGH | {name: 2**25})
    with pytest.raises(NotEnoughMemoryError, match="to train TransformerLM") as caught:
        check_memory(config, prepared)
    assert SMALLER[name] in caught.value.fix


def test_what_fits_is_not_refused(prepared, monkeypatch):
    config = resolve("TransformerLM", "default", "small", ENOUGH)
    told = sum(estimate_training_memory(config, prepared.tokenizer.vocab_size, CPU).values())
    monkeypatch.setattr(memory, "get_memory_limit", lambda _: told)
    check_memory(config, prepared)
    monkeypatch.setattr(memory, "get_memory_limit", lambda _: told - 1)
    with pytest.raises(NotEnoughMemoryError):
        check_memory(config, prepared)


def test_a_gpu_is_asked_where_one_is_chosen(prepared, monkeypatch):
    config: TrainConfig = resolve("TransformerLM", "default", "small", ENOUGH)
    gpu = torch.device("cuda")
    monkeypatch.setattr("drakegpt.training.memory.choose_device", lambda _: gpu)
    monkeypatch.setattr(memory, "get_memory_limit", lambda d: 2**10 if d == gpu else 2**40)
    with pytest.raises(NotEnoughMemoryError, match="The GPU has"):
        check_memory(config, prepared)


def test_a_text_that_is_too_short_is_said_to_be(prepared):
    config = resolve("BigramLM", "default", "small", ENOUGH)
    with pytest.raises(CorpusError, match="too short"):
        check_memory(replace(config, context_length=10**7), prepared)
