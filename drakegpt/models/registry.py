"""The models by name, and how to build one from its configuration."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from drakegpt.config import ModelConfig, add_model
from drakegpt.config.model_facts import ModelFacts
from drakegpt.models import ladder
from drakegpt.models.bitlinear import quantize_
from drakegpt.models.gpt1 import GPT1LM
from drakegpt.models.layers import LanguageModel, use_rotary_positions_

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


def register(model: type[LanguageModel], *, on_ladder: bool = False) -> type[LanguageModel]:
    """Make a model of one's own known by its class's name, wherever models are named.

    With `on_ladder` it is compared with the others, as the last of the ladder. Works as
    a decorator too. Processes of their own do not know it: runs are then trained one by one.
    """
    if model.__name__ in MODELS:
        raise ValueError(f"There is a model named {model.__name__} already.")
    facts = {field.name: getattr(model, field.name) for field in fields(ModelFacts)}
    MODELS[model.__name__] = model
    add_model(model.__name__, ModelFacts(**facts), on_ladder=on_ladder)
    return model


def is_built_in(name: str) -> bool:
    """Tell whether a model comes with drakegpt, so that every process knows it."""
    return MODELS[name].__module__.startswith("drakegpt.")


def build_model(config: ModelConfig) -> LanguageModel:
    """Build the model that `config` describes, with randomly initialized weights, on the CPU."""
    model = MODELS[config.model](config)
    if config.model == "TransformerLM" and not config.final_norm:
        model.final_norm = nn.Identity()
    if config.positions == "rotary":
        use_rotary_positions_(model)
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
