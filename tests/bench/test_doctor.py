"""A broken device, simulated, is caught by the right check, and a healthy one passes all."""

import errno
import math
import os
import sys
from pathlib import Path

import pytest
import torch
from small_bench import CPU
from torch.nn import functional as F

from drakegpt import files
from drakegpt.bench.doctor import (
    arithmetic,
    best_recipe,
    dropout,
    examination,
    facts,
    speed,
    steps,
    surroundings,
    texts,
)
from drakegpt.bench.doctor.checks import Finding, Planned, find_worst, is_worse, run_check
from drakegpt.bench.doctor.textbook import Textbook, has_textbook
from drakegpt.compute import kernels
from drakegpt.compute.device import choose_device
from drakegpt.compute.replay import KernelTrace
from drakegpt.config import LADDER, MODEL_NAMES
from drakegpt.errors import DivergedError, UsageError
from drakegpt.models import registry
from drakegpt.training.step_runner import StepRunner

linear, attention = kernels.linear, kernels.causal_attention


def run(work, *given):
    """A check with its exceptions caught, as `doctor` runs it."""
    planned = Planned("name", "subject", "cpu", lambda: work(*given, CPU), arithmetic.advise(CPU))
    return run_check(planned).finding


def break_linear(monkeypatch, spoil, *, inputs=None, outputs=None, dtype=None):
    """Spoil products of this size or number format, in models and outside of them."""

    def broken(x, weight, bias):
        result = linear(x, weight, bias)
        of_size = weight.shape == (outputs or weight.shape[0], inputs or weight.shape[1])
        return spoil(result) if of_size and x.dtype == (dtype or x.dtype) else result

    monkeypatch.setattr(kernels, "linear", broken)


# --- A healthy machine --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "check",
    [
        arithmetic.check_products,
        arithmetic.check_bfloat16_products,
        arithmetic.check_norm,
        arithmetic.check_attention,
        dropout.check_dropout,
        best_recipe.check_muon,
        best_recipe.check_rotary,
    ],
)
def test_right_arithmetic_passes(check):
    finding = run(check)
    assert finding == Finding(finding.figure, finding.measured)
    assert all(value >= 0 for value in finding.measured.values())


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_right_steps_and_texts_pass(model):
    checks = (steps.check_step, steps.check_bfloat16, texts.check_text, steps.check_resuming)
    for check in checks:
        finding = run(check, model)
        assert finding == Finding(finding.figure, finding.measured)


def test_errors_of_a_right_device_are_far_below_the_bounds():
    """So that another right device passes too: 20 times, or what its few bits leave."""
    measured = run(steps.check_step, "TransformerLM").measured
    for name in ("loss", "gradient", "update"):
        assert 0 < 20 * measured[name] < measured[f"{name}_bound"]
    assert 0 < 2 * run(arithmetic.check_bfloat16_products).measured["error"] < 2**-8
    in_bfloat16 = run(steps.check_bfloat16, "TransformerLM").measured
    assert 1e-3 < in_bfloat16["gradient"] < 0.02  # it was bfloat16


def test_random_generators_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    for check in (steps.check_step, texts.check_text, steps.check_resuming):
        run(check, "TransformerLM")
    run(dropout.check_dropout)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.slow
def test_a_whole_examination_passes(home):
    home.mkdir()
    found = examination.examine("cpu")
    assert not [check for check in found.checks if check.result == "failed"]
    own = [check for check in found.checks if check.name.startswith("cpu.")]
    assert len(own) == 8 + 4 * len(MODEL_NAMES)
    assert {check.result for check in own if check.name != "cpu.speed"} == {"ok"}
    assert not list(home.iterdir())


@pytest.mark.gpu
def test_a_healthy_gpu_passes():
    found = examination.examine("cuda")
    assert not [check for check in found.checks if check.result == "failed"]
    assert any(check.name == "cuda.GPT1LM.step" for check in found.checks)


