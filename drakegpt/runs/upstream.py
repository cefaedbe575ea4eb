"""A checkpoint of the original DrakeGPT scripts as a run of its own.

Those files are bare state dicts: weights, no vocabulary. The dataset named
gives the vocabulary, the shapes must fit the model, and nothing in the file is
ever executed.
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

from drakegpt.config import TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.errors import UsageError, is_out_of_memory
from drakegpt.models.load import load_model
from drakegpt.runs.checkpoint import save_checkpoint
from drakegpt.runs.create import create_run
from drakegpt.runs.run import Run
from drakegpt.runs.upstream_weights import convert

_FIX = "Name a file that the original wrote with torch.save(model.state_dict(), …)."


def import_original(file: Path, config: TrainConfig, data: Dataset, name: str | None) -> Run:
    """Turn `file` into a run that can be scored, compared and let write.

    Its TransformerLM leaves the final norm out, as the original's did. Raises
    `UsageError` that names what does not fit; no run is made then.
    """
    tensors = read_state_dict(file)
    model_config = config.model_settings(data.tokenizer.vocab_size)
    _check_kind(tensors)
    model_config = replace(model_config, final_norm=False)
    weights = convert(tensors, model_config)
    _check_finite(file, weights)
    try:
        load_model(model_config, weights)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{file} does not fit a {config.model}: {error}.", _FIX) from error
    with file.open("rb") as content:
        checksum = hashlib.file_digest(content, "sha256").hexdigest()
    origin = {"imported_from": str(file.resolve()), "imported_sha256": checksum}

    def save(run: Run) -> None:
        """The weights, before the run takes its name."""
        save_checkpoint(run.folder / "checkpoints", 0, weights, {}, run.describe_weights(0))

    return create_run(config, data, name, facts={**origin, "final_norm": False}, fill=save)


def _check_kind(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not as the original kept its weights: dense, float32, with values."""
    for name, tensor in tensors.items():
        kind = "without values" if tensor.is_meta else str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided:
            kind = "sparse"
        if kind != "float32":
            raise UsageError(f"{name} in the checkpoint is {kind}, not dense float32.", _FIX)


def _check_finite(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no numbers: every loss of theirs would be none either."""
    wrong = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if wrong:
        raise UsageError(
            f"{file} holds weights that are not finite, in {wrong[0]}: its training had diverged.",
            "Import an earlier checkpoint.",
        )


def read_state_dict(file: Path) -> Mapping[str, Tensor]:
    """The tensors of a `.pt` or `.safetensors` file by name, read as data only."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        if is_out_of_memory(error):
            raise
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.", _FIX) from error
    except (pickle.UnpicklingError, SafetensorError) as error:
        raise UsageError(f"{file} is no file of plain tensors, or it is damaged.", _FIX) from error
    except Exception as error:  # torch meets damaged files with many kinds of exception
        if is_out_of_memory(error):
            raise
        raise UsageError(f"{file} is damaged ({type(error).__name__}).", _FIX) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise UsageError(f"{file} holds something other than tensors by name.", _FIX)
    return content
