"""Starts a new run: resolves its settings, finds its initial weights, makes its folder.

This is the one place where settings become final: epochs become iterations, minutes a first
estimate of them,
a trial may choose bfloat16 on a CPU, and the dropout of recipes `fast` and `best` is set by how
often the text is read, so that the same settings give the same run on any machine.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from drakegpt.config import TrainConfig, resolve
from drakegpt.config.presets import PRESETS, choose_dropout
from drakegpt.data.dataset import Dataset
from drakegpt.errors import UsageError
from drakegpt.models.size import count_total_parameters
from drakegpt.runs.create import create_run
from drakegpt.runs.lookup import find_run
from drakegpt.runs.run import Run
from drakegpt.runs.warm_start import load_init_weights
from drakegpt.training.dtype_trial import choose_run_dtype
from drakegpt.training.memory import check_memory
from drakegpt.training.run_length import resolve_length


def resolve_run(
    model: str,
    size: str,
    data: Dataset,
    *layers: Mapping[str, Any],
    first_estimate: int | None = None,
) -> TrainConfig:
    """Resolve the settings of a new run on `data`, with its length in iterations.

    Later layers win, as in `config.resolve`. `first_estimate`: the iterations of a run with a
    time, where they need not be measured. Raises `UsageError` for settings that are not valid,
    or for epochs or minutes beside a number of iterations; `CorpusError` for a dataset that is
    too short for the context.
    """
    config = resolve(model, size, data.name, *layers)
    other = "epochs" if config.epochs else "minutes" if config.minutes else ""
    if other and any(layer.get("iters") for layer in layers):
        raise UsageError(f"{other} and iters both set the length of a run.", "Give one of them.")
    if (dtype := choose_run_dtype(config, data.tokenizer.vocab_size)) != config.dtype:
        layers = *layers, {"dtype": dtype}
        config = resolve(model, size, data.name, *layers)

    def at_length(iters: int) -> TrainConfig:
        return resolve(model, size, data.name, *layers, {"iters": iters})

    length = {"iters": first_estimate} if first_estimate else None
    length = length or resolve_length(config, data, at_length)
    if length:
        config = resolve(model, size, data.name, *layers, length)
    tokens, _ = data.select_splits(tail=config.holds_out_tail)
    parameters = count_total_parameters(config.model_settings(data.tokenizer.vocab_size))
    dropout = choose_dropout(asdict(config), len(tokens), parameters)
    for name in PRESETS[config.preset].settings if config.preset in PRESETS else ():
        dropout.pop(name, None)
    return resolve(model, size, data.name, dropout, *layers, length)


def start_run(
    config: TrainConfig,
    data: Dataset,
    name: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Run:
    """Make the folder of a new run, with the weights of the run `config.init_from`, if any.

    `facts` are added to run.json.

    Raises `NotEnoughMemoryError` if training would not fit in memory, and what
    `find_run`, `load_init_weights` and `create_run` raise.
    """
    check_memory(config, data)
    if not config.init_from:
        return create_run(config, data, name, facts=facts)
    source = find_run(config.init_from)
    initial = load_init_weights(source, config, data)
    config = replace(config, init_from=source.name)
    return create_run(config, data, name, facts=facts, initial=initial)
