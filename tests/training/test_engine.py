"""However steps are carried out, the numbers are the same: as the textbook's, within rounding."""

import logging
from functools import partial

import pytest
import torch
from learning import CPU, losses, new_trainer
from torch.nn import functional as F

from drakegpt.config import LADDER, MODEL_NAMES, resolve
from drakegpt.data.windows import TrainingWindows
from drakegpt.models import kernels, textbook
from drakegpt.models.original import convert
from drakegpt.training import engine

ITERATIONS = 50

trainer = partial(new_trainer, iters=ITERATIONS, eval_iters=2)


@pytest.mark.parametrize("model", LADDER)
def test_losses_are_the_textbooks(prepared, model):
    """Fifty steps from the same weights on the same windows agree within 1e-4, in float32."""
    training = trainer(prepared, model, dropout=0.0, schedule="constant", max_lr=1e-3)
    assert training.plan.way == "tape"
    config = training.config
    torch.manual_seed(5)
    reference = textbook.TextbookLM(training.model.config)
    state = convert(reference.state_dict(), training.model.config)
    training.model.load_state_dict(training.model.state_dict() | state)
    windows = TrainingWindows(prepared.split("train"), 8, 32, config.seed)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3, betas=(0.9, 0.95))
    expected = []
    for iteration in range(ITERATIONS):
        inputs, targets = (part.long() for part in windows.at(iteration))
        loss = F.cross_entropy(reference(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert losses(training) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("model", MODEL_NAMES)
@pytest.mark.parametrize("recipe", [{}, {"grad_clip": 0.5, "grad_accumulation": 2}])
def test_a_tape_changes_nothing(prepared, model, recipe):
    """Dropout, clipping and accumulation included, to the last bit."""
    results = []
    for way in ("tape", "plain"):
        training = trainer(prepared, model, **recipe)
        training._engine.way = way
        results.append((losses(training), training.optimizer.weights.values))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_a_tape_carries_muon_too(prepared):
    results = []
    for way in ("tape", "plain"):
        training = trainer(
            prepared, "TransformerLM", optimizer="muon", schedule="hold", hold_share=0.8
        )
        training._engine.way = way
        results.append(losses(training))
    assert results[0] == results[1]
    assert results[0][-1] < results[0][0] - 0.5


@pytest.mark.parametrize("bits", ["1.58", "1"])
def test_a_tape_carries_few_bits_and_both_stages_of_their_recipe(prepared, bits):
    """Weight decay ends at half-way: the tape is made anew there."""
    results = []
    for way in ("tape", "plain"):
        training = trainer(prepared, "TransformerLM", bits=bits)
        training._engine.way = way
        results.append((losses(training), training.optimizer.weights.values))
        assert training.optimizer.weight_decay == 0.0
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][0][-1] < results[0][0][0] - 0.5


@pytest.mark.parametrize(
    ("settings", "processes", "way"),
    [
        ({}, 1, "tape"),
        ({}, 2, "plain"),
        ({"size": "scaled"}, 1, "plain"),
        ({"compile": True}, 1, "plain"),
        ({"grad_accumulation": 200}, 1, "plain"),
        ({"context_length": 1024, "batch_size": 4}, 1, "plain"),
    ],
)
def test_the_way_is_chosen_by_size_and_processes(settings, processes, way):
    settings = {"size": "default", **settings}
    config = resolve("TransformerLM", settings.pop("size"), "x", settings)
    plan = engine.choose(config, CPU, processes)
    assert plan.way == way
    assert plan.dtype == torch.float32
    assert plan.compiled == (config.compile is True)
    assert plan.why.startswith("On cpu: float32")


def test_bfloat16_learns_as_well_and_keeps_its_weights_in_float32(prepared):
    full, half = (
        trainer(prepared, "TransformerLM", dropout=0.0, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    exact, rounded = losses(full), losses(half)
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=0.05)
    assert half.optimizer.weights.values.dtype == torch.float32


def test_attention_in_blocks_trains_like_attention_as_a_whole(prepared, monkeypatch):
    settings = {"context_length": 80, "batch_size": 4, "iters": 10, "dropout": 0.0}
    whole = losses(trainer(prepared, "TransformerLM", **settings))
    monkeypatch.setattr(kernels, "WHOLE_UP_TO", 0)
    settings["dropout"] = 1e-9  # so little that nothing is dropped, but the blocks are taken
    training = trainer(prepared, "TransformerLM", **settings)
    assert training.plan.way == "plain"
    assert losses(training) == pytest.approx(whole, abs=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from within torch.compile
def test_compiling_changes_no_loss_beyond_rounding(prepared):
    """Where there is a compiler; where there is none, training goes on without, and says so."""
    settings = {"dropout": 0.0, "iters": 10}
    plain = losses(trainer(prepared, "SingleHeadAttentionLM", **settings))
    compiled = losses(trainer(prepared, "SingleHeadAttentionLM", compile=True, **settings))
    assert compiled == pytest.approx(plain, abs=1e-4)


def test_without_a_compiler_training_goes_on_and_says_so(prepared, monkeypatch, caplog):
    def no_compiler(_graph, _inputs):
        raise RuntimeError("Compiler: cl is not found.\nand much more")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=no_compiler))
    training = trainer(prepared, "TransformerLM", compile=True, iters=5)
    with caplog.at_level(logging.WARNING):
        result = losses(training)
    assert len(result) == 5
    (message,) = caplog.messages
    assert message.endswith("goes on without: Compiler: cl is not found.")


def test_a_loss_stays_what_it_was_when_steps_go_on():
    """Though a tape writes each result where it wrote the last."""
    place = torch.zeros(())
    steps = engine.Engine("tape", CPU)
    done = [steps(lambda: place.add_(1)) for _ in range(4)]
    assert [loss.item() for loss in done] == [1, 2, 3, 4]


def test_a_step_that_cannot_be_captured_runs_plainly(monkeypatch, caplog):
    def refuse(_step):
        raise RuntimeError("not permitted when stream is capturing")

    monkeypatch.setattr(engine, "_Graph", refuse)
    count = torch.zeros(())
    steps = engine.Engine("graph", CPU)
    with caplog.at_level(logging.WARNING):
        done = [steps(lambda: count.add_(1) * 2).item() for _ in range(6)]
    assert done == [2, 4, 6, 8, 10, 12]
    assert steps.way == "plain"
    (message,) = caplog.messages
    assert message.endswith("so it runs plainly: not permitted when stream is capturing")


def test_a_graph_is_captured_after_the_first_steps_and_launched_from_then_on(monkeypatch):
    """Only the order of things, which needs no GPU: the graph here is the step itself."""
    captured, count = [], torch.zeros(())
    monkeypatch.setattr(engine, "_Graph", lambda step: captured.append(step) or step)
    steps = engine.Engine("graph", CPU)
    done = [(steps(lambda: count.add_(1) * 2).item(), len(captured)) for _ in range(5)]
    assert done == [(2, 0), (4, 0), (6, 0), (8, 1), (10, 1)]
    assert steps.way == "graph"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("settings", [{}, {"dtype": "float32"}, {"compile": True}])
def test_a_cuda_graph_trains(prepared, settings):
    training = new_trainer(prepared, device=torch.device("cuda"), iters=60, **settings)
    assert training.plan.way == "graph"
    result = losses(training)
    assert training._engine.way == "graph", "captured, not fallen back"
    assert result[-1] < result[0] - 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_cuda_graph_gives_the_losses_of_plain_steps(prepared):
    cuda, results = torch.device("cuda"), []
    settings = {"iters": 40, "dtype": "float32", "dropout": 0.0, "compile": False}
    for way in ("graph", "plain"):
        training = new_trainer(prepared, device=cuda, **settings)
        training._engine.way = way
        results.append(losses(training))
    assert results[0] == pytest.approx(results[1], abs=1e-3)
