"""The weights that a run starts from when they are not drawn by chance: those of another run.

They are copied into the new run's folder when it is made, so it can be trained
again, or gone on with, whatever becomes of the other.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from drakegpt.config import TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.errors import UsageError
from drakegpt.models.bitlinear import BitLinear
from drakegpt.models.registry import build_model
from drakegpt.runs.checkpoint import load_weights
from drakegpt.runs.run import Run

# What may differ between the two: how weights are rounded and dropped, not their shapes.
SHAPE = ("model", "context_length", "embedding_dim", "num_heads", "num_layers", "tie_embeddings")


def load_init_weights(start: Run, config: TrainConfig, data: Dataset) -> dict[str, Tensor]:
    """The last weights of `start`, once it is known that a run of `config` can begin with them.

    From a run in full precision one of few bits can begin. Raises `UsageError`
    that names what does not fit.
    """
    for name in SHAPE:
        theirs, ours = getattr(start.config, name), getattr(config, name)
        if theirs != ours:
            flag = "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
            raise _misfit(start, f"its {name} is {theirs}, not {ours}", f"Give {flag} {theirs}.")
    if start.tokenizer.to_json() != data.tokenizer.to_json():
        fix = f"Train on '{start.config.data}', or on a text of the very same characters."
        raise _misfit(start, f"its vocabulary is not that of '{data.name}'", fix)
    if start.derived == "packed":
        fix = f"Take the run that it was made from: {start.info['packed']['from']}."
        raise _misfit(start, "its weights are packed", fix)
    weights, _ = load_weights(start.last_checkpoint().weights)
    try:
        load_into_(build_model(config.model_settings(data.tokenizer.vocab_size)), weights)
    except ValueError as error:
        fix = "Take a run in full precision, trained here."
        raise _misfit(start, str(error), fix) from error
    return weights


def load_into_(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Give `model` these weights in place; norms that come with few bits begin as new.

    Returns `model`. Raises `ValueError` if anything else is missing or left over.
    """
    added = {
        f"{name}.norm.{parameter}"
        for name, layer in model.named_modules()
        if isinstance(layer, BitLinear)
        for parameter, _ in layer.norm.named_parameters()
    }
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # of other shapes
        raise ValueError(str(error).splitlines()[-1].strip().rstrip(".")) from error
    if wrong := [*sorted(set(missing) - added), *unexpected]:
        raise ValueError(f"they differ in {wrong[0]}")
    return model


def _misfit(start: Run, why: str, fix: str) -> UsageError:
    return UsageError(f"A run cannot begin with the weights of {start.name}: {why}.", fix)
