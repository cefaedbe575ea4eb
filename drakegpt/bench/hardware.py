"""The machine: its description, and its rate of matrix multiplication."""

import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from drakegpt.compute import kernels
from drakegpt.compute.stopwatch import Stopwatch

# Rows and columns of the multiplied matrices, and repetitions: the best time counts.
MATRIX_SIZE = {"cpu": 1024, "cuda": 8192, "mps": 4096}
REPETITIONS = 15


@cache
def measure_matmul_rate(
    device: torch.device, dtype: torch.dtype, threads: int, repetitions: int = REPETITIONS
) -> float:
    """Measure floating-point operations a second: the best of `torch.mm` and `kernels.linear`."""
    size = MATRIX_SIZE[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    synchronize = torch.get_device_module(device).synchronize
    torch.set_num_threads(threads)
    watch, seconds = Stopwatch(), []
    with torch.no_grad():
        for number in range(2 * repetitions):
            synchronize()
            with watch:
                _ = kernels.linear(a, b, None) if number % 2 else torch.mm(a, b)
                synchronize()
            seconds.append(watch.last)
    return 2 * size**3 / min(seconds)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine and the versions that measurements belong to."""
    return {
        "processor": _get_processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "device": device.type,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _get_processor_name() -> str:
    """Return the processor's name, as far as the system reports it."""
    if (known := Path("/proc/cpuinfo")).exists():
        for line in known.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine()
