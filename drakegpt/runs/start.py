"""How a run begins: its settings made final, its weights found, its folder made.

Here is the one place where settings become final: epochs and minutes become
iterations, and the `fast` recipe's dropout follows from how often the text is
read, so that the same settings give the same run on any machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from drakegpt.config import TrainConfig, resolve
from drakegpt.config.presets import SYSTEMS, without_dropout
from drakegpt.data.dataset import Dataset
from drakegpt.errors import UsageError
from drakegpt.runs.run import Run, create_run
from drakegpt.runs.warm_start import load_init_weights
from drakegpt.training.memory import check_memory
from drakegpt.training.run_length import resolve_length


def resolve_run(model: str, size: str, data: Dataset, *layers: Mapping[str, Any]) -> TrainConfig:
    """Resolve the settings of a new run on `data`, its length in iterations.

    Later layers win, as in `config.resolve`. Raises `UsageError` for settings that
    cannot be, or for epochs beside a number of iterations; `CorpusError` for a
    dataset too short for the context.
    """
    config = resolve(model, size, data.name, *layers)
    if config.epochs and any(layer.get("iters") for layer in layers):
        raise UsageError("--epochs and --iters both say how long.", "Give one of them.")
    if length := resolve_length(config, data):
        config = resolve(model, size, data.name, *layers, length)
    if not _is_dropout_given(config, layers):
        learnt, _ = data.select_splits(tail=config.holds_out_tail)
        if without_dropout(asdict(config), len(learnt)):
            config = replace(config, dropout=0.0)
    return config


def _is_dropout_given(config: TrainConfig, layers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a layer or the preset of a system says how much is dropped."""
    system = SYSTEMS.get(config.preset)
    named = [*layers, system.settings] if system else layers
    return any(layer.get("dropout") is not None for layer in named)


def start_run(
    config: TrainConfig, data: Dataset, name: str | None = None, *, origin: Run | None = None
) -> Run:
    """Make the folder of a new run, once it is known that it can be trained here.

    `origin` is the run that `config.init_from` names, whose last weights the new
    one starts from. Raises `NotEnoughMemoryError`, and what `create_run` and
    `load_init_weights` raise.
    """
    check_memory(config, data)
    if origin is None:
        return create_run(config, data, name)
    initial = load_init_weights(origin, config, data)
    return create_run(replace(config, init_from=origin.name), data, name, initial=initial)
