"""Takes the weights that a run starts from out of another run, instead of random ones.

They are copied into the new run's folder when it is made, so that it can be trained
again, or resumed, without the other run.
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

# These must be equal in both runs; how weights are quantized, and dropout, may differ.
SHAPE = (
    "model", "context_length", "embedding_dim", "num_heads", "num_layers", "tie_embeddings",
    "positions",
)  # fmt: skip


def load_init_weights(source: Run, config: TrainConfig, data: Dataset) -> dict[str, Tensor]:
    """Load the last weights of `source`, after checking that a run of `config` can take them.

    A low-bit run can start from one in full precision. Raises `UsageError` that names
    what does not fit.
    """
    for name in SHAPE:
        theirs, ours = getattr(source.config, name), getattr(config, name)
        if theirs != ours:
            flag = "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
            raise _explain_misfit(
                source, f"its {name} is {theirs}, not {ours}", f"Give {flag} {theirs}."
            )
    if source.tokenizer.to_json() != data.tokenizer.to_json():
        fix = f"Train on '{source.config.data}', or on a text with exactly the same characters."
        raise _explain_misfit(source, f"its vocabulary is not that of '{data.name}'", fix)
    if source.derived == "packed":
        fix = f"Take the run that it was made from: {source.info['packed']['from']}."
        raise _explain_misfit(source, "its weights are packed", fix)
    weights, _ = load_weights(source.last_checkpoint().weights)
    try:
        load_into_(build_model(config.model_settings(data.tokenizer.vocab_size)), weights)
    except ValueError as error:
        fix = "Take a run in full precision, trained here."
        raise _explain_misfit(source, str(error), fix) from error
    return weights


def load_into_(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Copy `weights` into `model`; the norms that only low-bit layers have keep their values.

    Returns `model`. Raises `ValueError` if any other parameter is missing or left over.
    """
    added = {
        f"{name}.norm.{parameter}"
        for name, layer in model.named_modules()
        if isinstance(layer, BitLinear)
        for parameter, _ in layer.norm.named_parameters()
    }
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # a shape differs
        raise ValueError(str(error).splitlines()[-1].strip().rstrip(".")) from error
    if wrong := [*sorted(set(missing) - added), *unexpected]:
        raise ValueError(f"parameter {wrong[0]} does not match")
    return model


def _explain_misfit(source: Run, why: str, fix: str) -> UsageError:
    return UsageError(f"Cannot initialize from {source.name}: {why}.", fix)
