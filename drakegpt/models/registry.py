"""The models by name, and how to build one from its configuration."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from drakegpt.config import ModelConfig
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
    """Build the model that `config` describes, with randomly initialized weights, on the CPU."""
    model = MODELS[config.model](config)
    if config.model == "TransformerLM" and not config.final_norm:
        model.final_norm = nn.Identity()
    if config.bits != "full":
        quantize_(model, config.bits)
    return model


@contextmanager
def without_weights() -> Iterator[None]:
    """Build models on the meta device: they take no memory and use no random numbers."""
    with torch.device("meta"), _SkipInitialization():
        yield


class _SkipInitialization(TorchFunctionMode):
    """Skip `torch.nn.init`: on the meta device it would load PyTorch's compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))