# --- Wrong products -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "outputs", "shown"),
    [(32, 96, "256 x 32 by 32 x 96"), (128, 384, "512 x 128 by 128 x 384"), (384, 1536, "1536")],
)
def test_a_product_that_is_off_by_one_percent_at_one_size_is_named(
    monkeypatch, inputs, outputs, shown
):
    break_linear(monkeypatch, lambda y: y * 1.01, inputs=inputs, outputs=outputs)
    finding = run(arithmetic.check_products)
    assert finding.result == "failed"
    assert shown in finding.problem
    assert 0.005 < finding.measured["error"] < 1
    assert "--force-reinstall torch" in finding.fix


def test_one_wrong_element_is_enough(monkeypatch):
    def spoil(y):
        changed = y.clone()
        changed[-1, -1] += 0.01 * y.std()
        return changed

    break_linear(monkeypatch, spoil, inputs=96, outputs=288)
    assert "512 x 96 by 96 x 288" in run(arithmetic.check_products).problem


@pytest.mark.parametrize(
    ("model", "inputs", "outputs", "named", "tokens"),
    [
        ("TransformerLM", 32, 128, "width 32", "32 windows of 8"),
        ("TransformerLM", 128, 384, "width 128", "8 windows of 64"),
        ("GPT1LM", 128, 512, "width 128", "8 windows of 64"),
        ("SingleHeadAttentionLM", 32, 65, "width 32", "32 windows of 8"),
    ],
)
def test_a_step_with_a_wrong_product_is_caught(monkeypatch, model, inputs, outputs, named, tokens):
    break_linear(monkeypatch, lambda y: y * 1.01, inputs=inputs, outputs=outputs)
    finding = run(steps.check_step, model)
    assert finding.result == "failed"
    assert named in finding.problem
    assert f"in training step 1, in float32, with {tokens} tokens" in finding.problem
    assert "the gradient (of " in finding.problem


def test_a_wrong_gradient_is_caught_where_the_result_is_right(monkeypatch):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * 1.001

    break_linear(monkeypatch, Wrong.apply, inputs=128, outputs=512)
    finding = run(steps.check_step, "ResidualBlocksLM")
    assert "the gradient (of blocks.0.feed_forward." in finding.problem
    assert "the loss" not in finding.problem
    assert "the gradient of the inputs of a product" in run(arithmetic.check_products).problem


def test_wrong_products_in_bfloat16_are_caught(monkeypatch):
    break_linear(monkeypatch, lambda y: y * 1.01, dtype=torch.bfloat16)
    finding = run(arithmetic.check_bfloat16_products)
    assert finding.result == "failed"
    assert finding.problem.startswith("a product in bfloat16, of ")
    assert "--dtype float32" in finding.fix
    assert run(arithmetic.check_products).result == "ok"


def test_a_step_in_bfloat16_with_the_sums_in_bfloat16_is_caught(monkeypatch):
    """As by a library that adds the terms of a product in bfloat16."""

    def add_in_bfloat16(x, weight, bias):
        if x.dtype != torch.bfloat16:
            return linear(x, weight, bias)
        total = torch.zeros(*x.shape[:-1], len(weight), dtype=x.dtype)
        for part, of_weight in zip(x.split(1, -1), weight.split(1, -1), strict=True):
            total = total + F.linear(part, of_weight)
        return total if bias is None else total + bias

    monkeypatch.setattr(kernels, "linear", add_in_bfloat16)
    monkeypatch.setattr(arithmetic, "BFLOAT16_SHAPES", ((31, 33, 129), (32, 512, 96)))
    assert run(arithmetic.check_bfloat16_products).result == "failed"


def test_wrong_norms_and_attention_are_caught(monkeypatch):
    monkeypatch.setattr(kernels.LayerNorm, "forward", lambda self, x: F.layer_norm(
        x, self.normalized_shape, self.weight, self.bias, eps=1e-3))  # fmt: skip
    assert "layer norm of 8,192 rows of 128" in run(arithmetic.check_norm).problem

    def looks_ahead(qkv, heads, p=0.0):
        q, k, v = (each.unflatten(2, (heads, -1)).transpose(1, 2) for each in qkv.chunk(3, 2))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    monkeypatch.setattr(kernels, "causal_attention", looks_ahead)
    assert "of attention of " in run(arithmetic.check_attention).problem
    assert run(steps.check_step, "BlocksLM").result == "failed"


