"""Weights of the original DrakeGPT scripts, renamed and joined to fit the ladder.

The original keeps a query, a key and a value matrix per head; here one matrix
holds them all. Its names are on the left, those of `ladder` on the right:

    token_embedding_table         embedding.token (BigramLM: table)
    position_embedding_table      embedding.position
    sa_head(.heads.H).query/...   attention.query_key_value
    sa_head.proj                  projection
    ffwd.net.0  ffwd.net.2        feed_forward (BlocksLM), or .widen and .narrow
    ln1  ln2                      attention_norm  feed_forward_norm
    lm_head                       head

Not here: reading files.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from drakegpt.config import ModelConfig
from drakegpt.errors import UsageError
from drakegpt.models.build import build_model

_NAMES = (
    (r"^token_embedding_table\.", "embedding.token."),
    (r"^position_embedding_table\.", "embedding.position."),
    (r"^lm_head\.", "head."),
    (r"\bsa_head\.proj\.", "projection."),
    (r"\bffwd\.net\.0\.", "feed_forward.widen."),
    (r"\bffwd\.net\.2\.", "feed_forward.narrow."),
    (r"\bln1\.", "attention_norm."),
    (r"\bln2\.", "feed_forward_norm."),
)
_HEAD = re.compile(r"^(.*?)sa_head\.(?:heads\.(\d+)\.)?(query|key|value)\.weight$")


def convert(original: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Rename and join `original` into the state dict of the model of `config`.

    That model, without its final norm, then computes what the original did,
    which built one and never applied it. Masks are left out as well. Raises
    `UsageError` that names the keys or shapes that do not fit the model.
    """
    converted: dict[str, Tensor] = {}
    heads: dict[str, dict[str, dict[int, Tensor]]] = {}
    for key, tensor in original.items():
        if key.endswith(".tril") or key.startswith("ln_f."):
            continue
        if found := _HEAD.match(key):
            place, head, role = found[1], int(found[2] or 0), found[3]
            heads.setdefault(place, {}).setdefault(role, {})[head] = tensor
        else:
            converted[_renamed(key, config)] = tensor
    for place, roles in heads.items():
        matrices = [tensor for r in ("query", "key", "value") for _, tensor in _in_order(roles, r)]
        if any(matrix.dim() != 2 for matrix in matrices):
            raise UsageError(f"{place}sa_head holds something that is no matrix.", _FIX)
        converted[f"{place}attention.query_key_value.weight"] = torch.cat(matrices)
    _check(converted, config)
    return converted


_FIX = "Check --model, --scaled and --data: they must be those of the checkpoint."


def _renamed(key: str, config: ModelConfig) -> str:
    if config.model == "BigramLM":
        return key.replace("token_embedding_table.", "table.")
    if config.model == "BlocksLM":
        key = key.replace("ffwd.net.0.", "feed_forward.")
    for pattern, name in _NAMES:
        key = re.sub(pattern, name, key)
    return key


def _in_order(roles: Mapping[str, Mapping[int, Tensor]], role: str) -> list[tuple[int, Tensor]]:
    return sorted(roles.get(role, {}).items())


def _check(converted: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Compare names and shapes with the model's own, its final norm left aside."""
    with torch.device("meta"):
        model = build_model(replace(config, final_norm=False))
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    missing = ", ".join(sorted(expected.keys() - converted.keys()))
    surplus = ", ".join(sorted(converted.keys() - expected.keys()))
    if missing or surplus:
        lacks = f" It lacks {missing}." if missing else ""
        extra = f" It has {surplus}, which the model has not." if surplus else ""
        raise UsageError(f"The checkpoint is not of a {config.model}.{lacks}{extra}", _FIX)
    for name, shape in expected.items():
        if converted[name].shape != shape:
            raise UsageError(
                f"{name} has shape {tuple(converted[name].shape)} in the checkpoint "
                f"and {tuple(shape)} in the model.",
                _FIX,
            )
