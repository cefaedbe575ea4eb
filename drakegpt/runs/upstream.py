"""Imports a checkpoint of the original DrakeGPT scripts as a run.

Such a file is a bare state dict: weights, no vocabulary. The dataset that is named gives
the vocabulary, the shapes must fit the model, and nothing in the file is executed.

The original keeps a query, a key and a value matrix per head, where the ladder has one
matrix for all. `convert_state_dict` renames and joins them.
"""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from drakegpt.config import ModelConfig, TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.errors import UsageError, is_out_of_memory
from drakegpt.models.load import load_model
from drakegpt.runs.checkpoint import save_checkpoint
from drakegpt.runs.create import create_run
from drakegpt.runs.run import Run

Shapes = dict[str, tuple[int, ...]]

_FIX = "Name a file that the original wrote with torch.save(model.state_dict(), …)."

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


def import_original(file: Path, config: TrainConfig, data: Dataset, name: str | None) -> Run:
    """Make a run of the weights in `file`, to score, compare and generate with.

    Its TransformerLM has no final norm, as the original's had none in effect. Raises
    `UsageError` that names what does not fit; no run is made then.
    """
    tensors = read_state_dict(file)
    model_config = config.model_settings(data.tokenizer.vocab_size)
    _check_dense_float32(tensors)
    model_config = replace(model_config, final_norm=False)
    weights = convert_state_dict(tensors, model_config)
    _check_finite(file, weights)
    try:
        load_model(model_config, weights)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{file} does not fit a {config.model}: {error}.", _FIX) from error
    with file.open("rb") as content:
        checksum = hashlib.file_digest(content, "sha256").hexdigest()
    facts = {"imported_from": str(file.resolve()), "imported_sha256": checksum, "final_norm": False}

    def save(run: Run) -> None:
        """Write the weights, before the run takes its name."""
        save_checkpoint(run.folder / "checkpoints", 0, weights, {}, run.describe_weights(0))

    return create_run(config, data, name, facts=facts, fill=save)


def read_state_dict(file: Path) -> Mapping[str, Tensor]:
    """Read the tensors of a `.pt` or `.safetensors` file by name, without executing anything."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        if is_out_of_memory(error):
            raise
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.", _FIX) from error
    except (pickle.UnpicklingError, SafetensorError) as error:
        problem = f"{file} is not a file of plain tensors, or it is damaged."
        raise UsageError(problem, _FIX) from error
    except Exception as error:  # torch raises many kinds of exception for damaged files
        if is_out_of_memory(error):
            raise
        raise UsageError(f"{file} is damaged ({type(error).__name__}).", _FIX) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise UsageError(f"{file} holds something other than tensors by name.", _FIX)
    return content


def convert_state_dict(original: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the state dict with which the model of `config` computes what the original does.

    The final norm is left out: the original builds one and never applies it. Raises
    `UsageError` that names the keys or shapes that do not fit the model.
    """
    weights = {
        name: tensor
        for name, tensor in original.items()
        if not name.endswith(".tril") and not name.startswith("ln_f.")
    }
    _check_shapes(weights, _list_shapes(config), config.model)
    converted = {}
    for heads in _list_heads(config):
        prefix = next(iter(heads)).partition("sa_head.")[0]
        joined = torch.cat([weights.pop(name) for name in heads])
        converted[f"{prefix}attention.query_key_value.weight"] = joined
    for name, tensor in weights.items():
        converted[_rename(name, config)] = tensor
    return converted


def _list_shapes(config: ModelConfig) -> Shapes:
    """List the original's weights and their shapes, but for masks and the unused final norm."""
    V, C, T = config.vocab_size, config.embedding_dim, config.context_length
    if config.model == "BigramLM":
        return {"token_embedding_table.weight": (V, V)}
    shapes: Shapes = {
        "token_embedding_table.weight": (V, C),
        "position_embedding_table.weight": (T, C),
        "lm_head.weight": (V, C),
        "lm_head.bias": (V,),
    }
    shapes |= {name: shape for heads in _list_heads(config) for name, shape in heads.items()}
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


def _list_heads(config: ModelConfig) -> list[Shapes]:
    """List each attention's matrices, in the order in which they are joined."""
    C, H = config.embedding_dim, config.num_heads
    roles = ("query", "key", "value")
    if config.model == "BigramLM":
        return []
    if config.model == "SingleHeadAttentionLM":
        return [{f"sa_head.{role}.weight": (C, C) for role in roles}]
    has_blocks = config.model != "MultiHeadAttentionLM"
    prefixes = [f"blocks.{block}." for block in range(config.num_layers)] if has_blocks else [""]
    return [
        {
            f"{prefix}sa_head.heads.{head}.{role}.weight": (C // H, C)
            for role in roles
            for head in range(H)
        }
        for prefix in prefixes
    ]


def _rename(name: str, config: ModelConfig) -> str:
    """Return the ladder's name for a weight of the original."""
    if config.model == "BigramLM":
        return name.replace("token_embedding_table", "table")
    if config.model == "BlocksLM":
        name = name.replace("ffwd.net.0", "feed_forward")
    for theirs, ours in _RENAMED.items():
        name = name.replace(f"{theirs}.", f"{ours}.")
    return name


def _check_dense_float32(tensors: Mapping[str, Tensor]) -> None:
    """Raise `UsageError` for tensors that the original cannot have saved."""
    for name, tensor in tensors.items():
        kind = "without values" if tensor.is_meta else str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided:
            kind = "sparse"
        if kind != "float32":
            raise UsageError(f"{name} in the checkpoint is {kind}, not dense float32.", _FIX)


def _check_finite(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise `UsageError` for weights that are not finite: every loss would be NaN."""
    wrong = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if wrong:
        raise UsageError(
            f"{file} holds weights that are not finite, in {wrong[0]}: its training had diverged.",
            "Import an earlier checkpoint.",
        )


def _check_shapes(weights: Mapping[str, Tensor], expected: Shapes, model: str) -> None:
    """Raise `UsageError` if names or shapes are not those of the original's model."""
    fix = "Check --model, --scaled and --data: they must be those of the checkpoint."
    missing = sorted(expected.keys() - weights.keys())
    unexpected = sorted(weights.keys() - expected.keys())
    if missing or unexpected:
        lacks = f" It lacks {_list_some(missing)}." if missing else ""
        extra = f" It has {_list_some(unexpected)}, which that model lacks." if unexpected else ""
        raise UsageError(f"The checkpoint is not of a {model}.{lacks}{extra}", fix)
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise UsageError(
                f"{name} has shape {tuple(weights[name].shape)} in the checkpoint; "
                f"a {model} of this size and vocabulary has {shape}.",
                fix,
            )


def _list_some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
