"""The arithmetic of the benchmark, by hand; what is fast is left to whoever runs it."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from drakegpt.bench import memory, timing, workloads
from drakegpt.bench.hardware import describe_machine, matmul_rate
from drakegpt.bench.workloads import (
    BUILDERS,
    VOCAB_SIZE,
    bench_config,
    plain_arithmetic,
    random_text,
)
from drakegpt.compute import kernels
from drakegpt.config import LADDER
from drakegpt.errors import RunError
from drakegpt.models import reference
from drakegpt.models.registry import build_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tiny(model="TransformerLM", size="default", **settings):
    shape = {"context_length": 4, "embedding_dim": 8, "num_heads": 2, "num_layers": 1}
    rest = {"batch_size": 2, "eval_iters": 2} | settings
    return dataclasses.replace(bench_config(model, size), **shape | rest)


@pytest.fixture
def _brief(monkeypatch):
    monkeypatch.setattr(timing, "REPETITION", {"default": 0.002, "scaled": 0.002})


# --- Ratios -------------------------------------------------------------------------------------

TRAINING = timing.Times(
    {
        "drakegpt": [1.0, 2.0, 4.0],
        "textbook at 1 thread": [4.0, 4.0, 4.0],
        "textbook at 2 threads": [3.0, 5.0, 8.0],
        "plain": [2.0, 2.0, 2.0],
    }
)


def test_the_better_number_of_threads_counts():
    assert TRAINING.reference == "textbook at 1 thread"
    slow = timing.Times(TRAINING.seconds | {"textbook at 1 thread": [9.0, 9.0, 9.0]})
    assert slow.reference == "textbook at 2 threads"


def test_ratios_are_medians_of_each_rounds_ratio():
    """4/1, 4/2 and 4/4; and 3/1, 5/2 and 8/4, where the ratio of the medians happens to agree."""
    assert TRAINING.median("drakegpt") == 2.0
    assert TRAINING.ratio("textbook at 1 thread") == 2.0
    assert TRAINING.ratio("textbook at 2 threads") == 2.5
    uneven = timing.Times({"drakegpt": [1.0, 10.0, 2.0], "textbook": [5.0, 10.0, 6.0]})
    assert uneven.ratio("textbook") == 3.0
    assert uneven.median("textbook") / uneven.median("drakegpt") == 3.0
    assert timing.Times({"drakegpt": [1, 2, 9], "textbook": [9, 4, 1]}).ratio("textbook") == 2.0


def test_the_spread_is_that_of_each_rounds_ratio():
    assert TRAINING.spread("drakegpt", "textbook at 1 thread") == (1.0, 4.0)


def test_waiting_is_time_on_the_clock_over_time_on_the_processors():
    seconds = {"drakegpt": [1.0, 2.0], "textbook": [4.0, 4.0]}
    assert timing.Times(seconds).waited == 1.0  # not known
    assert timing.Times(seconds, {"drakegpt": [1.0, 1.0], "textbook": [8.0, 8.0]}).waited == 1.5


def test_work_that_sleeps_is_seen_to_wait_and_work_that_computes_is_not():
    """Sleeping stands for a program whose processor is another's."""

    def compute(units):
        until = time.process_time() + 0.02 * units
        while time.process_time() < until:
            pass

    def sleep(units):
        compute(units)
        time.sleep(0.04 * units)

    entries = [timing.Entry(f.__name__, "training", 1, f) for f in (compute, sleep)]
    units = {(entry.who, entry.kind): 1 for entry in entries}
    times = timing.measure_in_turns(entries, units, 3, CPU)["training"]
    assert [len(each) for each in times.processor.values()] == [3, 3]
    slept = timing.Times({"sleep": times.seconds["sleep"]}, {"sleep": times.processor["sleep"]})
    assert slept.waited > 2.5
    assert min(times.processor["compute"]) >= 0.02


def test_a_share_of_the_evaluations_is_added_round_by_round():
    evaluation = timing.Times({who: [10.0, 20.0, 30.0] for who in TRAINING.seconds})
    both = TRAINING.plus(evaluation, 0.1)
    assert both.seconds["drakegpt"] == [2.0, 4.0, 7.0]
    assert both.seconds["plain"] == [3.0, 4.0, 5.0]
    assert both.ratio("plain") == 1.0


def test_times_as_json():
    shown = TRAINING.to_json()
    assert shown["reference"] == "textbook at 1 thread"
    assert shown["times_faster"] == {"textbook": 2.0, "plain": 1.0}
    assert shown["contenders"]["drakegpt"] == {"ms": 2000, "repetitions_ms": [1000, 2000, 4000]}


# --- The limit ----------------------------------------------------------------------------------


