"""A pretrained model, from a run or from a weights file.

The metadata of a weights file holds the model's settings and the tokenizer, so that it can
be used without its run. They are checked, as all data from outside is.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from drakegpt.config import LARGEST_SIZE, MODEL_NAMES, ModelConfig, has_odd_heads, uneven_heads
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.data.tokenizers.load import tokenizer_from_json
from drakegpt.errors import RunError, UsageError, shorten
from drakegpt.files import parse_json
from drakegpt.models.layers import LanguageModel
from drakegpt.models.packed_linear import Packing
from drakegpt.runs.checkpoint import load_weights
from drakegpt.runs.inference import load_for_inference
from drakegpt.runs.run import Run


@dataclass(frozen=True)
class PretrainedModel:
    """A model that can be loaded, and its tokenizer."""

    name: str
    path: Path  # the run's folder, or the file
    model: str
    size: str
    data: str
    tokenizer: Tokenizer
    _load: Callable[..., LanguageModel]

    def load_model(self, device: torch.device, *, best: bool = False) -> LanguageModel:
        """Load the model onto `device`, in evaluation mode; `best` only for a run."""
        return self._load(device, best=best)


def pretrained_from_run(run: Run) -> PretrainedModel:
    """Return the pretrained model of a run."""
    config = run.config
    about = (config.model, config.size, config.data)
    return PretrainedModel(f"run {run.name}", run.folder, *about, run.tokenizer, run.load_model)


def pretrained_from_file(path: Path) -> PretrainedModel:
    """Read the pretrained model in a weights file; `RunError` if its metadata is not valid."""
    tensors, metadata = load_weights(path)
    try:
        tokenizer = tokenizer_from_json(metadata["tokenizer"])
        config = _parse_model_config(metadata["model"])
        packed = parse_json(metadata["packed"]) if "packed" in metadata else None
        packing = Packing(packed["bits"], packed["trained"]) if packed else None
        if config.vocab_size != tokenizer.vocab_size:
            raise ValueError("its model and its tokenizer differ in vocabulary size")
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"The metadata of {path} does not describe a model: {error}.",
            "Name a weights.safetensors or best.safetensors from a run of drakegpt.",
        ) from error
    load = partial(_load_model, path, config, tensors, packing)
    data = str(metadata.get("dataset", ""))
    return PretrainedModel(
        f"the weights in {path}", path, config.model, "default", data, tokenizer, load
    )


def _parse_model_config(text: str) -> ModelConfig:
    """Parse a model's settings; raises `ValueError` if one has the wrong type or range."""
    try:
        config = TypeAdapter(ModelConfig).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(f"{place}{first['msg']}") from error
    if unknown := set(parse_json(text)) - {field.name for field in fields(ModelConfig)}:
        raise ValueError(f"{unknown.pop()} is not a setting of a model")
    if config.model not in MODEL_NAMES:
        raise ValueError(f"there is no model named {shorten(config.model)}")
    sizes = (
        config.vocab_size,
        config.context_length,
        config.embedding_dim,
        config.num_heads,
        config.num_layers,
    )
    dropouts = (config.dropout, config.token_dropout, config.embedding_dropout)
    if min(sizes) < 1 or max(sizes) > LARGEST_SIZE or not 0 <= min(dropouts) <= max(dropouts) < 1:
        raise ValueError("dimensions out of range")
    if uneven_heads(config) or has_odd_heads(config):
        raise ValueError("embedding_dim cannot be split over num_heads")
    return config


def _load_model(
    path: Path,
    config: ModelConfig,
    tensors: dict[str, torch.Tensor],
    packing: Packing | None,
    device: torch.device,
    *,
    best: bool,
) -> LanguageModel:
    if best:
        raise UsageError(
            f"{path} holds one set of weights.", "Leave --best out, or name best.safetensors."
        )

    def explain(error: Exception) -> RunError:
        return RunError(
            f"The weights in {path} do not match its metadata: {error}.",
            "The file was changed; take another copy.",
        )

    return load_for_inference(config, tensors, packing, device, explain)
