"""However steps are carried out, the numbers are the same: as the textbook's, within rounding."""

import gc
import logging
import weakref
from functools import partial

import pytest
import torch
from learning import CPU, losses, new_trainer
from torch import nn
from torch.nn import functional as F

from drakegpt.compute import kernels
from drakegpt.config import LADDER, MODEL_NAMES, resolve
from drakegpt.data.windows import TrainingWindows
from drakegpt.models import reference as textbook
from drakegpt.models.registry import build_model
from drakegpt.runs.upstream import convert_state_dict
from drakegpt.training import step_runner
from drakegpt.training.reports import Step
from drakegpt.training.trainer import Trainer

ITERATIONS = 50

trainer = partial(new_trainer, iters=ITERATIONS, eval_iters=2)


@pytest.mark.parametrize("model", LADDER)
def test_losses_are_the_textbooks(prepared, model):
    """Fifty steps from the same weights on the same windows agree within 1e-4, in float32."""
    training = trainer(prepared, model, dropout=0.0, schedule="constant", max_lr=1e-3)
    assert training.plan.mode == "replay"
    config = training.config
    torch.manual_seed(5)
    reference = textbook.ReferenceLM(training.model.config)
    state = convert_state_dict(reference.state_dict(), training.model.config)
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
    for way in ("replay", "eager"):
        training = trainer(prepared, model, **recipe)
        training._runner.mode = way
        results.append((losses(training), training.optimizer.weights.values))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_a_tape_carries_muon_too(prepared):
    results = []
    for way in ("replay", "eager"):
        training = trainer(
            prepared, "TransformerLM", optimizer="muon", schedule="hold", hold_share=0.8
        )
        training._runner.mode = way
        results.append(losses(training))
    assert results[0] == results[1]
    assert results[0][-1] < results[0][0] - 0.5


@pytest.mark.parametrize("bits", ["1.58", "1"])
def test_a_tape_carries_few_bits_and_both_stages_of_their_recipe(prepared, bits):
    """Weight decay ends at half-way: the tape is made anew there."""
    results = []
    for way in ("replay", "eager"):
        training = trainer(prepared, "TransformerLM", bits=bits)
        training._runner.mode = way
        results.append((losses(training), training.optimizer.weights.values))
        assert training.optimizer.decay_factor == 0.0
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][0][-1] < results[0][0][0] - 0.5


@pytest.mark.parametrize(
    ("settings", "processes", "way"),
    [
        ({}, 1, "replay"),
        ({}, 2, "eager"),
        ({"size": "scaled"}, 1, "eager"),
        ({"compile": True}, 1, "eager"),
        ({"grad_accumulation": 200}, 1, "eager"),
        ({"context_length": 1024, "batch_size": 4}, 1, "eager"),
    ],
)
def test_the_way_is_chosen_by_size_and_processes(settings, processes, way):
    settings = {"size": "default", **settings}
    config = resolve("TransformerLM", settings.pop("size"), "x", settings)
    plan = step_runner.plan_execution(config, CPU, processes)
    assert plan.mode == way
    assert plan.dtype == torch.float32
    assert plan.compiled == (config.compile is True)
    assert plan.description.startswith("On cpu: float32")


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
    assert training.plan.mode == "eager"
    assert losses(training) == pytest.approx(whole, abs=1e-4)


@pytest.mark.slow
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
    assert message.endswith("run without it: Compiler: cl is not found.")


def test_a_loss_stays_what_it_was_when_steps_go_on():
    """Though a tape writes each result where it wrote the last."""
    place = torch.zeros(())
    steps = step_runner.StepRunner("replay", CPU)
    done = [steps(lambda: place.add_(1)) for _ in range(4)]
    assert [loss.item() for loss in done] == [1, 2, 3, 4]


def test_a_step_that_cannot_be_captured_runs_plainly(monkeypatch, caplog):
    def refuse(_step):
        raise step_runner.CaptureRefusedError("not permitted when stream is capturing")

    monkeypatch.setattr(step_runner, "_CapturedStep", refuse)
    count = torch.zeros(())
    steps = step_runner.StepRunner("graph", CPU)
    with caplog.at_level(logging.WARNING):
        done = [steps(lambda: count.add_(1) * 2).item() for _ in range(6)]
    assert done == [2, 4, 6, 8, 10, 12]
    assert steps.mode == "eager"
    (message,) = caplog.messages
    assert message.endswith("so steps run eagerly: not permitted when stream is capturing")