def test_operations_are_those_counted_by_hand():
    """Each product of (m, k) and (k, n) is 2mkn, and going back takes two for each."""
    B, T, C, V = 32, 8, 32, VOCAB_SIZE
    query_key_value = 3 * 2 * B * T * C * C
    scores_and_mean = 2 * (2 * B * T * T * C)
    head = 2 * B * T * C * V
    config = bench_config("SingleHeadAttentionLM", "default")
    assert timing.count_flops(config) == 3 * (query_key_value + scores_and_mean + head)
    assert timing.count_flops(bench_config("BigramLM", "default")) == 0


def test_the_limit_is_operations_over_rate():
    times = timing.Times({"drakegpt": [0.5], "textbook at 1 thread": [1.0]})
    figures = {"config": tiny(), "threads": {"drakegpt": 1, "textbook at 1 thread": 1},
               "dtype": "float32", "training": times, "with_evaluations": times,
               "generation": times, "memory": {}}  # fmt: skip
    measured = timing.Measurement(**figures, flops=100, matmul_rate=1000.0)
    assert measured.limit == 0.1
    assert measured.times_limit == 5.0
    assert timing.Measurement(**figures, flops=0, matmul_rate=1000.0).times_limit is None


def test_the_rate_of_products_is_plausible():
    assert 1e8 < matmul_rate(CPU, torch.float32, 1) < 1e14


# --- The contenders -----------------------------------------------------------------------------


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


def test_plain_is_pytorch_alone_and_computes_the_same():
    """At a shape that drakegpt gives to oneDNN and to its own attention."""
    shape = {"context_length": 32, "embedding_dim": 128, "batch_size": 16, "dropout": 0.0}
    config = tiny(size="scaled", **shape)
    model = build_model(config.model_settings(VOCAB_SIZE))
    tokens = torch.randint(VOCAB_SIZE, (16, 32))
    linear = kernels.linear
    with Operations() as ours:
        expected = model(tokens)
    with plain_arithmetic(), Operations() as plain:
        logits = model(tokens)
    assert kernels.linear is linear
    assert torch.allclose(logits, expected, atol=1e-4)
    assert any("mkldnn" in name for name in ours.names)
    assert not any("mkldnn" in name for name in plain.names)
    assert any("scaled_dot_product" in name for name in plain.names)


# --- All of it ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("_brief")
@pytest.mark.parametrize("size", ["default", "scaled"])
def test_a_measurement_is_complete(size):
    threads, heard = torch.get_num_threads(), []
    config = tiny(size=size)
    measured = timing.measure(config, 2, CPU, progress=lambda *report: heard.append(report))
    assert torch.get_num_threads() == threads
    shown = json.loads(json.dumps(measured.to_json(), allow_nan=False))
    assert (shown["model"], shown["size"], shown["dtype"]) == ("TransformerLM", size, "float32")
    expected = {"drakegpt", *(f"textbook at {n} thread{'s' * (n > 1)}" for n in {1, threads})}
    by_kind = {"training": expected | ({"plain"} if size == "scaled" else set())}
    by_kind |= {"training_with_evaluations": by_kind["training"]}
    by_kind |= {"generation": expected | ({"exact"} if size == "scaled" else set())}
    for kind, names in by_kind.items():
        assert shown[kind]["contenders"].keys() == names
        for figures in shown[kind]["contenders"].values():
            first, second = figures["repetitions_ms"]
            assert figures["ms"] == pytest.approx((first + second) / 2)
            assert first > 0
        assert shown[kind]["reference"] in names
        assert ("plain" in shown[kind]["times_faster"]) == ("plain" in names)
    assert shown["threads"].keys() == by_kind["training"] | by_kind["generation"]
    limit = shown["limit"]
    assert limit["times_limit"] == pytest.approx(
        shown["training"]["contenders"]["drakegpt"]["ms"] / limit["ms"]
    )
    for figures in shown["generation"]["contenders"].values():
        assert figures["characters_per_second"] == pytest.approx(1000 / figures["ms"])
    assert shown["memory_bytes"] == {}
    done = [done for _, done, _ in heard]
    assert done == sorted(done)
    assert all(done < total for _, done, total in heard)
    assert any("round 2 of 2: drakegpt, generation" in what for what, _, _ in heard)


def peak(config):
    order = ["textbook", "training", dataclasses.asdict(config)]
    return memory.peak_memory("The training of textbook", timing.work_once, order, CPU)


def test_memory_is_what_a_process_of_its_own_needs():
    if sys.platform not in ("linux", "darwin"):
        assert peak(tiny()) is None
        return
    small = peak(tiny())
    large = peak(tiny(context_length=256, batch_size=64, num_heads=4))
    # four heads whose weights, 64 windows of 256 x 256 floats, are kept for the way back
    assert large - small > 4 * 64 * 256 * 256 * 4


def test_a_failure_in_the_other_process_is_explained(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nMemoryError: too much\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    words = r"The training of textbook ended with code 1: MemoryError: too much\."
    with pytest.raises(RunError, match=words):
        peak(tiny())


def test_the_machine_is_named():
    machine = describe_machine(CPU)
    assert machine["torch"] == torch.__version__
    assert machine["processor"]
    assert machine["cores"] >= 1