def test_attention_in_blocks_is_checked_as_well(monkeypatch):
    right = kernels._compute_scores
    monkeypatch.setattr(kernels, "_compute_scores", lambda *given: right(*given) * 1.01)
    assert "8 windows of 256 tokens" in run(arithmetic.check_attention).problem
    assert run(steps.check_step, "TransformerLM").result == "ok"  # its windows are short


def test_wrong_updates_by_muon_are_caught(monkeypatch):
    right = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: right(a, b) * (
        1.01 if a.shape[1:] == (96, 384) else 1.0))  # fmt: skip
    finding = run(best_recipe.check_muon)
    assert "Muon's update of 3 matrices of " in finding.problem
    assert "--optimizer adamw" in finding.fix


def test_rotary_positions_that_are_off_by_one_are_caught(monkeypatch):
    from drakegpt.compute import rotary

    right = rotary.make_tables
    monkeypatch.setattr(rotary, "make_tables", lambda T, *rest: [
        table[1:] for table in right(T + 1, *rest)])  # fmt: skip
    assert run(best_recipe.check_rotary).problem.startswith("rotary positions are off by ")


# --- Numbers that are none, recorded steps, updates ---------------------------------------------


def test_a_nan_is_caught_as_one(monkeypatch):
    def spoil(y):
        return torch.where(torch.arange(y.shape[-1]) == 3, torch.nan, y)

    break_linear(monkeypatch, spoil, inputs=32, outputs=65)
    finding = run(steps.check_step, "TransformerLM")
    assert finding.result == "failed"
    assert finding.problem.startswith("a loss is not a finite number")
    assert "learning rate" not in finding.problem + finding.fix
    products = run(arithmetic.check_products)
    assert "off by nan" in products.problem
    text = run(texts.check_text, "TransformerLM")
    assert "are not finite" in text.problem
    assert "learning rate" not in text.fix
    assert run(steps.check_resuming, "TransformerLM").result == "failed"


def test_a_recorded_step_that_is_not_replayed_is_caught(monkeypatch):
    monkeypatch.setattr(KernelTrace, "__call__", lambda self: self.result)
    problem = run(steps.check_step, "TransformerLM").problem
    assert "in training step 3" in problem
    assert "the update is off by 1.0e+00" in problem


def test_a_wrong_update_is_caught(monkeypatch):
    from drakegpt.training import optimizers

    right = optimizers.adamw
    monkeypatch.setattr(
        optimizers, "adamw", lambda *a, **k: right(*a, **k | {"beta2": k["beta2"] - 0.01})
    )
    problem = run(steps.check_step, "BigramLM").problem
    assert "in training step 2" in problem  # the first update does not depend on it
    assert "the update is off by " in problem
    assert "the gradient" not in problem


def test_a_state_that_is_not_restored_is_caught(monkeypatch):
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    finding = run(steps.check_resuming, "TransformerLM")
    assert finding.result == "failed"
    assert "saved and resumed has other weights" in finding.problem


# --- Dropout ------------------------------------------------------------------------------------

draw = kernels._draw_dropout_factors


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda shape, p: draw(shape, p * 1.02) * (1 - p * 1.02) / (1 - p), "drops 50.9"),
        (lambda shape, p: draw(shape, p) * 1.01, "multiplies by 2.0200, not by 2.0000"),
        (lambda shape, p: torch.ones(shape), "multiplies by 1.0000, not by 2.0000"),
        (
            lambda shape, p: (
                draw(shape[:-1], p)[..., None].expand(shape) + 0.0
                if len(shape) > 1
                else draw(shape, p)
            ),
            "pairs of neighbours, both numbers",
        ),
    ],
)
def test_wrong_dropout_is_caught(monkeypatch, wrong, named):
    monkeypatch.setattr(kernels, "_draw_dropout_factors", wrong)
    finding = run(dropout.check_dropout)
    assert finding.result == "failed"
    assert named in finding.problem


