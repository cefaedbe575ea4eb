"""Where and how to compute: the device, the floating-point type and the number of CPU threads."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from drakegpt.config import ModelConfig
from drakegpt.config.presets import WIDE
from drakegpt.errors import UsageError


def choose_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `mps`; `auto` prefers a GPU.

    Raises `UsageError` if this PyTorch cannot use that device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    usable = [kind for kind, is_usable in available.items() if is_usable]
    if name == "auto":
        name = usable[0]
    if not available[name]:
        wrong_build = name == "cuda" and torch.version.cuda is None
        other = "; https://pytorch.org has builds for NVIDIA's GPUs" if wrong_build else ""
        raise UsageError(
            f"There is no {name} device that this PyTorch ({torch.__version__}) can use.",
            f"Use --device auto, or one that is here: {', '.join(usable)}{other}.",
        )
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the compute dtype for `auto`, `float32` or `bfloat16`.

    `auto` is bfloat16 on NVIDIA GPUs with hardware support for it, else float32. (A run on
    a CPU that bfloat16 speeds up has that setting: see `training.dtype_trial`.)
    """
    if name == "auto":
        on_gpu = device.type == "cuda"
        supported = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if supported else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def has_fast_bfloat16() -> bool:
    """Return whether the CPU has instructions that multiply bfloat16, and PyTorch uses them."""
    found = _get_cpu_capabilities()
    names = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")  # the last two on ARM
    return torch.backends.mkldnn.is_available() and any(found.get(name) for name in names)


def describe_cpu() -> str:
    """Return the name of the processor and its number of cores."""
    found = _get_cpu_capabilities()
    return f"{found.get('cpu_name', found.get('architecture', 'unknown'))}, {os.cpu_count()} cores"


def _get_cpu_capabilities() -> Mapping[str, Any]:
    """Return what PyTorch knows of the CPU; nothing in older versions."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def set_thread_count(config: ModelConfig) -> None:
    """Set PyTorch's number of CPU threads to what is fastest for a model of this size."""
    torch.set_num_threads(choose_thread_count(config))


def choose_thread_count(config: ModelConfig) -> int:
    """Return the number of CPU threads with which a model is fastest: one if it is small.

    Below a certain width, distributing a layer's arithmetic over threads takes
    longer than the arithmetic itself.
    """
    available = default_thread_count()  # asked first, before it is changed
    small = not config.facts.has_hidden_layers or config.embedding_dim < WIDE
    return 1 if small else available


@cache
def default_thread_count() -> int:
    """Return the number of threads PyTorch starts with; call it before changing that number."""
    return torch.get_num_threads()
