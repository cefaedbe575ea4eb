"""Facts about this machine, as a report of a bug needs them: what there is, and no judgement.

Nothing secret is read further than to see that it is there, and paths begin with `~` where
they are in the user's folder, so that the facts can be shown to anyone. Each fact is found
by itself: one that cannot be found says why, and the others are there.

Imports no PyTorch until it is asked about it: it must work where PyTorch does not.
"""

import importlib.metadata
import locale
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from drakegpt import home
from drakegpt.errors import shorten
from drakegpt.version import __version__

# Extras that drakegpt uses where they are installed.
EXTRAS = ("transformers", "triton", "onnx", "onnxruntime")
# Variables that change how PyTorch computes, and tell nothing about a person.
VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES",
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "PYTORCH_ENABLE_MPS_FALLBACK",
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One fact: `name` is stable, `value` is for programs and `text` for people."""

    name: str
    title: str
    text: str
    value: Any


def collect_facts(device: str) -> list[Fact]:
    """Collect all facts; `device` is the option, such as auto."""
    return [_find(name, title, find) for name, title, find in _list_facts(device)]


def _list_facts(device: str) -> list[tuple[str, str, Callable[[], Any]]]:
    return [
        ("drakegpt", "drakegpt", lambda: __version__),
        ("python", "Python", _describe_python),
        ("system", "system", platform.platform),
        ("processor", "processor", _describe_processor),
        ("cores", "cores", os.cpu_count),
        ("threads", "PyTorch's threads", _count_threads),
        ("load", "load", describe_load),
        ("memory", "memory", _describe_memory),
        ("torch", "PyTorch", _describe_torch),
        ("devices", "devices", list_devices),
        ("device", "device taken", lambda: _describe_device(device)),
        ("data_folder", "data folder", lambda: hide_user(home.root())),
        ("disk", "disk there", _describe_disk),
        ("encoding", "encodings", _describe_encodings),
        ("kaggle", "Kaggle token", _describe_kaggle),
        ("wandb", "Weights & Biases", _describe_wandb),
        ("compiler", "C++ compiler", find_compiler),
        ("extras", "optional packages", _list_extras),
        ("variables", "variables", _list_variables),
    ]


def _find(name: str, title: str, find: Callable[[], Any]) -> Fact:
    try:
        value = find()
    except Exception as error:  # whatever is broken here
        lines = str(error).strip().splitlines() or [""]
        return Fact(name, title, f"unknown ({type(error).__name__}: {shorten(lines[0])})", None)
    return Fact(name, title, _format(value), value)


def _format(value: Any) -> str:
    """Format a value for people: a dictionary or list as a sentence's part."""
    if isinstance(value, dict):
        return ", ".join(_format_item(key, each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_format, value)) or "none"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return "unknown" if value is None else str(value)


def _format_item(key: str, value: Any) -> str:
    words = key.removesuffix("_bytes").replace("_", " ")
    return f"{words} {_format_bytes(value) if words != key.replace('_', ' ') else _format(value)}"


def hide_user(path: Path) -> str:
    """Return a path with `~` for the user's folder, whose name may be the user's."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)


def _describe_python() -> str:
    return f"{platform.python_version()}, {platform.python_implementation()}"


def _describe_processor() -> str:
    import torch

    from drakegpt.bench.hardware import describe_machine

    name = describe_machine(torch.device("cpu"))["processor"]
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _count_threads() -> int:
    from drakegpt.compute.device import default_thread_count

    return default_thread_count()


def describe_load() -> dict[str, float] | None:
    """Return how many programs wanted a core, on average of 1 and 5 minutes; `None` on Windows."""
    if not hasattr(os, "getloadavg"):
        return None
    one, five, _ = os.getloadavg()
    return {"of_a_minute": round(one, 2), "of_5_minutes": round(five, 2)}


def _describe_memory() -> dict[str, int | None]:
    import torch

    from drakegpt.compute.memory import get_available_memory, get_memory_limit

    cpu = torch.device("cpu")
    return {"free_bytes": get_available_memory(cpu), "in_all_bytes": get_memory_limit(cpu)}


def _describe_torch() -> str:
    import torch

    builds = {"CUDA": torch.version.cuda, "ROCm": getattr(torch.version, "hip", None)}
    built = [f"{name} {version}" for name, version in builds.items() if version]
    return f"{torch.__version__}, built for {' and '.join(built) or 'CPUs'}"


def list_devices() -> list[str]:
    """List the devices that PyTorch can use, GPUs with their names and memory."""
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        gpu = torch.cuda.get_device_properties(index)
        found.append(f"cuda ({gpu.name}, {_format_bytes(gpu.total_memory)})")
    if torch.backends.mps.is_available():
        found.append("mps (Apple)")
    return [*found, "cpu"]


def _describe_device(name: str) -> str:
    from drakegpt.compute.device import choose_device

    return f"{choose_device(name).type} (asked for: {name})"


def _describe_disk() -> dict[str, int]:
    usage = shutil.disk_usage(find_existing(home.root()))
    return {"free_bytes": usage.free, "in_all_bytes": usage.total}


def find_existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that exists."""
    return next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))


def _describe_encodings() -> dict[str, str]:
    variables = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    named = next(filter(None, variables), "not set")
    return {"locale": f"{named} ({locale.getencoding()})", "stdout": sys.stdout.encoding}


def _describe_kaggle() -> str:
    """Say where credentials are, by the names of variables and files; nothing of what they are."""
    from drakegpt.data.kaggle import find_credentials

    found = find_credentials()
    shown = [hide_user(place) if isinstance(place, Path) else place for place in found]
    return f"seen in {', '.join(shown)}" if shown else "not seen"


def _describe_wandb() -> str:
    from drakegpt.runs.wandb_mirror import has_api_key

    if find_spec("wandb") is None:
        return "not installed"
    key = "a key was seen" if has_api_key() else "no key, so runs would be recorded offline"
    return f"{importlib.metadata.version('wandb')}, {key}"


def find_compiler() -> str:
    """Return the C++ compiler that `torch.compile` would call for a CPU, or that there is none."""
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    name = os.environ.get("CXX") or usual
    found = shutil.which(name)
    return hide_user(Path(found)) if found else f"none ({name}), so --compile changes nothing"


def _list_extras() -> dict[str, str]:
    versions = {}
    for name in EXTRAS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "no"
    return versions


def _list_variables() -> list[str]:
    """List variables that change what happens; of drakegpt's own only that they are set."""
    own = sorted(name for name in os.environ if name.startswith("DRAKEGPT_"))
    return [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ] + own


def _format_bytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:,.1f} GiB"
