"""Whoever can write: a run, or a file of weights that was taken out of one.

A weights file says of itself what model and which tokenizer it belongs to, so
it can be used anywhere; what it says is data from outside, and checked.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from drakegpt.config import LARGEST_SIZE, ModelConfig, uneven_heads
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.data.tokenizers.load import tokenizer_from_json
from drakegpt.errors import RunError, UsageError, is_out_of_memory
from drakegpt.files import parse_json
from drakegpt.models.layers import LanguageModel
from drakegpt.models.load import load_model
from drakegpt.models.packed_linear import Packing, pack_
from drakegpt.models.registry import choose_threads
from drakegpt.runs.checkpoint import load_weights
from drakegpt.runs.run import Run


@dataclass(frozen=True)
class PretrainedModel:
    """A model that can be loaded, and the tokenizer that goes with it."""

    name: str
    path: Path  # the run's folder, or the file
    model: str
    size: str
    data: str
    tokenizer: Tokenizer
    _load: Callable[..., LanguageModel]

    def load_model(self, device: torch.device, *, best: bool = False) -> LanguageModel:
        """The model on `device`, ready to write; a run's at its `best`, if asked."""
        return self._load(device, best=best)


def pretrained_from_run(run: Run) -> PretrainedModel:
    """The author that is a run."""
    config = run.config
    about = (config.model, config.size, config.data)
    return PretrainedModel(f"run {run.name}", run.folder, *about, run.tokenizer, run.load_model)


def pretrained_from_file(path: Path) -> PretrainedModel:
    """The author in a weights file; raises `RunError` if it does not say what it is."""
    tensors, metadata = load_weights(path)
    try:
        tokenizer = tokenizer_from_json(metadata["tokenizer"])
        config = _checked(metadata["model"])
        packed = parse_json(metadata["packed"]) if "packed" in metadata else None
        packing = Packing(packed["bits"], packed["trained"]) if packed else None
        if config.vocab_size != tokenizer.vocab_size:
            raise ValueError("its model and its tokenizer are of different size")
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"{path} does not say which model it belongs to: {error}.",
            "Name a weights.safetensors or best.safetensors from a run of this program.",
        ) from error
    load = partial(_loaded, path, config, tensors, packing)
    data = str(metadata.get("dataset", ""))
    return PretrainedModel(
        f"the weights in {path}", path, config.model, "default", data, tokenizer, load
    )


def _checked(text: str) -> ModelConfig:
    """The model's settings, if they are of the right kinds and make sense."""
    try:
        config = TypeAdapter(ModelConfig).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(f"{place}{first['msg']}") from error
    if strange := set(parse_json(text)) - {field.name for field in fields(ModelConfig)}:
        raise ValueError(f"{strange.pop()} is no setting of a model")
    sizes = (
        config.vocab_size,
        config.context_length,
        config.embedding_dim,
        config.num_heads,
        config.num_layers,
    )
    if min(sizes) < 1 or max(sizes) > LARGEST_SIZE or not 0 <= config.dropout < 1:
        raise ValueError("a model of such a size cannot be")
    if uneven_heads(config):
        raise ValueError("its width cannot be split evenly over its heads")
    return config


def _loaded(
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
    choose_threads(config)
    try:
        model = load_model(config, tensors, packing)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise RunError(
            f"The weights in {path} do not fit what it says of itself: {error}.",
            "The file was changed; take another copy.",
        ) from error
    if config.bits != "full" and not packing:
        pack_(model)
    return model.to(device)
