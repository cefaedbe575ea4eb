"""From a trained run to one of few bits: packed weights in a run of their own.

A run that was trained with few bits is packed, and computes exactly what it
computed before. Weights in full precision are rounded here, after training,
which costs quality; how much, `drakegpt eval` tells.
"""

import json
from dataclasses import replace
from typing import Any

from drakegpt.errors import RunError, UsageError
from drakegpt.models.load import load_model
from drakegpt.models.packed_linear import PackedBits, pack_, quantize_after_training_
from drakegpt.runs.checkpoint import load_weights, save_checkpoint
from drakegpt.runs.run import Run, create_run, misfit
from drakegpt.wording import format_command


def pack_run(run: Run, bits: PackedBits, name: str | None = None) -> Run:
    """Make a new run whose weights are those of `run`, packed in so many bits each.

    Raises `UsageError` if `run` is packed already or was trained with other bits,
    or if its model has nothing to pack, or if `name` is taken; `RunError` if its
    weights are not those of its settings.
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
    try:
        model = load_model(run.model_config, weights)
    except ValueError as error:
        raise misfit(run, error) from error
    try:
        packed = pack_(model) if trained == bits else quantize_after_training_(model, bits)
    except ValueError as error:
        fix = "Take a run of a model with blocks."
        raise UsageError(f"{run.name} cannot be packed: {error}.", fix) from error
    config = replace(run.config, device="auto")  # it may have been trained on another machine
    how: dict[str, Any] = {"bits": bits, "trained": trained == bits, "from": run.name}
    origin: dict[str, Any] = {
        key: run.info[key]
        for key in ("final_norm", "imported_from", "imported_sha256", "changes")
        if key in run.info
    }
    name = name or f"{run.name}_packed_{bits}bit"
    state = packed.state_dict()
    if wrong := [key for key, t in state.items() if not t.float().isfinite().all()]:
        problem = f"The weights of {run.name} are not finite, in {wrong[0]}."
        raise RunError(problem, "Train anew with a lower --max-lr.")

    def save(made: Run) -> None:
        """The packed weights, before the run takes its name."""
        metadata = made.weights_metadata(checkpoint.iteration) | {"packed": json.dumps(how)}
        save_checkpoint(made.folder / "checkpoints", checkpoint.iteration, state, {}, metadata)

    return create_run(config, run.dataset(), name, facts={**origin, "packed": how}, fill=save)
