"""How much memory this process can use, and a check before more is allocated.

Callers give a lower bound of what they need, so that nothing that fits is refused;
what is slightly too large runs out of memory later.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from drakegpt.errors import NotEnoughMemoryError

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def get_memory_limit(device: torch.device) -> int | None:
    """Return the bytes of a GPU, or those this process can use; `None` if unknown.

    The latter is the minimum of physical memory, the limits of its control groups (as
    in a container), and the resource limits of the process.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return min(
        (*_read_physical_memory(), *_read_control_groups(), *_read_process_limits()), default=None
    )


def get_available_memory(device: torch.device) -> int | None:
    """Return the bytes that are free now on a GPU or for this process; `None` if unknown.

    Memory that the system would take from its own caches counts as free. It is known on
    Linux and Windows.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limit = get_memory_limit(device)
    free = list(_read_free_memory())
    return min((*free, limit)) if free and limit is not None else None


def _read_free_memory() -> Iterator[int]:
    """Yield the physical memory that is free, where the system tells it."""
    if windows := getattr(ctypes, "windll", None):
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        if windows.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            yield status.available_physical
        return
    with suppress(OSError, ValueError, IndexError):
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def check_memory_fits(needed: Mapping[str, int], device: torch.device, what: str) -> None:
    """Raise `NotEnoughMemoryError` if the sum of `needed` exceeds the memory.

    `needed`: bytes, at least, by the advice that reduces them; the error shows that of
    the largest. `what` completes "There is not enough memory".
    """
    limit, total = get_memory_limit(device), sum(needed.values())
    if limit is None or total <= limit:
        return
    where = "The GPU" if device.type == "cuda" else "This machine"
    raise NotEnoughMemoryError(
        f"There is not enough memory {what}: it takes at least {_format_gib(total)}. "
        f"{where} has {_format_gib(limit)} for it.",
        max(needed, key=lambda fix: needed[fix]),
    )


def _format_gib(count: int) -> str:
    gib = count / 2**30
    return f"{gib:,.3g} GiB" if gib < 1000 or gib >= 10**9 else f"{gib:,.0f} GiB"


def _read_physical_memory() -> Iterator[int]:
    """Yield the physical memory, where the system provides it."""
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
    """MEMORYSTATUSEX, which Windows fills in."""

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


def _read_process_limits() -> Iterator[int]:
    """Yield the limits set by `ulimit -v` and `ulimit -d`."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield soft


def _read_control_groups() -> Iterator[int]:
    """Yield the limits of this process's control groups, version 1 and 2, on Linux."""
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds == "":
            yield from _read_group_limits(CGROUPS, path, "memory.max")
        elif "memory" in kinds.split(","):
            yield from _read_group_limits(CGROUPS / "memory", path, "memory.limit_in_bytes")


def _read_group_limits(root: Path, path: str, name: str) -> Iterator[int]:
    """Yield the limits of a group and its parents; in a container only the root exists."""
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
