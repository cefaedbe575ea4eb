"""How fast the steps of training are, and which kernels take the time."""

import re

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from .results import rounded
from .workbench import Workbench

PROFILED_STEPS = 4


def speed(options, results):
    """Ways, number formats and optimizers, each by a trainer of its own."""
    bench = Workbench(options)
    steps = 3 if bench.dry_run else 100
    base = {**bench.shape(), "dropout": 0.2}
    variants = {
        "recorded": {},
        "eager": {"mode": "eager"},
        "float32": {"dtype": "float32"},
        "no_dropout": {"dropout": 0.0},
        "muon": {"optimizer": "muon"},
        "compiled": {"compile": bench.on_gpu},
        "recorded_again": {},  # how far two measurements of the same lie apart
    }
    for name, settings in variants.items():
        with results.part(name):
            found, reports = bench.time_steps(steps, **base | settings)
            results.put(name, found)
            if name in ("recorded", "compiled"):
                _profile(bench, results, name, reports)
            del reports
    if bench.on_gpu:
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
            name = backend.name.lower()
            with results.part(name), sdpa_kernel([backend]):
                results.put(name, bench.time_steps(steps, **base)[0])
    with results.part("default_size"):
        results.put("default_size", bench.time_steps(steps * 5)[0])


def _profile(bench, results, name, reports):
    """The kernels of a step by the microseconds they take: a table, and its first rows."""
    activity = ProfilerActivity.CUDA if bench.on_gpu else ProfilerActivity.CPU
    with results.part(f"kernels_{name}"):
        with profile(activities=[activity]) as recorded:
            for _ in range(PROFILED_STEPS):
                next(reports)
            bench.synchronize()
        rows = sorted(_rows(recorded, bench.on_gpu), reverse=True)
        table = "\n".join(f"{time:10.1f} {count:7.1f} {kernel}" for time, count, kernel in rows)
        file = results.file.parent / f"kernels_{name}.txt"
        file.write_text(table, encoding="utf-8")
        noise = r"void |at::native::|\(anonymous namespace\)::|cutlass::"
        found = {
            "us": round(sum(row[0] for row in rows)),
            "launches": round(sum(row[1] for row in rows)),
            "top": [(time, count, re.sub(noise, "", key)[:56]) for time, count, key in rows[:18]],
        }
        results.put(f"kernels_{name}", rounded(found))


def _rows(recorded, on_gpu):
    """Microseconds and calls in a step of each kernel that takes time."""
    for event in recorded.key_averages():
        time = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if time:
            yield time / PROFILED_STEPS, event.count / PROFILED_STEPS, event.key
