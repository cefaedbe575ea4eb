"""Checks of what drakegpt runs in: the data folder, the terminal, memory and other programs.

Imports no PyTorch: it must work where PyTorch does not. Nothing that was there is changed;
what the write test writes is removed.
"""

import locale
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from drakegpt import files, home
from drakegpt.bench.doctor.checks import Finding
from drakegpt.bench.doctor.facts import describe_load, find_existing, hide_user
from drakegpt.errors import is_disk_full

# A run of the large size keeps 300 MB: two checkpoints of weights and two moments, and the best.
LEAST_DISK, LEAST_MEMORY = 2**29, 2**30
# Characters of drakegpt's tables, bars and messages.
PRINTED = "─━│┃┏┓└┘├┡┤┩┳┴┼╇…·±≈█▁▂▃²→"
WRITTEN = (b"first", b"second")
ELSEWHERE = f"or set {home.HOME_VARIABLE} to another folder."
# Other programs take the processor if so much more time passes than is computed in.
BUSY, BUSY_SECONDS = 1.25, 0.2


def check_data_folder() -> Finding:
    """Write, replace, read and remove a file in the data folder and its subfolders."""
    root = home.root()
    if not os.path.lexists(root):
        return _describe_missing(root)
    if not root.is_dir():
        return Finding(
            "no folder", {}, "failed", f"{hide_user(root)} is not a folder.",
            f"Move it away, {ELSEWHERE}",
        )  # fmt: skip
    folders = [each for each in (root, home.datasets(), home.runs()) if each.is_dir()]
    for folder in folders:
        if finding := _try_to_write(folder):
            return finding
    free = shutil.disk_usage(root).free
    figure = f"written, renamed and removed in {len(folders)} of its folders"
    measured = {"free_bytes": float(free)}
    if free >= LEAST_DISK:
        return Finding(figure, measured)
    problem = (
        f"the disk of {hide_user(root)} has {free / 2**20:,.0f} MiB left; a run of the large size "
        "keeps 300."
    )
    return Finding(figure, measured, "warning", problem, f"Free some space there, {ELSEWHERE}")


def _describe_missing(root: Path) -> Finding:
    """Say what would happen to a folder that does not exist; nothing is made here."""
    parent = find_existing(root)
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        problem = (
            f"{hide_user(root)} does not exist yet, so writing was not tried. The first command "
            "that stores something makes it."
        )
        return Finding("does not exist yet", {}, "not tested", problem)
    problem = f"{hide_user(root)} does not exist, and cannot be made in {hide_user(parent)}."
    return Finding("cannot be made", {}, "failed", problem, f"Get write access there, {ELSEWHERE}")


def _try_to_write(folder: Path) -> Finding | None:
    """Write and replace a file as all of drakegpt's are; returns what went wrong, if anything."""
    path = folder / f"doctor-{os.urandom(4).hex()}"
    try:
        for content in WRITTEN:  # the second replaces the first
            with files.write_atomically(path) as file:
                file.write(content)
            if path.read_bytes() != content:
                raise OSError(None, "what is read is not what was written")
        path.unlink()
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        shown, reason = hide_user(folder), error.strerror or error
        if is_disk_full(error):
            problem = f"the disk of {shown} is full ({reason})."
            return Finding("disk full", {}, "failed", problem, f"Free some space, {ELSEWHERE}")
        problem = f"nothing can be written in {shown}: {reason}."
        fix = f"Get write access there, {ELSEWHERE}"
        return Finding("not writable", {}, "failed", problem, fix)
    return None


def check_terminal() -> Finding:
    """Look whether the locale's encoding has the characters that drakegpt prints, in UTF-8."""
    if os.name == "nt" and sys.stdout.isatty():  # a console takes them as Unicode
        return Finding("Unicode console")
    encoding = locale.getencoding()
    try:
        right = PRINTED.encode(encoding) == PRINTED.encode("utf-8")
    except (UnicodeEncodeError, LookupError):
        right = False
    if right:
        return Finding(encoding)
    problem = (
        f"this system's encoding is {encoding}, and drakegpt prints UTF-8: boxes and characters "
        f"such as … and █ may show as others."
    )
    fix = "Set LANG to a locale with UTF-8, such as C.UTF-8; on Windows, run `chcp 65001`."
    return Finding(encoding, {}, "warning", problem, fix)


def check_busy() -> Finding:
    """Compare the load with the cores, and the time that a little work takes with its own."""
    ratio = _measure_waiting()
    load, cores = (describe_load() or {}).get("of_a_minute", 0.0), os.cpu_count() or 1
    measured = {"load": load, "cores": float(cores), "wait_ratio": ratio}
    figure = f"load {load:.1f} of {cores}, waits {max(0.0, ratio - 1):.0%}"
    if load <= cores and ratio <= BUSY:
        return Finding(figure, measured)
    problem = (
        f"other programs use the processor: the load is {load:.1f} with {cores} cores, and work "
        f"took {ratio:.1f} times its own time. Training takes longer, and its times are "
        "unreliable."
    )
    return Finding(figure, measured, "warning", problem, "Close other programs, or wait.")


def _measure_waiting() -> float:
    """Return the time on the clock over processor time, of work by one thread."""
    started, processor = time.perf_counter(), time.thread_time()
    while time.perf_counter() - started < BUSY_SECONDS:
        sum(range(1000))
    used = time.thread_time() - processor
    return (time.perf_counter() - started) / max(used, 1e-9)


def check_memory(available: int | None) -> Finding:
    """Judge the memory that is free, in bytes; `None` if unknown."""
    if available is None:
        return Finding("unknown", result="not tested")
    figure, measured = f"{available / 2**30:,.1f} GiB free", {"free_bytes": float(available)}
    if available >= LEAST_MEMORY:
        return Finding(figure, measured)
    problem = f"only {available / 2**20:,.0f} MiB of memory are free."
    fix = "Close other programs, or train smaller models than the large size."
    return Finding(figure, measured, "warning", problem, fix)
