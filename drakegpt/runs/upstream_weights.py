"""Weights of the original DrakeGPT scripts, made to fit the ladder.

The original keeps a query, a key and a value matrix per head; here one matrix
holds them all. `layout` lists what its checkpoints hold, `convert` renames and
joins it.

Not here: reading files.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from drakegpt.config import ModelConfig
from drakegpt.errors import UsageError

Shapes = dict[str, tuple[int, ...]]

# Names of the original, and of `ladder`, for parts of a block and of the whole model.
_RENAMED = {
    "token_embedding_table": "embedding.token",
    "position_embedding_table": "embedding.position",
    "lm_head": "head",
    "sa_head.proj": "projection",
    "ffwd.net.0": "feed_forward.widen",
    "ffwd.net.2": "feed_forward.narrow",
    "ln1": "attention_norm",
    "ln2": "feed_forward_norm",
}


def layout(config: ModelConfig) -> Shapes:
    """Names and shapes of the original's weights, without masks and the unused final norm."""
    V, C, T = config.vocab_size, config.embedding_dim, config.context_length
    if config.model == "BigramLM":
        return {"token_embedding_table.weight": (V, V)}
    shapes: Shapes = {
        "token_embedding_table.weight": (V, C),
        "position_embedding_table.weight": (T, C),
        "lm_head.weight": (V, C),
        "lm_head.bias": (V,),
    }
    shapes |= {name: shape for heads in _heads(config) for name, shape in heads.items()}
    if config.model in ("SingleHeadAttentionLM", "MultiHeadAttentionLM"):
        return shapes
    for block in range(config.num_layers):
        parts: dict[str, tuple[int, ...]] = {"ffwd.net.0": (C, C)}
        if config.model != "BlocksLM":
            parts = {"sa_head.proj": (C, C), "ffwd.net.0": (4 * C, C), "ffwd.net.2": (C, 4 * C)}
        if config.model == "TransformerLM":
            parts |= {"ln1": (C,), "ln2": (C,)}
        for part, shape in parts.items():
            shapes[f"blocks.{block}.{part}.weight"] = shape
            shapes[f"blocks.{block}.{part}.bias"] = shape[:1]
    return shapes


def convert(original: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The state dict of the model of `config` that computes what `original` computes.

    Its final norm is left out, for the original built one and never applied it.
    Raises `UsageError` that names the keys or shapes that do not fit the model.
    """
    weights = {
        name: tensor
        for name, tensor in original.items()
        if not name.endswith(".tril") and not name.startswith("ln_f.")
    }
    _check(weights, layout(config), config.model)
    converted = {}
    for heads in _heads(config):
        place = next(iter(heads)).partition("sa_head.")[0]
        joined = torch.cat([weights.pop(name) for name in heads])
        converted[f"{place}attention.query_key_value.weight"] = joined
    for name, tensor in weights.items():
        converted[_renamed(name, config)] = tensor
    return converted


def _heads(config: ModelConfig) -> list[Shapes]:
    """For each attention, its matrices in the order in which they are joined."""
    C, H = config.embedding_dim, config.num_heads
    roles = ("query", "key", "value")
    if config.model == "BigramLM":
        return []
    if config.model == "SingleHeadAttentionLM":
        return [{f"sa_head.{role}.weight": (C, C) for role in roles}]
    deep = config.model != "MultiHeadAttentionLM"
    places = [f"blocks.{block}." for block in range(config.num_layers)] if deep else [""]
    return [
        {
            f"{place}sa_head.heads.{head}.{role}.weight": (C // H, C)
            for role in roles
            for head in range(H)
        }
        for place in places
    ]


def _renamed(name: str, config: ModelConfig) -> str:
    if config.model == "BigramLM":
        return name.replace("token_embedding_table", "table")
    if config.model == "BlocksLM":
        name = name.replace("ffwd.net.0", "feed_forward")
    for theirs, ours in _RENAMED.items():
        name = name.replace(f"{theirs}.", f"{ours}.")
    return name


def _check(weights: Mapping[str, Tensor], expected: Shapes, model: str) -> None:
    """Compare names and shapes with those of the original's model."""
    fix = "Check --model, --scaled and --data: they must be those of the checkpoint."
    missing = sorted(expected.keys() - weights.keys())
    surplus = sorted(weights.keys() - expected.keys())
    if missing or surplus:
        lacks = f" It lacks {_some(missing)}." if missing else ""
        extra = f" It has {_some(surplus)}, which that model has not." if surplus else ""
        raise UsageError(f"The checkpoint is not of a {model}.{lacks}{extra}", fix)
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise UsageError(
                f"{name} has shape {tuple(weights[name].shape)} in the checkpoint; "
                f"a {model} of this size and vocabulary has {shape}.",
                fix,
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