def test_a_wrong_share_within_attention_is_caught(monkeypatch):
    monkeypatch.setattr(kernels, "causal_attention", lambda qkv, heads, p=0.0: attention(
        qkv, heads, p * 1.05))  # fmt: skip
    assert "of the weights of attention" in run(dropout.check_dropout).problem


# --- Texts --------------------------------------------------------------------------------------


def test_a_text_that_changes_is_caught(monkeypatch):
    right, called = texts.generate, []

    def changing(model, prompt, length, sampling, seed, window):
        called.append(seed)
        tokens = list(right(model, prompt, length, sampling, seed, window))
        return [*tokens[:-1], (tokens[-1] + len(called)) % 65] if sampling.temperature else tokens

    monkeypatch.setattr(texts, "generate", changing)
    assert run(texts.check_text, "TransformerLM").problem == "one seed gives two different texts."


def test_a_text_that_is_not_the_likeliest_is_caught(monkeypatch):
    right = texts.generate

    def unlikely(model, prompt, length, sampling, seed, window):
        tokens = list(right(model, prompt, length, sampling, seed, window))
        return [*tokens[:9], (tokens[9] + 1) % 65, *tokens[10:]]

    monkeypatch.setattr(texts, "generate", unlikely)
    assert run(texts.check_text, "BlocksLM").problem.startswith("token 10 of a text is not")


# --- Speed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "result"), [(1e7, "ok"), (1e11, "warning")])
def test_a_step_far_slower_than_its_arithmetic_is_a_warning(monkeypatch, rate, result):
    """One that sleeps; at a rate of 1e7 its 0.3 GFLOP take half a minute, whatever the machine."""
    import time

    step = StepRunner.__call__

    def sleep(self, work):
        time.sleep(0.1)
        return step(self, work)

    monkeypatch.setattr(StepRunner, "__call__", sleep)
    monkeypatch.setitem(speed.SHAPES["cpu"], "batch_size", 1)
    monkeypatch.setattr(speed, "measure_matmul_rate", lambda *_: rate)
    finding = run(speed.check_rate)
    assert finding.result == result
    if result == "warning":
        assert "times as long as its arithmetic" in finding.problem
        assert "drakegpt bench TransformerLM" in finding.fix


def test_operations_are_those_of_the_textbook_but_for_attention():
    from drakegpt.bench.timing import count_flops

    config = steps.choose_config("TransformerLM", **speed.SHAPES["cpu"])
    assert 0.7 < speed.count_operations(config) / count_flops(config) < 1


@pytest.mark.parametrize(("there", "result"), [(0.01, "ok"), (0.04, "warning")])
def test_a_gpu_that_is_slower_than_the_cpu_is_a_warning(monkeypatch, there, result):
    monkeypatch.setattr(
        speed, "_time_step", lambda _, device: 0.02 if device.type == "cpu" else there
    )
    finding = speed.check_faster_than_cpu(torch.device("mps"))
    assert finding.result == result
    assert ("Train with --device cpu" in finding.fix) == (result == "warning")


# --- Devices and PyTorch ------------------------------------------------------------------------


@pytest.fixture
def one_model(monkeypatch):
    """A short examination: of one model only, and without speed."""
    monkeypatch.setattr(registry, "MODELS", {"BigramLM": registry.MODELS["BigramLM"]})
    monkeypatch.setattr(speed, "check_rate", lambda device: Finding("quick"))


def by_name(found):
    return {check.name: check.finding for check in found.checks}


def test_a_device_that_is_not_there_fails_and_the_cpu_is_examined(one_model):
    found = examination.examine("cuda")
    checks = by_name(found)
    assert checks["device"].result == found.result == "failed"
    assert "There is no cuda device" in checks["device"].problem
    assert "--device auto" in checks["device"].fix
    assert checks["cpu.BigramLM.step"].result == "ok"
    assert "no cuda device" in next(f.text for f in found.facts if f.name == "device")


def test_a_device_that_raises_is_a_failed_check(monkeypatch, one_model):
    from drakegpt.compute import device

    monkeypatch.setattr(
        device, "choose_device", lambda name: choose_device("cpu") if name == "cpu"
        else torch.device("meta"))  # fmt: skip
    checks = by_name(examination.examine("auto"))
    assert checks["device"].result == "failed"
    assert checks["device"].problem.startswith("it stopped with ")
    assert checks["cpu.products"].result == "ok"


