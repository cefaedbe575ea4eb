"""The machine, and the tests that need its GPU."""

import importlib
import subprocess
import sys
from pathlib import Path

import torch

from . import product
from .results import rounded
from .workbench import Workbench

CHECKOUT = Path(__file__).resolve().parents[3]
NOTHING_COLLECTED = 5  # pytest's exit code


def env(options, results):
    """Which GPU, which PyTorch; that `auto` takes the GPU."""
    results.put("torch", f"{torch.__version__} on Python {sys.version.split()[0]}")
    bench = Workbench(options)
    auto = product.choose_device("auto").type
    results.put("auto", {"ok": auto == bench.device.type, "device": auto})
    plan = product.plan_execution(bench.config(**bench.shape()), bench.device)
    results.put("plan", plan.description)
    if not bench.on_gpu:
        return
    gpu = torch.cuda.get_device_properties(0)
    memory = f"{gpu.total_memory / 2**30:.0f} GiB"
    results.put("gpu", f"{gpu.name}, {gpu.multi_processor_count} SMs, {memory}")
    results.put("versions", _versions())
    with results.part("ceilings"):
        results.put("ceilings", rounded(_ceilings()))


def _versions():
    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    for name in ("triton", "transformers"):
        try:
            versions[name] = importlib.import_module(name).__version__
        except Exception as error:  # whatever keeps it from being imported
            versions[name] = type(error).__name__
    return versions


def _ceilings():
    """What the GPU reaches at best: products in bfloat16, and copies."""
    a, b = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    source = torch.randn(2**29, device="cuda")
    target = torch.empty_like(source)
    product_time = _median_seconds(lambda: torch.mm(a, b))
    copy_time = _median_seconds(lambda: target.copy_(source))
    return {
        "matmul_tflops": 2 * 8192**3 / 1e12 / product_time,
        "copy_tb_per_s": 2 * source.nbytes / 1e12 / copy_time,
    }


def _median_seconds(work):
    times = []
    for _ in range(12):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times)[len(times) // 2]


def tests(options, results):
    """The tests that are marked `gpu`: of the files that have some, for others import more."""
    files = [
        str(file.relative_to(CHECKOUT))
        for file in sorted((CHECKOUT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in file.read_text(encoding="utf-8")
    ]
    command = [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-n", "0"]
    command += ["-q", "-p", "no:cacheprovider", "--tb=line", "-rfE"]
    with results.part("marked"):
        done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
        print(done.stdout[-6000:], done.stderr[-2000:])
        lines = done.stdout.strip().splitlines()
        failed = [line[:220] for line in lines if line.startswith(("FAILED", "ERROR"))]
        found = {"summary": (lines or [""])[-1][:120], "failed": failed[:12]}
        results.put("marked", {"ok": done.returncode in (0, NOTHING_COLLECTED)} | found)