def test_a_graph_is_captured_after_the_first_steps_and_launched_from_then_on(monkeypatch):
    """Only the order of things, which needs no GPU: the graph here is the step itself."""
    captured, count = [], torch.zeros(())
    monkeypatch.setattr(step_runner, "_CapturedStep", lambda step: captured.append(step) or step)
    steps = step_runner.StepRunner("graph", CPU)
    done = [(steps(lambda: count.add_(1) * 2).item(), len(captured)) for _ in range(5)]
    assert done == [(2, 0), (4, 0), (6, 0), (8, 1), (10, 1)]
    assert steps.mode == "graph"


def test_every_block_is_compiled_and_computes_the_same(prepared, monkeypatch):
    """One block is compiled for all: the compiler sees the code of a block once."""
    seen = []

    def compiler(graph, _inputs):
        seen.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    settings = {"dropout": 0.0, "iters": 6, "eval_interval": 3}
    plain = losses(trainer(prepared, "TransformerLM", **settings))
    training = trainer(prepared, "TransformerLM", compile=True, **settings)
    assert losses(training) == pytest.approx(plain, abs=1e-6)
    assert len(seen) == 1
    assert "compiled" in training.plan.description


@pytest.mark.parametrize("bits", ["full", "1.58"])
def test_a_working_copy_computes_in_bfloat16_beside_weights_in_float32(prepared, bits):
    """But weights of few bits are rounded from float32, as in the packed model."""
    training = trainer(prepared, "GPT1LM", dtype="bfloat16", bits=bits, tie_embeddings=True)
    losses(training)
    computing, learning = training._active_model, training.model
    assert {p.dtype for p in learning.parameters()} == {torch.float32}
    assert {p.dtype for p in computing.parameters()} == {
        torch.bfloat16 if bits == "full" else torch.float32
    }
    assert (computing is learning) == (bits != "full")
    training.evaluate()
    for one, other in zip(computing.parameters(), learning.parameters(), strict=True):
        assert torch.equal(one, other.to(one.dtype)), "it takes the weights over as they are now"


def test_gradients_of_parts_add_up_in_float32(prepared):
    """In bfloat16 the sum of many parts would lose the small ones."""
    whole, parts = (
        trainer(prepared, "TransformerLM", dtype="bfloat16", dropout=0.0, iters=1, **settings)
        for settings in ({"batch_size": 64}, {"batch_size": 8, "grad_accumulation": 8})
    )
    assert losses(parts) == pytest.approx(losses(whole), abs=2e-3)
    gradients = [training.optimizer.weights.gradient for training in (whole, parts)]
    assert gradients[1].dtype == torch.float32
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[0].norm()


def test_what_was_recorded_is_given_back_when_training_ends(prepared):
    """Without Python's collector: a GPU's memory would fill up before it runs."""
    training = trainer(prepared, "TransformerLM", iters=4, eval_interval=4)
    for place, _ in enumerate(training.reports()):
        assert (training._runner._recorded is not None) == (1 <= place < 5)
    assert training._runner._recorded is None
    gone = weakref.ref(training)
    gc.disable()
    try:
        del training
        assert gone() is None
    finally:
        gc.enable()


cuda_trainer = partial(new_trainer, device=torch.device("cuda"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from within torch.compile
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("TransformerLM", {}),
        ("TransformerLM", {"dtype": "float32"}),
        ("TransformerLM", {"compile": True}),
        ("TransformerLM", {"compile": True, "bits": "1.58", "embedding_dim": 96}),
        ("TransformerLM", {"size": "scaled", "batch_size": 8}),
        ("GPT1LM", {"tie_embeddings": True}),
        ("BlocksLM", {}),
        ("BigramLM", {}),
    ],
)
def test_a_cuda_graph_trains(prepared, model, settings):
    training = cuda_trainer(prepared, model, iters=60, **settings)
    assert training.plan.mode == "graph"
    result = losses(training)
    assert training._runner.mode == "graph", "captured, not fallen back"
    assert result[-1] < result[0] - 0.3
    if settings.get("compile"):
        assert training._forward._works, "compiled, not fallen back"


