"""How many iterations a run has that is given epochs or minutes instead.

Epochs are counted; what fits into a time on this machine is found by a short
trial. The answer becomes the run's `iters`, so its schedules fit the time, and the
same number of iterations gives the same run again, whatever the machine.
"""

import dataclasses
import time
from typing import Any

import torch

from drakegpt.config import TrainConfig
from drakegpt.config.presets import EVALUATIONS
from drakegpt.data.dataset import Dataset
from drakegpt.data.windows import count_windows
from drakegpt.errors import UsageError
from drakegpt.models.registry import build_model, choose_device, choose_threads
from drakegpt.training.memory import check_memory
from drakegpt.training.step_runner import plan_execution
from drakegpt.training.trainer import Evaluation, Step, Trainer, tokens_evaluated

# The first steps are slower: on the way one is recorded, compiled or captured.
WARM_UP_STEPS = 6
TRIAL_STEPS = 20
# What tells how long a whole run takes: floating-point operations of a step, seconds in all.
TRIAL_OPERATIONS = 10**11
TRIAL_SECONDS = 1.5
# An evaluation in the trial takes this share of the batches of a real one.
TRIAL_SHARE = 10


def resolve_length(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """The settings that say in iterations what `config` says in epochs or minutes, if it does.

    Raises `CorpusError` for a dataset too short for the context, `UsageError`
    for a time too short for anything.
    """
    if not (config.epochs or config.minutes):
        return {}
    data.check_context(config.context_length, tail=config.holds_out_tail)
    if config.epochs:
        return {"iters": iters_for_epochs(config, data), "epochs": 0, "windows": "shuffled"}
    return {"iters": iters_for_minutes(config, data), "minutes": 0.0}


def iters_for_epochs(config: TrainConfig, data: Dataset) -> int:
    """Iterations in which each training window is read `config.epochs` times.

    The last one is merge_layers up with the first windows of one epoch more.
    """
    learnt, _ = data.select_splits(tail=config.holds_out_tail)
    windows = count_windows(len(learnt), config.context_length)
    at_once = config.batch_size * config.grad_accumulation
    return -(-config.epochs * windows // at_once)


def estimate_seconds(config: TrainConfig, vocab_size: int, learnt: int, validated: int) -> float:
    """About how long a run takes here, from a trial of a second or two.

    Evaluations are included, and the scoring of both splits at the end, of so many tokens.
    On random tokens; on a CPU, of a batch that takes long, with a few of its windows.
    """
    device = choose_device(config.device)
    model_config = config.model_settings(vocab_size)
    choose_threads(model_config)
    model = build_model(model_config).to(device)
    windows = config.batch_size
    if device.type == "cpu":
        parameters = sum(parameter.numel() for parameter in model.parameters())
        operations = 6 * parameters * config.context_length  # of a window, forward and backward
        windows = max(1, min(windows, TRIAL_OPERATIONS // operations))
    trial = dataclasses.replace(
        config, batch_size=windows, grad_accumulation=1, eval_interval=config.iters, compile=False
    )
    length = max(10_000, 2 * config.context_length)
    tokens = torch.randint(vocab_size, (length,), generator=torch.Generator().manual_seed(0))
    reports = Trainer(trial, model, tokens, tokens, device).reports()
    seconds: list[float] = []
    least = 2 if device.type == "cpu" else WARM_UP_STEPS + 1  # on a GPU, beyond the capture
    while len(seconds) < least or (
        len(seconds) < WARM_UP_STEPS + TRIAL_STEPS and sum(seconds) < TRIAL_SECONDS
    ):
        began = time.perf_counter()
        report = next(reports)
        if isinstance(report, Step):
            report.loss.item()  # waits until a GPU has done it
        seconds.append(time.perf_counter() - began)
    step = min(seconds[1:][-5:]) * config.batch_size * config.grad_accumulation / windows
    evaluations = -(-config.iters // config.eval_interval)
    # The best weights are scored on validation too.
    scored = evaluations * tokens_evaluated(config, validated) + learnt + 2 * validated
    # Forward alone: a third of a step.
    at_once = config.batch_size * config.grad_accumulation * config.context_length
    return step * (config.iters + scored / at_once / 3)


def iters_for_minutes(config: TrainConfig, data: Dataset) -> int:
    """Iterations that `config.minutes` hold, with twenty evaluations and the scoring at the end.

    Raises `UsageError` if these alone would take longer. Whether a run is
    compiled depends on how long it is, and its speed on that: so steps are tried
    as written first, and compiled where so many fit that the run will be.
    """
    check_memory(config, data)
    device = choose_device(config.device)
    written = dataclasses.replace(config, compile=config.compile or False)
    iterations = _iterations_tried(written, data, device)
    found = dataclasses.replace(config, iters=iterations)
    if plan_execution(found, device).compiled and not written.compile:
        iterations = _iterations_tried(dataclasses.replace(config, compile=True), data, device)
    return iterations


def _iterations_tried(config: TrainConfig, data: Dataset, device: torch.device) -> int:
    model_config = config.model_settings(data.tokenizer.vocab_size)
    choose_threads(model_config)
    trial = dataclasses.replace(
        config,
        eval_interval=WARM_UP_STEPS + TRIAL_STEPS,
        eval_iters=max(1, config.eval_iters // TRIAL_SHARE),
        patience=0,
    )
    model = build_model(model_config).to(device)
    learnt, judged = data.select_splits(tail=config.holds_out_tail)
    trainer = Trainer(trial, model, learnt, judged, device)
    began = time.perf_counter()
    moments = []
    for report in trainer.reports():
        if isinstance(report, Step):
            report.loss.item()  # waits until a GPU has done it
        moments.append(time.perf_counter())
        if isinstance(report, Evaluation):
            break
    steps = moments[-2] - moments[WARM_UP_STEPS - 1]
    times_as_much = tokens_evaluated(config, len(judged)) / tokens_evaluated(trial, len(judged))
    evaluation = (moments[-1] - moments[-2]) * times_as_much
    # When training is over, whole splits are scored, and validation with the best weights too.
    whole = data.metadata.train_tokens + 2 * data.metadata.val_tokens
    scoring = evaluation * whole / tokens_evaluated(config, len(judged))
    around = moments[-1] - began + EVALUATIONS * evaluation + scoring
    iterations = int((config.minutes * 60 - around) / (steps / TRIAL_STEPS))
    if iterations < 1:
        raise UsageError(
            f"--minutes {config.minutes:g} is too short: {EVALUATIONS} evaluations, and scoring "
            f"whole splits at the end, alone would take {around / 60:.2f} minutes here.",
            "Give more --minutes, or fewer --eval-iters.",
        )
    return iterations
