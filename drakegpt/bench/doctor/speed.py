"""Checks of speed, without a judgement of the machine: only what does not fit together.

A step is set beside its own arithmetic at the rate at which this device multiplies
matrices, and a GPU beside the CPU of the same machine. How fast a machine should be is
not asked here; `drakegpt bench` measures it.
"""

from collections.abc import Iterator
from itertools import islice

import torch

from drakegpt.bench.doctor.arithmetic import CPU, keep_random_state
from drakegpt.bench.doctor.checks import Finding
from drakegpt.bench.doctor.steps import build_trainer, choose_config
from drakegpt.bench.hardware import measure_matmul_rate
from drakegpt.compute.device import choose_dtype
from drakegpt.compute.stopwatch import Stopwatch
from drakegpt.config import TrainConfig
from drakegpt.training.step_runner import WARM_UP_STEPS

MODEL = "TransformerLM"
# A laptop's size, at which a CPU's steps take 1.7 times their arithmetic, and the large size with
# fewer windows, at which an H200's in bfloat16 take about 6 times theirs.
SHAPES = {
    "cpu": {
        "context_length": 64, "embedding_dim": 128, "num_heads": 4, "num_layers": 4,
        "batch_size": 12,
    },
    "gpu": {
        "context_length": 256, "embedding_dim": 384, "num_heads": 6, "num_layers": 6,
        "batch_size": 16,
    },
}  # fmt: skip
TIMES_ARITHMETIC = 25.0  # of a step that something is wrong with; other programs make it 10
ROUNDS, PRODUCTS = 5, 2


def check_rate(device: torch.device) -> Finding:
    """Set the time of a training step beside that of its arithmetic."""
    shape = "cpu" if device.type == "cpu" else "gpu"
    config = choose_config(MODEL, **SHAPES[shape], dropout=0.1, dtype="auto")
    with keep_random_state(device):
        seconds = _time_step(config, device)
        threads, dtype = torch.get_num_threads(), choose_dtype("auto", device)
        rate = measure_matmul_rate(device, dtype, threads, PRODUCTS)
    arithmetic = count_operations(config) / rate
    times = seconds / arithmetic
    name = str(dtype).removeprefix("torch.")
    figure = f"{rate / 1e9:,.0f} GFLOP/s in {name}; a step takes {times:.1f} times its arithmetic"
    measured = {
        "matmul_flops_per_second": rate, "step_seconds": seconds,
        "arithmetic_seconds": arithmetic, "times": times, "bound": TIMES_ARITHMETIC,
    }  # fmt: skip
    if times <= TIMES_ARITHMETIC:
        return Finding(figure, measured)
    problem = (
        f"a training step takes {seconds * 1e3:,.0f} ms, {times:.0f} times as long as its "
        f"arithmetic at this device's {rate / 1e9:,.0f} GFLOP/s."
    )
    fix = (
        "Close other programs and try again; if it stays, `drakegpt bench TransformerLM` shows "
        "where the time goes."
    )
    return Finding(figure, measured, "warning", problem, fix)


def check_faster_than_cpu(device: torch.device) -> Finding:
    """Set a step of a GPU beside one of the CPU, at a laptop's size."""
    config = choose_config(MODEL, **SHAPES["cpu"], dropout=0.1, dtype="auto")
    with keep_random_state(device):
        here, there = (_time_step(config, each) for each in (CPU, device))
    figure = f"a step takes {there * 1e3:.1f} ms, on the CPU {here * 1e3:.1f} ms"
    measured = {"seconds": there, "cpu_seconds": here}
    if there <= here:
        return Finding(figure, measured)
    problem = (
        f"a training step of a laptop's size takes {there * 1e3:.1f} ms on {device.type}, and "
        f"{here * 1e3:.1f} ms on the CPU."
    )
    fix = "Train with --device cpu, or a larger model: `--scaled`."
    return Finding(figure, measured, "warning", problem, fix)


def count_operations(config: TrainConfig) -> int:
    """Count the operations of an iteration's matrix products, forth and back.

    Each weight of a layer is used in one multiplication and one addition for each token,
    and twice that in the backward pass; the same holds for scores and sums of attention,
    of which drakegpt's kernels compute about half, and which are left out here.
    """
    C = config.embedding_dim
    tokens = config.batch_size * config.context_length
    return 6 * 12 * config.num_layers * C**2 * tokens


def _time_step(config: TrainConfig, device: torch.device) -> float:
    """Return the seconds of a training step: of the quickest of some."""
    trainer = build_trainer(config, device)
    reports = trainer.reports()
    _finish(islice(reports, WARM_UP_STEPS.get(trainer.plan.mode, 0) + 2), device)
    watch, seconds = Stopwatch(), []
    for _ in range(ROUNDS):
        with watch:
            _finish(islice(reports, 1), device)
        seconds.append(watch.last)
    return min(seconds)


def _finish(reports: Iterator[object], device: torch.device) -> None:
    for _ in reports:
        pass
    torch.get_device_module(device).synchronize()
