"""The peak of memory of a piece of work, done alone in a new process.

What counts is how far the process grew beyond PyTorch itself. On a GPU it is
the most that PyTorch had allocated there.
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
    """Bytes that `work(*arguments, device)` needs; `None` where no system says.

    `what` names it; `work` is a function of a module, and the arguments are what
    JSON can hold. Raises `RunError` if the other process fails, above all for want of memory.
    """
    order = json.dumps([work.__module__, work.__name__, arguments, str(device)])
    command = [sys.executable, "-m", "drakegpt.bench.memory", order]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(
            f"{what} ended with code {done.returncode}: {last}.",
            "Close other programs that take much memory.",
        )
    peak: int | None = json.loads(done.stdout)
    return peak


def _measure(module: str, name: str, arguments: list[Any], device: torch.device) -> int | None:
    """In the new process: work, and see how far it grew."""
    import torch._dynamo  # a part of PyTorch that every optimizer loads

    work = getattr(importlib.import_module(module), name)
    before = _peak()
    work(*arguments, device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    after = _peak()
    return None if before is None or after is None else after - before


def _peak() -> int | None:
    """The most memory that this process ever held, in bytes."""
    status = Path("/proc/self/status")
    # Linux hands `ru_maxrss` down from the parent to a new program, so it is asked elsewhere.
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    module, name, arguments, device = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(_measure(module, name, arguments, torch.device(device))))
