"""Count the parameters of a model without building it.

All blocks of a model are equal, so models of one and of two blocks, built on the meta
device, give the size for any number of blocks.
"""

from collections import Counter
from dataclasses import replace

from drakegpt.config import ModelConfig
from drakegpt.models.layers import LanguageModel
from drakegpt.models.registry import build_model, without_weights

# Lower bound of the bytes of a Python module object, without its weights.
MODULE_BYTES = 1024


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Count the parameters of each component of the model, in its order.

    A component is a module, by its name in the code; those of all blocks are added up.
    The values sum to the number of parameters.
    """
    one, two = (_count_by_component(_build_without_weights(config, depth)) for depth in (1, 2))
    return {name: n + (config.num_layers - 1) * (two[name] - n) for name, n in one.items()}


def count_total_parameters(config: ModelConfig) -> int:
    """Count the parameters of the whole model."""
    return sum(count_parameters(config).values())


def estimate_module_bytes(config: ModelConfig) -> int:
    """Return a lower bound of the bytes of a model's module objects, without weights."""
    one, two = (sum(1 for _ in _build_without_weights(config, depth).modules()) for depth in (1, 2))
    return MODULE_BYTES * (one + (config.num_layers - 1) * (two - one))


def count_blocks(config: ModelConfig) -> int:
    """Count the blocks of the model; 0 for a model without blocks."""
    one, two = (sum(1 for _ in _build_without_weights(config, depth).modules()) for depth in (1, 2))
    return config.num_layers if two > one else 0


def _count_by_component(model: LanguageModel) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        path = [part for part in name.split(".")[:-1] if part != "blocks" and not part.isdigit()]
        counts[".".join(path)] += parameter.numel()
    return counts


def _build_without_weights(config: ModelConfig, depth: int) -> LanguageModel:
    """Build the model with `depth` blocks, on the meta device."""
    with without_weights():
        return build_model(replace(config, num_layers=depth))
