"""What this machine is, and how fast it multiplies: the ground that `bench` stands on."""

import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from drakegpt.compute import kernels
from drakegpt.compute.stopwatch import Stopwatch

# Rows and columns of the matrices that are multiplied, and how often: the best time counts.
SIZE = {"cpu": 1024, "cuda": 8192, "mps": 4096}
TIMES = 15


@cache
def matmul_rate(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """Floating-point operations in a second, at best, by `torch.mm` or `kernels.linear`."""
    size = SIZE[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    synchronize = torch.get_device_module(device).synchronize
    torch.set_num_threads(threads)
    watch, seconds = Stopwatch(), []
    with torch.no_grad():
        for number in range(2 * TIMES):
            synchronize()
            with watch:
                _ = kernels.linear(a, b, None) if number % 2 else torch.mm(a, b)
                synchronize()
            seconds.append(watch.last)
    return 2 * size**3 / min(seconds)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the figures belong to."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "device": device.type,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    if (known := Path("/proc/cpuinfo")).exists():
        for line in known.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine()
