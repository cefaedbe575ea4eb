"""What low-bit variants cost: seconds of generation and training, bytes stored and in memory.

All models take turns when they are timed. Memory is measured in a process that loads a
model's file and generates.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from drakegpt.bench.memory import peak_memory
from drakegpt.bench.timing import Times, Workload, measure_in_turns, warm_up
from drakegpt.bench.workloads import ENDLESS, TEXT_LENGTH, consume
from drakegpt.compute.device import set_thread_count
from drakegpt.config import ModelConfig
from drakegpt.data.dataset import Dataset
from drakegpt.files import temporary_folder
from drakegpt.generation.sampling import Sampling, generate_batch
from drakegpt.models.layers import LanguageModel
from drakegpt.models.load import load_model
from drakegpt.models.packed_linear import Packing
from drakegpt.models.registry import build_model
from drakegpt.progress import Progress
from drakegpt.runs.checkpoint import load_weights, save_weights
from drakegpt.runs.run import Run
from drakegpt.training.step_runner import plan_execution
from drakegpt.training.trainer import Trainer

BATCHES = (1, 32)  # texts generated at a time
MEMORY_LENGTH = 64  # tokens generated while memory is measured
ROUNDS = 3
REPETITION = 0.2  # seconds of a turn


def time_generation(
    models: Mapping[str, LanguageModel],
    prompt: list[int],
    device: torch.device,
    progress: Progress,
) -> dict[int, Times]:
    """Time the next token of all texts, for each number of texts in `BATCHES`."""
    workloads, units = [], {}
    for name, model in models.items():
        set_thread_count(model.config)
        for batch in BATCHES:
            work = partial(consume, _generate_endlessly(model, prompt, batch))
            workload = Workload(name, str(batch), torch.get_num_threads(), work)
            # Where the window moves by halves, some characters cost more: whole halves.
            half = max(1, model.config.context_length // 2)
            units[name, str(batch)] = -(-warm_up(workload, device, REPETITION) // half) * half
            workloads.append(workload)
    times = measure_in_turns(workloads, units, ROUNDS, device, progress)
    return {batch: times[str(batch)] for batch in BATCHES}


def time_training_steps(
    runs: Mapping[str, Run], data: Dataset, device: torch.device, progress: Progress
) -> dict[str, float]:
    """Return the seconds of a training step of each run, without evaluations.

    Measured on new models with the settings of the runs.
    """
    workloads, units = [], {}
    for name, run in runs.items():
        set_thread_count(run.model_config)
        compiled = plan_execution(run.config, device).compiled  # of its length, not of ENDLESS
        config = replace(run.config, iters=ENDLESS, eval_interval=ENDLESS, compile=compiled)
        model = build_model(run.model_config).to(device)
        steps = Trainer(config, model, data.split("train"), data.split("val"), device).reports()
        workload = Workload(name, "training", torch.get_num_threads(), partial(consume, steps))
        units[name, "training"] = warm_up(workload, device, REPETITION)
        workloads.append(workload)
    times = measure_in_turns(workloads, units, ROUNDS, device, progress)["training"]
    return {name: times.median(name) for name in runs}


def _generate_endlessly(model: LanguageModel, prompt: list[int], batch: int) -> Iterator[list[int]]:
    """Generate batches of texts without end, each text from a full context on."""
    for first in count(step=batch):
        seeds = range(first, first + batch)
        yield from generate_batch(model, prompt, TEXT_LENGTH, Sampling(), seeds)


def measure_storage(
    name: str,
    model: LanguageModel,
    packing: Packing | None,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[int, int | None]:
    """Return the bytes of a model's file, and the peak memory of loading it and generating."""
    with temporary_folder(Path(tempfile.gettempdir())) as folder:
        file = folder / "weights.safetensors"
        save_weights(file, model.state_dict(), {})
        dtype_name = str(dtype).removeprefix("torch.")
        arguments = [str(file), asdict(model.config), packing and asdict(packing), dtype_name]
        what = f"Generating with weights of {name}"
        return file.stat().st_size, peak_memory(what, load_and_generate, arguments, device)


def load_and_generate(
    file: str,
    config: dict[str, Any],
    packing: dict[str, Any] | None,
    dtype: str,
    device: torch.device,
) -> None:
    """Load a model and generate a few tokens, in the process whose memory is measured."""
    model_config = ModelConfig(**config)
    set_thread_count(model_config)
    weights, _ = load_weights(Path(file))
    packed = Packing(**packing) if packing else None
    model = load_model(model_config, weights, packed, getattr(torch, dtype)).to(device)
    del weights
    for _ in generate_batch(model, [0], MEMORY_LENGTH, Sampling(), [0]):
        pass
