"""Builds the trainer of a run, restores it from a checkpoint, and limits it to the run's time.

A run with a time keeps each estimate of its length, before a step uses it:

    runs/<name>/lengths.jsonl   iteration, iterations in all, and the first one of this part

Not here: training, and what is written meanwhile (`session`).
"""

import time
from pathlib import Path

import torch

from drakegpt.compute.device import choose_device, set_thread_count
from drakegpt.data.song_halves import select_half
from drakegpt.errors import RunError, is_out_of_memory
from drakegpt.files import parse_json
from drakegpt.models.initialization import build_initial_model
from drakegpt.runs.checkpoint import Checkpoint, load_weights
from drakegpt.runs.run import Run, describe_mismatch
from drakegpt.runs.training_samples import SampleWriter
from drakegpt.runs.warm_start import load_into_
from drakegpt.training.distributed import ProcessGroup
from drakegpt.training.memory import check_memory
from drakegpt.training.run_length import iters_for_epochs
from drakegpt.training.time_limit import Estimate, TimeLimit
from drakegpt.training.trainer import Trainer

LENGTHS = "lengths.jsonl"


def build_trainer(run: Run, group: ProcessGroup) -> Trainer:
    """Build the trainer of a run, before its first iteration."""
    data = run.load_dataset()
    check_memory(run.config, data)
    device = choose_device(run.config.device)
    set_thread_count(run.model_config)
    torch.manual_seed(run.config.seed)
    model = build_initial_model(run.model_config, run.config.init)
    if run.initial_weights.exists():
        weights, _ = load_weights(run.initial_weights)
        try:
            load_into_(model, weights)
        except ValueError as error:
            raise describe_mismatch(run, error) from error
    data.verify()
    half = run.info.get("song_half", 0)
    parts = select_half(data, half) if half else data.select_splits(tail=run.config.holds_out_tail)
    writer = SampleWriter(run.config, run.tokenizer) if group.is_main else None
    return Trainer(run.config, model.to(device), *parts, device, group, write_sample=writer)


def restore_trainer(run: Run, trainer: Trainer) -> Checkpoint:
    """Restore a trainer from the last intact checkpoint of its run."""
    checkpoint = run.last_checkpoint()
    state = checkpoint.state()
    weights, _ = load_weights(checkpoint.weights)
    try:
        trainer.model.load_state_dict(weights)
    except RuntimeError as error:
        raise describe_mismatch(run, error) from error
    try:
        trainer.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise RunError(
            f"The training state of {run.name} cannot be restored: {error}.",
            "It may be from another version of drakegpt. Its weights can still be used; "
            "to train, start a new run.",
        ) from error
    return checkpoint


def limit_time(
    run: Run, trainer: Trainer, started: float, tokens_after: int | None
) -> Estimate | None:
    """Have a trainer end when the run's minutes are over, counted from `started`.

    It then has time to score `tokens_after` tokens, by default those of whole splits. A finished
    run that was given more time begins a new part: the first estimate of that is returned.
    """
    data, config = run.load_dataset(), run.config
    tokens = tokens_after
    if tokens is None:
        tokens = data.metadata.train_tokens + 2 * data.metadata.val_tokens
    deadline = started + config.minutes * 60 - trainer.spent_before
    most = iters_for_epochs(config, data, config.max_epochs) if config.max_epochs else 0
    trainer.limit = TimeLimit(deadline, most=most, tokens_at_end=tokens)
    done = trainer.iteration
    if "minutes" not in run.changes or not 0 < trainer.config.iters <= done:
        return None
    pace = trainer.spent_before / done
    more = max(1, int((deadline - time.monotonic()) / pace))
    iters = min(done + more, most) if most else done + more
    return Estimate(done, max(done, iters), start=done)


def read_lengths(folder: Path) -> dict[int, Estimate]:
    """Read the estimates of a run's length by their iteration; a line cut off is left out."""
    try:
        lines = (folder / LENGTHS).read_text(encoding="utf-8").split("\n")[:-1]
        estimates = [Estimate(**parse_json(line)) for line in lines]
        numbers = [number for each in estimates for number in vars(each).values()]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("not whole numbers")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{LENGTHS} of {folder.name} is damaged: {error}.",
            "Its weights can still be used; to train, start a new run.",
        ) from error
    return {each.iteration: each for each in estimates}
