"""How much memory this process may have, and the refusal of what cannot fit into it.

Whoever asks gives a lower bound of what is needed, so that nothing is refused
that fits; what is just too large runs out of memory later.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from drakegpt.errors import NotEnoughMemoryError

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def available_memory(device: torch.device) -> int | None:
    """Bytes of memory of a GPU; else the most that this process may have, `None` if unknown.

    That is the least of physical memory, the limits of its control groups (a
    container has one), and the limits of the process.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return min((*_physical(), *_control_groups(), *_process_limits()), default=None)


def check_memory_fits(needed: Mapping[str, int], device: torch.device, what: str) -> None:
    """Raise `NotEnoughMemoryError` if all that is needed is more than there is.

    `needed`: bytes, at least, by what makes them smaller: the sentence that the
    largest has for a key is shown.
    """
    there, total = available_memory(device), sum(needed.values())
    if there is None or total <= there:
        return
    where = "The GPU" if device.type == "cuda" else "This machine"
    raise NotEnoughMemoryError(
        f"There is not enough memory {what}: it takes at least {_gib(total)}. "
        f"{where} has {_gib(there)} for it.",
        max(needed, key=lambda fix: needed[fix]),
    )


def _gib(count: int) -> str:
    gib = count / 2**30
    return f"{gib:,.3g} GiB" if gib < 1000 or gib >= 10**9 else f"{gib:,.0f} GiB"


def _physical() -> Iterator[int]:
    """The memory of the machine, where the system tells it."""
    if windows := getattr(ctypes, "windll", None):
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        if windows.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            yield status.total_physical
    elif hasattr(os, "sysconf"):
        try:
            yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):
            return


class _MemoryStatus(ctypes.Structure):
    """What Windows fills in: its MEMORYSTATUSEX."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total_physical", ctypes.c_uint64),
        ("available_physical", ctypes.c_uint64),
        ("total_page_file", ctypes.c_uint64),
        ("available_page_file", ctypes.c_uint64),
        ("total_virtual", ctypes.c_uint64),
        ("available_virtual", ctypes.c_uint64),
        ("available_extended_virtual", ctypes.c_uint64),
    )


def _process_limits() -> Iterator[int]:
    """What `ulimit -v` and `ulimit -d` set."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield soft


def _control_groups() -> Iterator[int]:
    """The limits of the control groups that this process is in, of version 1 and 2, on Linux."""
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds == "":
            yield from _limits(CGROUPS, path, "memory.max")
        elif "memory" in kinds.split(","):
            yield from _limits(CGROUPS / "memory", path, "memory.limit_in_bytes")


def _limits(root: Path, path: str, name: str) -> Iterator[int]:
    """The limits of a group and of all groups around it; within a container it is the root."""
    group = root / path.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        try:
            text = (folder / name).read_text().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdecimal():  # else "max"
            yield int(text)
