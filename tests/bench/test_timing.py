"""The arithmetic of the benchmark, by hand."""

import json
import time

import pytest
import torch
from small_bench import CPU, tiny

from drakegpt.bench import timing
from drakegpt.bench.workloads import VOCAB_SIZE, bench_config


@pytest.fixture
def _brief(monkeypatch):
    monkeypatch.setattr(timing, "REPETITION", {"default": 0.002, "scaled": 0.002})


# --- Ratios -------------------------------------------------------------------------------------

TRAINING = timing.Times(
    {
        "drakegpt": [1.0, 2.0, 4.0],
        "textbook at 1 thread": [4.0, 4.0, 4.0],
        "textbook at 2 threads": [3.0, 5.0, 8.0],
        "plain PyTorch": [2.0, 2.0, 2.0],
        "without replay": [1.5, 3.0, 6.0],
    }
)


def test_the_better_number_of_threads_counts():
    assert TRAINING.textbook == "textbook at 1 thread"
    slow = timing.Times(TRAINING.seconds | {"textbook at 1 thread": [9.0, 9.0, 9.0]})
    assert slow.textbook == "textbook at 2 threads"


def test_ratios_are_medians_of_each_rounds_ratio():
    """4/1, 4/2 and 4/4; and 3/1, 5/2 and 8/4, where the ratio of the medians happens to agree."""
    assert TRAINING.median("drakegpt") == 2.0
    assert TRAINING.speedup("drakegpt", over="textbook at 1 thread") == 2.0
    assert TRAINING.speedup("drakegpt", over="textbook at 2 threads") == 2.5
    uneven = timing.Times({"drakegpt": [1.0, 10.0, 2.0], "textbook": [5.0, 10.0, 6.0]})
    assert uneven.speedup("drakegpt", over="textbook") == 3.0
    assert uneven.median("textbook") / uneven.median("drakegpt") == 3.0
    skewed = timing.Times({"drakegpt": [1, 2, 9], "textbook": [9, 4, 1]})
    assert skewed.speedup("drakegpt", over="textbook") == 2.0


def test_the_spread_is_that_of_each_rounds_ratio():
    assert TRAINING.speedup_range("drakegpt", over="textbook at 1 thread") == (1.0, 4.0)


def test_waiting_is_time_on_the_clock_over_time_on_the_processors():
    seconds = {"drakegpt": [1.0, 2.0], "textbook": [4.0, 4.0]}
    assert timing.Times(seconds).wait_ratio == 1.0  # not known
    processor = {"drakegpt": [1.0, 1.0], "textbook": [8.0, 8.0]}
    assert timing.Times(seconds, processor).wait_ratio == 1.5


def test_work_that_sleeps_is_seen_to_wait_and_work_that_computes_is_not():
    """Sleeping stands for a program whose processor is another's."""

    def compute(units):
        until = time.process_time() + 0.02 * units
        while time.process_time() < until:
            pass

    def sleep(units):
        compute(units)
        time.sleep(0.04 * units)

    workloads = [timing.Workload(f.__name__, "training", 1, f) for f in (compute, sleep)]
    units = {(each.name, each.kind): 1 for each in workloads}
    times = timing.measure_in_turns(workloads, units, 3, CPU)["training"]
    assert [len(each) for each in times.processor.values()] == [3, 3]
    slept = timing.Times({"sleep": times.seconds["sleep"]}, {"sleep": times.processor["sleep"]})
    assert slept.wait_ratio > 2.5
    assert min(times.processor["compute"]) >= 0.02


def test_a_share_of_the_evaluations_is_added_round_by_round():
    names = TRAINING.seconds.keys() - {"without replay"}  # which is not evaluated
    evaluation = timing.Times({name: [10.0, 20.0, 30.0] for name in names})
    both = TRAINING.plus(evaluation, 0.1)
    assert both.seconds["drakegpt"] == [2.0, 4.0, 7.0]
    assert both.seconds["plain PyTorch"] == [3.0, 4.0, 5.0]
    assert both.speedup("drakegpt", over="plain PyTorch") == 1.0
    assert both.seconds.keys() == names


