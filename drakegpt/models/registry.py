"""From a configuration to a model, and from a device's name to the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from drakegpt.config import ModelConfig
from drakegpt.config.presets import WIDE
from drakegpt.errors import UsageError
from drakegpt.models import ladder
from drakegpt.models.bitlinear import quantize_
from drakegpt.models.gpt1 import GPT1LM
from drakegpt.models.layers import LanguageModel

MODELS: dict[str, type[LanguageModel]] = {
    model.__name__: model
    for model in (
        ladder.BigramLM,
        ladder.SingleHeadAttentionLM,
        ladder.MultiHeadAttentionLM,
        ladder.BlocksLM,
        ladder.ResidualBlocksLM,
        ladder.TransformerLM,
        GPT1LM,
    )
}


def build_model(config: ModelConfig) -> LanguageModel:
    """The model that `config` describes, with new weights: PyTorch's default, or its own."""
    model = MODELS[config.model](config)
    if config.model == "TransformerLM" and not config.final_norm:
        model.final_norm = nn.Identity()
    if config.bits != "full":
        quantize_(model, config.bits)
    return model


@contextmanager
def without_weights() -> Iterator[None]:
    """Models made within have shapes alone: no memory, and nothing drawn at random."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Initial weights stay undrawn: to draw them without memory, PyTorch loads its compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `mps` into a device; raises `UsageError` if it is not here."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, here in available.items() if here)
    if not available[name]:
        here = ", ".join(kind for kind, is_here in available.items() if is_here)
        wrong_build = name == "cuda" and torch.version.cuda is None
        other = "; https://pytorch.org has builds for NVIDIA's GPUs" if wrong_build else ""
        raise UsageError(
            f"There is no {name} device that this PyTorch ({torch.__version__}) can use.",
            f"Take --device auto, or one that is here: {here}{other}.",
        )
    return torch.device(name)


def choose_threads(config: ModelConfig) -> None:
    """Set PyTorch's number of threads for a model of this size."""
    torch.set_num_threads(threads_for(config))


def threads_for(config: ModelConfig) -> int:
    """On how many threads a model is the quickest: on one if it is small.

    Below some width the arithmetic of a layer is so small that handing parts of
    it to other threads costs more than they save.
    """
    everything = processors()
    small = config.model == "BigramLM" or config.embedding_dim < WIDE
    return 1 if small else everything


@cache
def processors() -> int:
    """The threads that PyTorch starts with, asked before that is changed for the first time."""
    return torch.get_num_threads()
