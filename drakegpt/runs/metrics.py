"""Reads metrics.jsonl, in which a run keeps its evaluations and how it ended, and checks it.

A line is an evaluation, perhaps with a text that was written then (`training_samples`), or says
that training is finished or was stopped, and why.
"""

import math
import os
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from drakegpt.files import parse_json

FILE = "metrics.jsonl"
# Numbers that every evaluation has, and the reasons why training may be finished or stopped.
FIGURES = ("train_loss", "val_loss", "learning_rate", "tokens_per_second", "seconds")
REASONS = {"finished": ("iterations", "patience"), "stopped": ("pruned", "diverged")}
TAIL_BYTES = 8192  # of the file's end; they hold the last few lines


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read all whole lines of a run's metrics; a last line cut off by a crash is left out.

    Raises `FileNotFoundError` if there are none, and one of `ValueError`, `OverflowError`,
    `TypeError`, `KeyError` and `AttributeError` for a damaged file.
    """
    return _read_lines(folder, get_file_signature(folder, FILE))


def read_last_evaluation(folder: Path) -> dict[str, Any]:
    """Read the newest evaluation from the end of the file; empty if there is none there."""
    try:
        with (folder / FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")
        read = [parse_json(line.decode()) for line in lines[:-1] if line.startswith(b"{")]
        return next((line for line in reversed(read) if line["event"] == "evaluation"), {})
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def get_file_signature(folder: Path, name: str) -> tuple[int, ...]:
    """Return what changes when a file of a run is written again: inode, time and size."""
    status = os.stat(f"{folder}/{name}")  # noqa: PTH116 - thousands of runs are listed
    return status.st_ino, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1 << 14)
def _read_lines(folder: Path, _: tuple[int, ...]) -> list[dict[str, Any]]:
    """Read and check the lines, once per signature of the file."""
    lines = (folder / FILE).read_text(encoding="utf-8").split("\n")[:-1]
    metrics = parse_json(f"[{','.join(lines)}]")  # much faster than line by line
    if len(metrics) != len(lines):
        raise ValueError("not an object in each line")
    _check_lines(metrics)
    return list(metrics)


def _check_lines(lines: list[dict[str, Any]]) -> None:
    """Check all lines: evaluations together, which is faster, and one by one only on a fault."""
    evaluations = [line for line in lines if line["event"] == "evaluation"]
    others = [line for line in lines if line["event"] != "evaluation"]
    values = list(chain.from_iterable(map(itemgetter(*FIGURES), evaluations)))
    iterations = [line["iteration"] for line in evaluations]
    valid = (
        set(map(type, values)) <= {int, float}
        and set(map(type, iterations)) <= {int}
        and all(map(math.isfinite, values))
        and min(iterations, default=0) >= 0
        and all(type(line.get("sample", "")) is str for line in evaluations)
    )
    for line in others if valid else lines:
        _check_line(line)


def _check_line(line: Mapping[str, Any]) -> None:
    """Raise `ValueError`, or `KeyError` for a missing entry, if a line of metrics is not valid."""
    if type(line["iteration"]) is not int or line["iteration"] < 0:
        raise ValueError(f"{line['iteration']!r:.40} is not a number of iterations")
    if (event := line["event"]) == "evaluation":
        values = [line[name] for name in FIGURES]
        if not set(map(type, values)) <= {int, float} or not math.isfinite(sum(values)):
            raise ValueError(f"{', '.join(FIGURES)} are {values!r:.80}, not finite numbers")
        if type(line.get("sample", "")) is not str:
            raise ValueError(f"the sample is {line['sample']!r:.40}, not a text")
    elif event not in REASONS:
        raise ValueError(f"unknown event {event!r:.40}")
    elif line["reason"] not in REASONS[event]:
        raise ValueError(f"unknown reason for {event}: {line['reason']!r:.40}")
