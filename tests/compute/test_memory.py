"""How much memory there is, from files as Linux has them."""

import ctypes
from types import SimpleNamespace

import pytest
import torch

from drakegpt.compute import memory
from drakegpt.errors import NotEnoughMemoryError

CPU = torch.device("cpu")
HUGE = 9223372036854771712  # what version 1 says where nothing is limited


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """A machine of 1000 bytes whose process is in the control groups that are given."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "_read_physical_memory", lambda: [1000])
    monkeypatch.setattr(memory, "_read_process_limits", lambda: [])

    def put(groups, files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return put


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 1000),
        ("0::/\n", {"memory.max": "max"}, 1000),
        ("0::/\n", {"memory.max": 400}, 400),
        ("0::/a/b\n", {"a/memory.max": 300, "a/b/memory.max": 500}, 300),
        ("0::/a/b\n", {"a/b/memory.max": "max"}, 1000),
        ("0::/elsewhere\n", {"memory.max": 200}, 200),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": HUGE}, 1000),
        ("4:cpu,memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": 70}, 70),
        ("4:memory:/x\n", {"memory/memory.limit_in_bytes": 60}, 60),
        ("4:cpu:/x\n", {"memory/x/memory.limit_in_bytes": 60}, 1000),
        ("nonsense", {}, 1000),
        ("0::/../..\n", {"memory.max": 50}, 50),
    ],
)
def test_the_least_limit_counts(limits, groups, files, expected):
    limits(groups, files)
    assert memory.get_memory_limit(CPU) == expected


def test_limits_of_the_process_count(limits, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.undo()
    monkeypatch.setattr(memory, "_read_physical_memory", lambda: [])
    monkeypatch.setattr(memory, "_read_control_groups", lambda: [])
    of = {resource.RLIMIT_AS: 5000, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (of[kind], resource.RLIM_INFINITY))
    assert memory.get_memory_limit(CPU) == 5000


@pytest.mark.parametrize(("told", "expected"), [(1, 34_000_000_000), (0, None)])
def test_windows_tells_its_memory(limits, monkeypatch, told, expected):
    def fill(pointer):
        status = pointer._obj
        assert status.length == ctypes.sizeof(status) == 64
        status.total_physical = 34_000_000_000
        return told

    monkeypatch.undo()
    monkeypatch.setattr(memory, "_read_control_groups", lambda: [])
    monkeypatch.setattr(memory, "_read_process_limits", lambda: [])
    kernel = SimpleNamespace(GlobalMemoryStatusEx=fill)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert memory.get_memory_limit(CPU) == expected


def test_nothing_is_refused_where_nothing_is_known(limits, monkeypatch):
    monkeypatch.setattr(memory, "_read_physical_memory", lambda: [])
    assert memory.get_memory_limit(CPU) is None
    memory.check_memory_fits({"Take less.": 10**30}, CPU, "for this")


def test_the_advice_is_that_of_the_largest_part(limits):
    memory.check_memory_fits({"Fewer windows.": 500, "A smaller model.": 500}, CPU, "for this")
    with pytest.raises(NotEnoughMemoryError, match="not enough memory for this") as caught:
        memory.check_memory_fits({"Fewer windows.": 501, "A smaller model.": 500}, CPU, "for this")
    assert caught.value.fix == "Fewer windows."


def test_free_memory_is_some_of_what_there_is():
    free = memory.get_available_memory(CPU)
    assert free is None or 0 < free <= memory.get_memory_limit(CPU)


def test_free_memory_is_what_linux_says_it_could_give(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  16 kB\nMemAvailable:  5 kB\n")
    monkeypatch.setattr(memory, "PROC", tmp_path)
    assert list(memory._read_free_memory()) == [5 * 1024]
    (tmp_path / "meminfo").unlink()
    assert memory.get_available_memory(CPU) is None
