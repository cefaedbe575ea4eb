"""Convert a run's epochs or minutes into iterations.

Epochs are counted. For minutes, a short trial on this machine gives a first estimate, which
becomes the run's `iters`, so that schedules fit the time; a run with a time estimates it anew
while it trains (`time_limit`).
"""

import dataclasses
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

import torch

from drakegpt.compute.device import choose_device, set_thread_count
from drakegpt.compute.stopwatch import Stopwatch
from drakegpt.config import TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.data.windows import count_windows
from drakegpt.errors import UsageError
from drakegpt.models.registry import build_model
from drakegpt.models.size import count_total_parameters
from drakegpt.training.dtype_trial import choose_run_dtype
from drakegpt.training.loss_estimates import count_evaluated_tokens
from drakegpt.training.memory import check_memory
from drakegpt.training.reports import Report, Step
from drakegpt.training.trainer import Trainer

# The first steps are slower: one of them is recorded, compiled or captured.
WARM_UP_STEPS = 6
TRIAL_STEPS = 20
# Limits of the trial of `estimate_seconds`: floating-point operations per step, seconds in all.
TRIAL_OPERATIONS = 10**11
TRIAL_SECONDS = 1.5

# The settings of a run, given its iterations.
AtLength = Callable[[int], TrainConfig]


def resolve_length(
    config: TrainConfig, data: Dataset, at_length: AtLength | None = None
) -> dict[str, Any]:
    """Return `iters` for the given epochs or minutes, and what it replaces; empty without them.

    `at_length` tells what else follows from the length; without it, nothing does. Raises
    `CorpusError` for a dataset too short for the context, `UsageError` for a time too short
    for any iteration.
    """
    if not (config.epochs or config.minutes):
        return {}
    data.check_context(config.context_length, tail=config.holds_out_tail)
    if config.epochs:
        return {"iters": iters_for_epochs(config, data), "epochs": 0, "window_order": "epoch"}
    return {"iters": iters_for_minutes(config, data, at_length)}


def iters_for_epochs(config: TrainConfig, data: Dataset, epochs: int | None = None) -> int:
    """Return the iterations that read each training window `epochs`, or `config.epochs`, times.

    The last iteration is filled up with the first windows of one more epoch.
    """
    train_tokens, _ = data.select_splits(tail=config.holds_out_tail)
    windows = count_windows(len(train_tokens), config.context_length)
    at_once = config.batch_size * config.grad_accumulation
    return -(-(epochs or config.epochs) * windows // at_once)


def count_operations(config: TrainConfig, vocab_size: int) -> int:
    """Count a run's floating-point operations: 6 per parameter and token, forward and backward.

    Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, section 2.1.
    """
    windows = config.iters * config.batch_size * config.grad_accumulation
    parameters = count_total_parameters(config.model_settings(vocab_size))
    return 6 * parameters * windows * config.context_length


def estimate_seconds(config: TrainConfig, vocab_size: int, learnt: int, validated: int) -> float:
    """Estimate how many seconds a run takes here, by a trial of one or two seconds.

    `learnt` and `validated`: tokens of the training and the validation split. Includes
    evaluations, and the final scoring of both splits.
    """
    return _count_seconds(config, measure_step(config, vocab_size), learnt, validated)


def measure_step(config: TrainConfig, vocab_size: int) -> float:
    """Measure how many seconds a step of training takes here, in one or two seconds.

    The trial uses random tokens and, on a CPU, only a few windows of a large batch. It is not
    compiled.
    """
    config = dataclasses.replace(config, dtype=choose_run_dtype(config, vocab_size))
    device = choose_device(config.device)
    model_config = config.model_settings(vocab_size)
    set_thread_count(model_config)
    model = build_model(model_config).to(device)
    windows = config.batch_size
    if device.type == "cpu":
        parameters = sum(parameter.numel() for parameter in model.parameters())
        operations = 6 * parameters * config.context_length  # of a window, forward and backward
        windows = max(1, min(windows, TRIAL_OPERATIONS // operations))
    trial = dataclasses.replace(
        config,
        batch_size=windows,
        grad_accumulation=1,
        iters=max(config.iters, WARM_UP_STEPS + TRIAL_STEPS),
        eval_interval=max(config.iters, WARM_UP_STEPS + TRIAL_STEPS),
        minutes=0.0,
        compile=False,
    )
    length = max(10_000, 2 * config.context_length)
    tokens = torch.randint(vocab_size, (length,), generator=torch.Generator().manual_seed(0))
    timed = _time_reports(Trainer(trial, model, tokens, tokens, device))
    seconds: list[float] = []
    least = 2 if device.type == "cpu" else WARM_UP_STEPS + 1  # on a GPU, until after the capture
    while len(seconds) < least or (
        len(seconds) < WARM_UP_STEPS + TRIAL_STEPS and sum(seconds) < TRIAL_SECONDS
    ):
        seconds.append(next(timed)[1])
    return min(seconds[1:][-5:]) * config.batch_size * config.grad_accumulation / windows


def _count_seconds(config: TrainConfig, step: float, learnt: int, validated: int) -> float:
    """Return the seconds of a run whose steps take `step` seconds each."""
    evaluations = -(-config.iters // config.eval_interval)
    # At the end, validation is scored with the best weights too.
    scored = evaluations * count_evaluated_tokens(config, validated) + learnt + 2 * validated
    # The forward pass takes a third of a step.
    at_once = config.batch_size * config.grad_accumulation * config.context_length
    return step * (config.iters + scored / at_once / 3)


def _time_reports(trainer: Trainer) -> Iterator[tuple[Report, float]]:
    """Yield the reports of a trainer, each with the seconds that it took."""
    watch, reports = Stopwatch(), trainer.reports()
    while True:
        with watch:
            report = next(reports, None)
            if isinstance(report, Step):
                report.loss.item()  # waits for a GPU
        if report is None:
            return
        yield report, watch.last


def iters_for_minutes(config: TrainConfig, data: Dataset, at_length: AtLength | None = None) -> int:
    """Estimate the iterations that fit in `config.minutes`, evaluations and scoring included.

    The run estimates them again while it trains (`time_limit`). Raises `UsageError` if scoring
    alone would take longer.
    """
    check_memory(config, data)
    at_length = at_length or (lambda iters: dataclasses.replace(config, iters=iters))
    step = measure_step(config, data.tokenizer.vocab_size)
    learnt, validated = (len(part) for part in data.select_splits(tail=config.holds_out_tail))

    def count_seconds(iters: int) -> float:
        return _count_seconds(at_length(iters), step, learnt, validated)

    available = config.minutes * 60
    iterations = bisect_right(range(1, int(available / step) + 1), available, key=count_seconds)
    if iterations < 1:
        raise UsageError(
            f"--minutes {config.minutes:g} is too short: one iteration, its evaluation, and "
            f"scoring whole splits at the end take {count_seconds(1) / 60:.2f} minutes here.",
            "Give more --minutes, or fewer --eval-iters.",
        )
    if config.max_epochs:
        iterations = min(iterations, iters_for_epochs(config, data, config.max_epochs))
    return iterations
