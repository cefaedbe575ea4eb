"""Packs a trained run: a new run with the same weights in 8, 1.58 or 1 bit each.

A run that was trained with low-bit weights is packed exactly and computes what it
computed before. Full-precision weights are quantized here, after training, which costs
quality; `drakegpt eval` measures how much.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from drakegpt.config.schema import PackedBits
from drakegpt.errors import RunError, UsageError
from drakegpt.models.load import load_model
from drakegpt.models.packed_linear import pack_, quantize_after_training_
from drakegpt.runs.checkpoint import load_weights, save_checkpoint
from drakegpt.runs.create import create_run
from drakegpt.runs.run import Run, describe_mismatch
from drakegpt.wording import format_command

# What a packed run keeps of the run.json of the run it was made from.
KEPT_FACTS = ("final_norm", "imported_from", "imported_sha256", "changes")


def pack_run(run: Run, bits: PackedBits, name: str | None = None) -> Run:
    """Make a new run whose weights are those of `run`, packed in `bits` bits each.

    Raises `UsageError` if `run` is packed already, was trained with other bits or has no
    layers to pack, or if `name` is taken; `RunError` if its weights do not fit its
    settings or are not finite.
    """
    trained = run.config.bits
    if "packed" in run.info:
        raise UsageError(f"{run.name} is packed already.", "Take the run that it was made from.")
    if trained not in ("full", bits):
        raise UsageError(
            f"{run.name} was trained with {trained} bits and cannot be packed in {bits}.",
            f"Pack it as it is: `{format_command('export packed', run.name, bits=trained)}`.",
        )
    checkpoint = run.last_checkpoint()
    weights, _ = load_weights(checkpoint.weights)
    state = _pack_weights(run, weights, bits)
    if wrong := [key for key, t in state.items() if not t.float().isfinite().all()]:
        problem = f"The weights of {run.name} are not finite, in {wrong[0]}."
        raise RunError(problem, "Train again with a lower --max-lr.")
    packed = {"bits": bits, "trained": trained == bits, "from": run.name}
    facts = {key: run.info[key] for key in KEPT_FACTS if key in run.info} | {"packed": packed}

    def save(made: Run) -> None:
        """Write the packed weights, before the run takes its name."""
        metadata = made.describe_weights(checkpoint.iteration) | {"packed": json.dumps(packed)}
        save_checkpoint(made.folder / "checkpoints", checkpoint.iteration, state, {}, metadata)

    config = replace(run.config, device="auto")  # `run` may have been trained on another machine
    name = name or f"{run.name}_packed_{bits}bit"
    return create_run(config, run.load_dataset(), name, facts=facts, fill=save)


def _pack_weights(run: Run, weights: Mapping[str, Tensor], bits: PackedBits) -> dict[str, Any]:
    """Pack weights exactly if they were trained with these bits, else quantize them."""
    try:
        model = load_model(run.model_config, weights)
    except ValueError as error:
        raise describe_mismatch(run, error) from error
    try:
        exactly = run.config.bits == bits
        packed = pack_(model) if exactly else quantize_after_training_(model, bits)
    except ValueError as error:
        fix = "Take a run of a model with blocks."
        raise UsageError(f"{run.name} cannot be packed: {error}.", fix) from error
    return packed.state_dict()