def test_without_pytorch_the_rest_is_examined(monkeypatch, home):
    home.mkdir()
    monkeypatch.setitem(sys.modules, "torch", None)
    found = examination.examine("auto")
    checks = by_name(found)
    assert list(checks) == ["data_folder", "terminal", "memory", "busy", "device", "cpu"]
    assert checks["device"].result == "failed"
    assert "--force-reinstall torch" in checks["device"].fix
    assert checks["data_folder"].result == "ok"
    assert checks["cpu"].result == "not tested"
    told = {fact.name: fact.text for fact in found.facts}
    assert told["torch"].startswith("unknown (")
    assert told["drakegpt"]


def test_checks_have_stable_names():
    planned = [*examination._plan_surroundings("cpu"), *examination._plan_devices("cpu")]
    parts = ["products", "products.bfloat16", "norm", "attention", "dropout", "muon", "rotary"]
    for model in MODEL_NAMES:
        parts += [f"{model}.{kind}" for kind in ("step", "bfloat16", "text", "resume")]
    names = ["data_folder", "terminal", "memory", "busy", "device"]
    assert [each.name for each in planned] == [*names, *(f"cpu.{p}" for p in [*parts, "speed"])]


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (RuntimeError("line one\nline two"), "it stopped with RuntimeError: line one."),
        (ValueError(), "it stopped with ValueError."),
        (MemoryError(), "there is not enough memory for this check."),
        (DivergedError("The loss became nan.", "Lower the rate."), "a loss is not a finite"),
        (UsageError("There is none.", "Take another."), "There is none."),
    ],
)
def test_a_check_that_raises_has_failed_with_its_message(error, problem):
    check = run_check(Planned("n", "s", "cpu", lambda: raise_(error), "Do this."))
    assert check.result == "failed"
    assert check.finding.problem.startswith(problem)
    assert check.finding.fix
    assert "\n" not in check.finding.problem


def test_the_worst_result_counts():
    assert find_worst(["ok", "warning", "not tested"]) == "warning"
    assert find_worst(["failed", "ok"]) == "failed"
    assert find_worst([]) == "ok"


def test_nothing_is_worse_than_nan():
    assert is_worse(math.nan, 1e9)
    assert not is_worse(math.inf, math.nan)
    assert not is_worse(math.nan, math.nan)
    assert [is_worse(value, 1.0) for value in (0.5, 1.0, 2.0)] == [False, False, True]


def test_all_models_have_textbook_code_but_ones_of_a_user():
    assert all(map(has_textbook, [*LADDER, "GPT1LM"]))
    assert not has_textbook("SeventhLM")
    assert run(steps.check_step, "SeventhLM").result == "not tested"


def test_the_textbook_refuses_weights_that_it_does_not_know():
    config = steps.choose_config("TransformerLM").model_settings(steps.VOCAB_SIZE)
    with pytest.raises(ValueError, match="other weights"):
        Textbook(config).load({})


# --- What surrounds the program -----------------------------------------------------------------


def test_a_folder_that_can_be_written_is_left_as_it_was(home):
    (home / "runs").mkdir(parents=True)
    (home / "mine").write_text("kept")
    finding = surroundings.check_data_folder()
    assert finding.result == "ok"
    assert "in 2 of its folders" in finding.figure
    assert sorted(path.name for path in home.rglob("*")) == ["mine", "runs"]


def test_a_missing_data_folder_is_not_made(home):
    finding = surroundings.check_data_folder()
    assert finding.result == "not tested"
    assert "does not exist yet" in finding.problem
    assert "first command that stores something makes it" in finding.problem
    assert not home.exists()


def test_a_data_folder_that_cannot_be_made_fails(home, monkeypatch):
    home.write_text("a file")
    assert "is not a folder" in surroundings.check_data_folder().problem
    monkeypatch.setenv("DRAKEGPT_HOME", str(home / "below"))
    finding = surroundings.check_data_folder()
    assert finding.result == "failed"
    assert "cannot be made" in finding.problem
    assert "DRAKEGPT_HOME" in finding.fix