@pytest.mark.gpu
@pytest.mark.parametrize("bits", ["full", "1.58"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_cuda_graph_gives_the_losses_of_plain_steps(prepared, bits, optimizer):
    results = []
    settings = {"iters": 40, "dtype": "float32", "dropout": 0.0, "compile": False}
    settings |= {"optimizer": optimizer, "bits": bits}
    for way in ("graph", "eager"):
        training = cuda_trainer(prepared, **settings)
        training._runner.mode = way
        results.append(losses(training))
    assert results[0] == pytest.approx(results[1], abs=2e-3 if bits == "full" else 2e-2)


@pytest.mark.gpu
def test_norms_and_biases_learn_by_kernels_of_their_own(prepared, monkeypatch):
    settings = {"iters": 20, "dtype": "float32", "dropout": 0.0, "bits": "full", "compile": False}
    monkeypatch.setattr(kernels, "TRITON_FROM", 0)
    quick = losses(cuda_trainer(prepared, **settings | {"dtype": "bfloat16"}))
    exact = losses(cuda_trainer(prepared, **settings))
    assert quick == pytest.approx(exact, abs=0.05)
    training = cuda_trainer(prepared, iters=2)
    norms = [m for m in training._active_model.modules() if isinstance(m, nn.LayerNorm)]
    assert {type(norm) for norm in norms} == {kernels.LayerNorm}
    assert not any(isinstance(m, kernels.LayerNorm) for m in training.model.modules())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_gives_the_losses_of_a_cpu(prepared, dtype):
    settings = {"iters": 40, "dropout": 0.0, "compile": False, "dtype": dtype}
    there = losses(cuda_trainer(prepared, **settings))
    here = losses(trainer(prepared, "TransformerLM", **settings | {"dtype": "float32"}))
    assert there == pytest.approx(here, abs=1e-3 if dtype == "float32" else 0.05)


@pytest.mark.gpu
def test_a_capture_that_fails_leaves_nothing_behind(prepared, caplog):
    """A number is read within the capture, with dropout; the run goes on, and the next captures."""
    training = cuda_trainer(prepared, iters=12, dropout=0.1)
    update = training._update

    def reading():
        loss = update()
        if torch.cuda.is_current_stream_capturing():
            loss.item()
        return loss

    training._update = reading
    stream = torch.cuda.current_stream()
    with caplog.at_level(logging.WARNING):
        assert len(losses(training)) == 12
    assert training._runner.mode == "eager"
    assert torch.cuda.current_stream() == stream
    (message,) = caplog.messages
    assert "cannot be captured" in message
    following = cuda_trainer(prepared, iters=12, dropout=0.1)
    assert len(losses(following)) == 12
    assert following._runner.mode == "graph"


@pytest.mark.gpu
def test_runs_in_one_process_leave_no_memory_behind(prepared):
    held = []
    gc.disable()
    try:
        for _ in range(4):
            training = cuda_trainer(prepared, iters=8, embedding_dim=256, context_length=128)
            losses(training)
            del training
            torch.cuda.empty_cache()
            held.append(torch.cuda.memory_reserved())
    finally:
        gc.enable()
    assert held[-1] <= held[1]


@pytest.mark.gpu
def test_evaluating_takes_no_more_memory_than_training(prepared):
    settings = {"size": "scaled", "iters": 6, "eval_interval": 6, "compile": False}
    config = resolve("TransformerLM", settings.pop("size"), prepared.name, settings)
    model = build_model(config.model_settings(prepared.tokenizer.vocab_size)).cuda()
    text = prepared.split("train")
    training = Trainer(config, model, text, text, torch.device("cuda"))
    peaks = []
    for _ in training.reports():
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[-1] == peaks[-2], "the evaluation is the last report"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from within torch.compile
@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_taken_up_again_on_a_gpu_goes_on_as_it_would_have(prepared, compiled):
    """The random state to the bit; losses within what a GPU's order of adding leaves open."""
    settings = {"iters": 30, "eval_interval": 10, "dropout": 0.2, "compile": compiled}
    whole = cuda_trainer(prepared, **settings)
    ends = losses(whole), torch.cuda.get_rng_state()
    begun = cuda_trainer(prepared, **settings)
    for report in begun.reports():
        if isinstance(report, Step) and report.iteration == 15:
            break
    state, weights = begun.state_dict(), begun.model.state_dict()
    resumed = cuda_trainer(prepared, **settings)
    resumed.model.load_state_dict(weights)
    resumed.load_state_dict(state)
    assert losses(resumed) == pytest.approx(ends[0][15:], abs=0.02)
    assert torch.equal(torch.cuda.get_rng_state(), ends[1])
