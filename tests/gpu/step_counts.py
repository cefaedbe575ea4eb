#!/usr/bin/env python3
"""One training step of drakegpt: its operations, kernel launches and the bytes they move.

    python tests/gpu/step_counts.py ['{"optimizer": "muon"}'] [--dry-run]

in the root of a checkout; the settings are those of a configuration, over the scaled
TransformerLM. What steps ask of a GPU is counted by a stand-in for one, in the folder that
the environment variable NULLGPU names: its `nullgpu.sh` starts a program where PyTorch's CUDA
code runs and no kernel computes, and its `nullgpu.py` tells what was asked for. With
--dry-run, operations and bytes alone are counted, on the CPU.
"""

import argparse
import json
import os
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path

import torch
from check import product
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

STEPS = 8  # enough for a step to be recorded
SHORT = {"iters": STEPS, "eval_interval": STEPS, "eval_iters": STEPS}
VOCAB_SIZE, CHARACTERS = 65, 1_000_000
UNTOUCHED = "empty|_unsafe_view"  # operations that touch no memory, though not views
STARTED = "NULLGPU_PATCH"  # set for programs on the stand-in: what is read there has a value


@dataclass
class Count:
    """Of one kind of operation."""

    calls: int = 0
    launches: int = 0
    bytes: int = 0


class Watch(TorchDispatchMode):
    """Counts operations in a `with` statement: those that launch something, or all but views."""

    def __init__(self, nullgpu=None):
        super().__init__()
        self._nullgpu = nullgpu
        self.counts = defaultdict(Count)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self._nullgpu is None:
            out = func(*args, **kwargs)
            launches, counted = 0, not (_is_view(func) or re.search(UNTOUCHED, str(func)))
        else:
            self._nullgpu.start()
            out = func(*args, **kwargs)
            asked = self._nullgpu.stop()
            launches = sum(bool(re.match(r"s\d+ (K|GEMM|MEMSET|COPY)", line)) for line in asked)
            counted = launches > 0
        if counted:
            count = self.counts[str(func)]
            count.calls += 1
            count.launches += launches
            written = args[:1] if func._schema.is_mutable else out
            count.bytes += _bytes((args, kwargs)) + _bytes(written)
        return out


def _is_view(func):
    """Whether what it returns is memory that was there before, and left as it was."""
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _bytes(values):
    return sum(t.nbytes for t in tree_iter(values) if isinstance(t, torch.Tensor))


def new_trainer(settings, device):
    """A trainer on a text of one letter, on which nothing here depends."""
    settings = SHORT | settings
    model, size = settings.pop("model", "TransformerLM"), settings.pop("size", "scaled")
    config = product.resolve(model, size, "text", settings)
    built = product.build_model(config.model_settings(VOCAB_SIZE)).to(device)
    tokens = torch.zeros(CHARACTERS, dtype=torch.uint8)
    cut = CHARACTERS * 9 // 10
    return product.Trainer(config, built, tokens[:cut], tokens[cut:], device)


def show_steps(trainer, nullgpu):
    """Print what each step asks of the GPU, and then an evaluation."""
    reports = trainer.reports()
    for number, what in enumerate([*["step"] * STEPS, "evaluation"], 1):
        nullgpu.start()
        next(reports)
        print(what, number if what == "step" else "", nullgpu.brief(nullgpu.stop()))
    drawn = torch.cuda.get_rng_state()[8:].view(torch.int64).item()
    print("mode", product.get_mode(trainer), "| random numbers drawn", drawn)


def show_counts(counts):
    """Print a table of operations, those first that move most bytes."""
    rows = sorted(counts.items(), key=lambda item: -item[1].bytes)
    calls, launches, moved = (
        sum(getattr(count, name) for _, count in rows) for name in ("calls", "launches", "bytes")
    )
    print(f"{calls} operations, {launches} launches, {moved / 1e6:.1f} MB")
    for name, c in rows:
        print(f"{c.calls:5d} calls {c.launches:5d} launches {c.bytes / 1e6:9.1f} MB  {name}")


def main():
    """Count one step, carried out operation by operation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="?", type=json.loads, default={}, help="as JSON")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, without launches")
    arguments = parser.parse_args()
    nullgpu = None if arguments.dry_run else _stand_in(parser)
    trainer = new_trainer(arguments.settings, torch.device("cuda" if nullgpu else "cpu"))
    print(trainer.plan.why)
    if nullgpu:
        show_steps(trainer, nullgpu)
    else:
        for _ in islice(trainer.reports(), 1):  # the first makes the optimizer's state
            pass
    with Watch(nullgpu) as watch:
        product.take_eager_step(trainer)
    show_counts(watch.counts)


def _stand_in(parser):
    """What counts launches; where this program runs without, it is started anew."""
    if STARTED not in os.environ:
        if "NULLGPU" not in os.environ:
            parser.error("NULLGPU names no folder of a stand-in GPU; --dry-run needs none")
        script = str(Path(os.environ["NULLGPU"]) / "nullgpu.sh")
        path = os.pathsep.join(sys.path[1:])
        environment = {**os.environ, STARTED: "1", "PYTHONPATH": path}
        os.execve(script, [script, sys.executable, *sys.argv], environment)
    return import_module("nullgpu")


if __name__ == "__main__":
    main()