@pytest.mark.parametrize(
    ("number", "problem", "fix"),
    [
        (errno.EROFS, "nothing can be written in ~/drakegpt/data: ", "Get write access there"),
        (errno.ENOSPC, "the disk of ~/drakegpt/data is full", "Free some space"),
    ],
)
def test_a_folder_that_cannot_be_written_fails(home, monkeypatch, number, problem, fix):
    """Of a root, who may write anywhere, too: a part of the disk is read-only, or full."""
    (home / "data").mkdir(parents=True)
    sync = files._sync_file

    def refuse(file):
        if Path(file.name).parent.name == "data":
            raise OSError(number, os.strerror(number))
        sync(file)

    monkeypatch.setattr(files, "_sync_file", refuse)
    finding = surroundings.check_data_folder()
    assert finding.result == "failed"
    assert finding.problem.startswith(problem)
    assert finding.fix.startswith(fix)
    assert [path.name for path in home.rglob("*")] == ["data"]


def test_a_disk_that_returns_something_else_fails(home, monkeypatch):
    home.mkdir()
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"else")
    assert "what is read is not what was written" in surroundings.check_data_folder().problem
    assert not list(home.iterdir())


def test_a_nearly_full_disk_is_a_warning(home, monkeypatch):
    home.mkdir()
    monkeypatch.setattr(surroundings, "LEAST_DISK", 2**70)
    finding = surroundings.check_data_folder()
    assert finding.result == "warning"
    assert "MiB left" in finding.problem


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "no-such-code"])
def test_an_encoding_without_the_printed_characters_is_a_warning(monkeypatch, encoding):
    monkeypatch.setattr(surroundings.locale, "getencoding", lambda: encoding)
    finding = surroundings.check_terminal()
    assert finding.result == "warning"
    assert encoding in finding.problem
    monkeypatch.setattr(surroundings.locale, "getencoding", lambda: "UTF-8")
    assert surroundings.check_terminal().result == "ok"


def test_every_character_of_a_table_is_among_those_that_are_tried():
    from rich.box import HEAVY_HEAD

    assert set("".join(str(HEAVY_HEAD).split())) <= set(surroundings.PRINTED)


def test_a_busy_machine_and_little_memory_are_warnings(monkeypatch):
    monkeypatch.setattr(surroundings, "_measure_waiting", lambda: 1.0)
    for load, result in ((0.0, "ok"), (1e6, "warning")):
        monkeypatch.setattr(surroundings, "describe_load", lambda load=load: {"of_a_minute": load})
        assert surroundings.check_busy().result == result
    monkeypatch.setattr(surroundings, "describe_load", lambda: None)  # Windows
    assert surroundings.check_busy().result == "ok"
    monkeypatch.setattr(surroundings, "_measure_waiting", lambda: 3.0)
    assert "took 3.0 times its own time" in surroundings.check_busy().problem
    assert surroundings.check_memory(2**40).result == "ok"
    assert "only 100 MiB" in surroundings.check_memory(100 * 2**20).problem
    assert surroundings.check_memory(None).result == "not tested"


# --- Facts --------------------------------------------------------------------------------------


def test_a_fact_that_cannot_be_found_says_why(monkeypatch):
    monkeypatch.setattr(facts.platform, "platform", lambda: raise_(OSError("no uname")))
    told = {fact.name: fact for fact in facts.collect_facts("auto")}
    assert told["system"].text == "unknown (OSError: no uname)"
    assert told["system"].value is None
    assert told["torch"].value.startswith(torch.__version__)


def test_the_folder_of_a_user_is_hidden(home):
    assert facts.hide_user(home / "runs") == str(Path("~/drakegpt/runs"))
    assert facts.hide_user(Path("/elsewhere")) == str(Path("/elsewhere"))


def test_a_compiler_is_looked_for_as_pytorch_does(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert facts.find_compiler() == "none (no-such-compiler), so --compile changes nothing"
    monkeypatch.setenv("CXX", sys.executable)
    assert facts.find_compiler() == facts.hide_user(Path(sys.executable))
