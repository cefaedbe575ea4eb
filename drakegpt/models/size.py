"""How large a model is, counted from its real modules before it is built.

All blocks of a model are alike, so two models without memory for their weights,
of one block and of two, tell the size of any depth at once.
"""

from collections import Counter
from dataclasses import replace

from drakegpt.config import ModelConfig
from drakegpt.models.layers import LanguageModel
from drakegpt.models.registry import build_model, without_weights

# What Python keeps of a module beside its weights, at the very least, in bytes.
MODULE_BYTES = 1024


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters of each component of the real model, in the order of the model.

    A component is a module of the model by its name in the code; those of
    all blocks are added up. The sum of the values is the model's size.
    """
    one, two = (_components(_empty(config, depth)) for depth in (1, 2))
    return {name: n + (config.num_layers - 1) * (two[name] - n) for name, n in one.items()}


def count_total_parameters(config: ModelConfig) -> int:
    """Parameters of the whole model."""
    return sum(count_parameters(config).values())


def estimate_module_bytes(config: ModelConfig) -> int:
    """Memory that a model's modules take beside its weights, at least."""
    one, two = (sum(1 for _ in _empty(config, depth).modules()) for depth in (1, 2))
    return MODULE_BYTES * (one + (config.num_layers - 1) * (two - one))


def count_blocks(config: ModelConfig) -> int:
    """How many blocks the model has; 0 for one that has none, whatever `num_layers` says."""
    one, two = (sum(1 for _ in _empty(config, depth).modules()) for depth in (1, 2))
    return config.num_layers if two > one else 0


def _components(model: LanguageModel) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        path = [part for part in name.split(".")[:-1] if part != "blocks" and not part.isdigit()]
        counts[".".join(path)] += parameter.numel()
    return counts


def _empty(config: ModelConfig, depth: int) -> LanguageModel:
    """The model with so many blocks, without memory for its weights."""
    with without_weights():
        return build_model(replace(config, num_layers=depth))