def test_times_as_json():
    shown = TRAINING.to_json()
    assert shown["textbook"] == "textbook at 1 thread"
    assert shown["speedup"] == {"textbook": 2.0, "without replay": 1.5, "plain PyTorch": 1.0}
    ours = shown["implementations"]["drakegpt"]
    assert ours == {"ms": 2000, "repetitions_ms": [1000, 2000, 4000]}


# --- The lower bound ----------------------------------------------------------------------------


def test_operations_are_those_counted_by_hand():
    """Each product of (m, k) and (k, n) is 2mkn, and going back takes two for each."""
    B, T, C, V = 32, 8, 32, VOCAB_SIZE
    query_key_value = 3 * 2 * B * T * C * C
    scores_and_mean = 2 * (2 * B * T * T * C)
    head = 2 * B * T * C * V
    config = bench_config("SingleHeadAttentionLM", "default")
    assert timing.count_flops(config) == 3 * (query_key_value + scores_and_mean + head)
    assert timing.count_flops(bench_config("BigramLM", "default")) == 0


def test_the_lower_bound_is_operations_over_rate():
    times = timing.Times({"drakegpt": [0.5], "textbook at 1 thread": [1.0]})
    figures = {"config": tiny(), "threads": {"drakegpt": 1, "textbook at 1 thread": 1},
               "dtype": "float32", "training": times, "with_evaluations": times,
               "generation": times, "memory": {}}  # fmt: skip
    measured = timing.Measurement(**figures, flops=100, matmul_rate=1000.0)
    assert measured.lower_bound == 0.1
    assert measured.times_lower_bound == 5.0
    assert timing.Measurement(**figures, flops=0, matmul_rate=1000.0).times_lower_bound is None


# --- All of it ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("_brief")
@pytest.mark.parametrize(("size", "length"), [("default", 4), ("scaled", 32)])
def test_a_measurement_is_complete(size, length):
    threads, heard = torch.get_num_threads(), []
    config = tiny(size=size, context_length=length)
    measured = timing.measure(config, 2, CPU, progress=lambda *report: heard.append(report))
    assert torch.get_num_threads() == threads
    shown = json.loads(json.dumps(measured.to_json(), allow_nan=False))
    assert (shown["model"], shown["size"], shown["dtype"]) == ("TransformerLM", size, "float32")
    expected = {"drakegpt", *(f"textbook at {n} thread{'s' * (n > 1)}" for n in {1, threads})}
    by_kind = {
        "training": expected | {"plain PyTorch", "without replay"},
        "training_with_evaluations": expected | {"plain PyTorch"},
        "generation": expected | ({"exact window"} if size == "scaled" else set()),
    }
    for kind, names in by_kind.items():
        assert shown[kind]["implementations"].keys() == names
        for figures in shown[kind]["implementations"].values():
            first, second = figures["repetitions_ms"]
            assert figures["ms"] == pytest.approx((first + second) / 2)
            assert first > 0
        assert shown[kind]["textbook"] in names
        for name in ("plain PyTorch", "without replay"):
            assert (name in shown[kind]["speedup"]) == (name in names)
    assert shown["threads"].keys() == by_kind["training"] | by_kind["generation"]
    bound = shown["lower_bound"]
    assert bound["times"] == pytest.approx(
        shown["training"]["implementations"]["drakegpt"]["ms"] / bound["ms"]
    )
    for figures in shown["generation"]["implementations"].values():
        assert figures["characters_per_second"] == pytest.approx(1000 / figures["ms"])
    assert shown["memory_bytes"] == {}
    done = [done for _, done, _ in heard]
    assert done == sorted(done)
    assert all(done < total for _, done, total in heard)
    assert any("round 2 of 2: drakegpt, generation" in what for what, _, _ in heard)


def test_without_replay_is_left_out_where_steps_are_not_replayed():
    large = tiny(context_length=256, batch_size=64, num_heads=1)
    names = {workload.name for workload in timing._build_workloads(large, CPU)}
    assert "without replay" not in names
    assert "plain PyTorch" in names
