"""The peak of memory of one contender at one kind of work, each alone in a new process.

What counts is how far the process grew beyond PyTorch itself. On a GPU it is
the most that PyTorch had allocated there.
"""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from drakegpt.config import TrainConfig
from drakegpt.errors import RunError
from drakegpt.evaluation.contenders import BUILDERS
from drakegpt.models.build import choose_threads

# Training reaches its peak in the second iteration, when the optimizer has its state.
UNITS = {"training": 3, "generation": 64}


def peak_memory(name: str, kind: str, config: TrainConfig, device: torch.device) -> int | None:
    """Bytes that contender `name` needs for `kind` of work; `None` where no system says.

    Raises `RunError` if the other process fails, above all for want of memory.
    """
    order = json.dumps([name, kind, dataclasses.asdict(config), str(device)])
    command = [sys.executable, "-m", "drakegpt.evaluation.memory", order]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(
            f"The {kind} of {name}, {config.model}, ended with code {done.returncode}: {last}.",
            "Close other programs that take much memory, or leave out --memory.",
        )
    peak: int | None = json.loads(done.stdout)
    return peak


def _measure(name: str, kind: str, config: TrainConfig, device: torch.device) -> int | None:
    """In the new process: work, and see how far it grew."""
    import torch._dynamo  # a part of PyTorch that every optimizer loads

    before = _peak()
    choose_threads(config.model_settings(1))
    BUILDERS[name][kind](config, device)(UNITS[kind])
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
    name, kind, settings, device = json.loads(sys.argv[1])
    grown = _measure(name, kind, TrainConfig(**settings), torch.device(device))
    sys.stdout.write(json.dumps(grown))
