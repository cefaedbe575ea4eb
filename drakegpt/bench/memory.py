"""The peak memory of a piece of work, measured in a new process.

On a CPU the growth of the process beyond PyTorch itself; on a GPU the most that PyTorch
had allocated there.
"""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from drakegpt.errors import RunError


def peak_memory(
    what: str, work: Callable[..., object], arguments: list[Any], device: torch.device
) -> int | None:
    """Measure the bytes that `work(*arguments, device)` needs; `None` if the system has no figure.

    `what` names it in errors; `work` is a function of a module, with arguments that JSON
    can hold. Raises `RunError` if the other process fails, usually for lack of memory.
    """
    request = json.dumps([work.__module__, work.__name__, arguments, str(device)])
    command = [sys.executable, "-m", "drakegpt.bench.memory", request]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(
            f"{what} ended with code {done.returncode}: {last}.",
            "Close other programs that use much memory.",
        )
    peak: int | None = json.loads(done.stdout)
    return peak


def _measure(module: str, name: str, arguments: list[Any], device: torch.device) -> int | None:
    """Do the work in the new process and measure by how much it grew."""
    import torch._dynamo  # every optimizer loads it: a part of PyTorch, not of the work

    work = getattr(importlib.import_module(module), name)
    before = _read_peak()
    work(*arguments, device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    after = _read_peak()
    return None if before is None or after is None else after - before


def _read_peak() -> int | None:
    """Return the peak memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    # On Linux a new program inherits `ru_maxrss` from its parent, so it is read here instead.
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError:  # on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    module, name, arguments, device = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(_measure(module, name, arguments, torch.device(device))))
