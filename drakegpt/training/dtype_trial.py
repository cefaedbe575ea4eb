"""Decide by a short trial whether a CPU trains a run faster in bfloat16 than in float32.

Processors that multiply bfloat16 twice as fast as float32 do not gain at every size: small
matrices cost conversions instead. A few training steps in both types, in turns, decide once
for each processor, PyTorch version and shape. The result is stored in the user's home, so
that later runs, other processes and all models of a comparison go by the same one. Weights,
optimizer and scores are float32 in both.

There is no trial, and `auto` stays float32, for narrow models, whose time is not
arithmetic; for low-bit weights, which are quantized in float32; and for the original's
recipe, whose runs are compared with published figures.
"""

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Iterator
from typing import Any

import torch

from drakegpt import files, home
from drakegpt.compute.device import (
    choose_device,
    choose_thread_count,
    describe_cpu,
    has_fast_bfloat16,
    set_thread_count,
)
from drakegpt.compute.memory import check_memory_fits
from drakegpt.compute.stopwatch import Stopwatch
from drakegpt.config import TrainConfig
from drakegpt.config.presets import WIDE
from drakegpt.config.schema import Dtype
from drakegpt.models.registry import build_model
from drakegpt.training.memory import estimate_training_memory
from drakegpt.training.trainer import Trainer

# bfloat16 must be faster by this factor: it is less precise.
MARGIN = 1.1
# Steps before the trial: the second is recorded. Then pairs of steps, until the time is up.
WARM_UP_STEPS, LEAST_PAIRS, MOST_PAIRS, SECONDS = 3, 3, 12, 1.5
# Floating-point operations of a trial's step: a large batch is tried with fewer windows.
OPERATIONS = 4 * 10**10


def choose_run_dtype(config: TrainConfig, vocab_size: int) -> Dtype:
    """Return the setting `dtype` of a new run: `bfloat16` where a trial preferred it.

    Otherwise it is what `config` says. The first call for a shape takes a second or two.
    Raises `NotEnoughMemoryError` if the run does not fit.
    """
    on_cpu = choose_device(config.device).type == "cpu"
    arithmetic = config.embedding_dim >= WIDE and config.bits == "full"
    if (
        config.dtype != "auto"
        or config.recipe == "original"
        or not (on_cpu and arithmetic and has_fast_bfloat16())
    ):
        return config.dtype
    return "bfloat16" if _load_or_measure(config, vocab_size) >= MARGIN else config.dtype


def _load_or_measure(config: TrainConfig, vocab_size: int) -> float:
    """Return the speedup by bfloat16: that of the first trial of this shape on this machine."""
    shape = _describe_shape(config)
    text = json.dumps(shape, sort_keys=True)
    path = home.trials() / f"dtype-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    try:
        return float(files.parse_json(path.read_bytes())["speedup"])
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, KeyError):
        path.unlink()  # damaged
    cpu = torch.device("cpu")
    needed = estimate_training_memory(config, vocab_size, cpu)
    check_memory_fits(needed, cpu, f"to train {config.model} with these settings")
    speedup = measure_speedup(config, vocab_size)
    try:
        files.write_exclusively(path, json.dumps(shape | {"speedup": speedup}, indent=2) + "\n")
    except FileExistsError:  # another process was quicker: go by its result
        return _load_or_measure(config, vocab_size)
    return speedup


def _describe_shape(config: TrainConfig) -> dict[str, Any]:
    """Return what a trial depends on, alike for all models of the ladder."""
    names = ("embedding_dim", "num_layers", "num_heads", "context_length", "batch_size")
    return {
        "processor": describe_cpu(),
        "threads": choose_thread_count(_choose_trial_config(config).model_settings(1)),
        "torch": torch.__version__,
    } | {name: getattr(config, name) for name in names}


def _choose_trial_config(config: TrainConfig) -> TrainConfig:
    """Return the settings of the trial: TransformerLM, by AdamW, as many windows as are quick."""
    weights = 12 * config.num_layers * config.embedding_dim**2
    windows = OPERATIONS // (6 * weights * config.context_length)
    return dataclasses.replace(
        config,
        model="TransformerLM",
        num_heads=config.num_heads if config.embedding_dim % config.num_heads == 0 else 1,
        tie_embeddings=False,
        optimizer="adamw",
        batch_size=max(1, min(config.batch_size, windows)),
        grad_accumulation=1,
        iters=10**6,
        eval_interval=10**6,
        compile=False,
    )


def _start(config: TrainConfig, vocab_size: int) -> Iterator[object]:
    """Start to train a new model on random tokens; each `next` is a step."""
    model_config = config.model_settings(vocab_size)
    set_thread_count(model_config)
    tokens = torch.randint(vocab_size, (max(10_000, 2 * config.context_length),))
    return Trainer(config, build_model(model_config), tokens, tokens, torch.device("cpu")).reports()


def measure_speedup(config: TrainConfig, vocab_size: int) -> float:
    """Measure how many times faster training steps are in bfloat16: the median of pairs."""
    with torch.random.fork_rng(devices=[]):
        steps = [
            _start(dataclasses.replace(_choose_trial_config(config), dtype=dtype), vocab_size)
            for dtype in ("float32", "bfloat16")
        ]
        for _ in range(WARM_UP_STEPS):
            for trainer in steps:
                next(trainer)
        watch, ratios = Stopwatch(), list[float]()
        while len(ratios) < LEAST_PAIRS or (len(ratios) < MOST_PAIRS and watch.seconds < SECONDS):
            seconds = []
            for trainer in steps:
                with watch:
                    next(trainer)
                seconds.append(watch.last)
            ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)
