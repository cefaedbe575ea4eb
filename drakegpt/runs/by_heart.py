"""Which songs a run knows by heart: because it read them, and not because they are easy.

The memory of a song is the loss of models that did not read it, less that of models that did
(counterfactual memorization, Zhang et al. 2023, arXiv 2112.12938, section 3). For each pair of
models the songs of the training split are divided into two random halves, and one model is
trained on each, with the run's settings and as many epochs; so every song is read by one of the
two. They are runs like any other, kept in the run's folder:

    runs/<name>/by-heart/<iterations>-<pair>a   the model of a half, and -<pair>b of its complement
        songs.json                              its loss of each song; then its weights are removed

Not here: the halves (`data.song_halves`).
"""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drakegpt import files
from drakegpt.compute.device import choose_device
from drakegpt.config import TrainConfig
from drakegpt.config.schema import Device
from drakegpt.data.dataset import Dataset
from drakegpt.data.song_halves import choose_half, list_training_songs, select_half
from drakegpt.errors import UsageError
from drakegpt.evaluation.scoring import score_tokens
from drakegpt.progress import Progress, silent
from drakegpt.runs.create import create_run
from drakegpt.runs.lock import is_training
from drakegpt.runs.run import Run, open_run
from drakegpt.runs.session import train_run
from drakegpt.training.reports import Report
from drakegpt.wording import format_command, pluralize

FEWEST_SONGS = 4
RELIABLE = 0.8  # reliability of a ranking that is worth reading song by song
SPLITS = 200  # random divisions of the pairs into two groups, whose rankings are compared
LOSSES = "songs.json"

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SongMemory:
    """How well a song is known, in nats per character."""

    title: str
    characters: int
    with_it: float  # mean loss of the models that read it
    without_it: float  # and of the others
    memory: float  # their difference, over pairs
    error: float  # its standard error


@dataclass(frozen=True)
class ByHeart:
    """The songs of a training text, the best known first, and how sure that is."""

    songs: tuple[SongMemory, ...]
    models: int
    iterations: int  # of each model
    mean: float  # memory of all songs, in nats per character
    agreement: float | None  # correlation of the memories of two halves of the pairs
    reliability: float | None  # of the ranking by all pairs, from 0 to 1 (Spearman-Brown)
    models_needed: int | None  # for a reliability of `RELIABLE`


def measure_by_heart(
    run: Run,
    models: int,
    device: Device = "auto",
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = silent,
) -> ByHeart | None:
    """Train pairs of models until there are `models`, or `stop` says so; returns what is known.

    `None` if fewer than two pairs are trained. Models that were trained before are not trained
    again, and an interrupted one is resumed. Raises `UsageError` for a run that says nothing of
    its songs.
    """
    check_songs(run)
    data = run.load_dataset()
    halves = [half for number in range(1, models // 2 + 1) for half in (number, -number)]
    iters = count_half_iterations(run)
    for done, half in enumerate(halves):

        def report(iteration: int, done: int = done) -> None:
            what = f"model {done + 1} of {len(halves)}"
            progress(what, done * iters + iteration, len(halves) * iters)

        if stop() or not _train_half(run, data, half, device, stop, report):
            return _summarize(run, data, done // 2)
    return _summarize(run, data, len(halves) // 2)


def find_by_heart(run: Run) -> ByHeart | None:
    """Return what the pairs say that were trained before; `None` if there are fewer than two."""
    if not (run.folder / "by-heart").exists():
        return None
    pairs = 0
    while all(_read_losses(run, half) is not None for half in (pairs + 1, -pairs - 1)):
        pairs += 1
    return _summarize(run, run.load_dataset(), pairs)


def count_half_iterations(run: Run) -> int:
    """Count the iterations of a model on half of the songs, for as many epochs as the run's."""
    return max(1, round(int(run.last_evaluation["iteration"]) / 2))


def check_songs(run: Run) -> None:
    """Raise `UsageError` unless models like the run can be trained on halves of its songs."""
    data = run.load_dataset()
    count = len(list_training_songs(data)[0]) if data.songs else 0
    if count < FEWEST_SONGS:
        raise UsageError(
            f"The training text of {run.name} has {pluralize(count, 'song')}; at least "
            f"{FEWEST_SONGS} are needed.",
            f"Add a folder of songs, e.g. `{format_command('data add', 'songs')}`, and train on "
            "it.",
        )
    if run.derived or run.config.init_from or not run.last_evaluation:
        raise UsageError(
            f"{run.name} was not trained here from random weights, so no models like it can be "
            "trained on halves of its songs.",
            "Name a run that `drakegpt train` made without --init-from.",
        )
    shortest = min(len(part) for part in select_half(data, 1))
    if shortest <= run.config.context_length:
        raise UsageError(
            f"Half of the songs has {pluralize(shortest, 'token')}: too few for the context of "
            f"{run.name}, {run.config.context_length}.",
            "Name a run with a shorter context.",
        )


def _configure_half(run: Run, half: int, device: Device) -> TrainConfig:
    """Return the run's settings for half of the text, its schedule in half of the iterations.

    Evaluations are as small as possible, unless the schedule depends on them.
    """
    iters, config = count_half_iterations(run), run.config
    share = iters / max(1, int(run.last_evaluation["iteration"]))
    return replace(
        config,
        iters=iters,
        warmup_iters=min(iters, round(config.warmup_iters * share)),
        decay_interval=max(1, round(config.decay_interval * share)),
        eval_interval=max(1, round(config.eval_interval * share)),
        eval_iters=config.eval_iters if config.schedule == "plateau" else 1,
        minutes=0.0,
        max_epochs=0,
        patience=0,
        save_interval=0,
        select_on="validation",
        wandb="off",
        seed=config.seed + abs(half),
        device=device,
    )


def _train_half(
    run: Run,
    data: Dataset,
    half: int,
    device: Device,
    stop: Callable[[], bool],
    report: Callable[[int], object],
) -> bool:
    """Train and score the model of a half unless that is done; return whether it is finished."""
    folder = _find_folder(run, half)
    if _read_losses(run, half) is not None:
        return True
    if folder.exists() and not open_run(folder).checkpoints and not is_training(open_run(folder)):
        files.remove_folder(folder)  # killed before the first one, or its losses are damaged
    resume = folder.exists()
    if not resume:
        config, facts = _configure_half(run, half, device), {"song_half": half}
        create_run(config, data, folder.name, facts=facts, root=folder.parent)
    model = open_run(folder)

    def progress(step: Report) -> None:
        report(step.iteration)

    if not model.finished and not train_run(model, resume=resume, progress=progress, stop=stop):
        return False
    _score_songs(model, data, device)
    return True


def _find_folder(run: Run, half: int) -> Path:
    side = "a" if half > 0 else "b"
    return run.folder / "by-heart" / f"{count_half_iterations(run)}-{abs(half)}{side}"


def _score_songs(model: Run, data: Dataset, device_name: str) -> None:
    """Store the loss of each song, in nats per character."""
    device = choose_device(device_name)
    weights = model.load_model(device)
    losses = []
    for tokens in list_training_songs(data)[1]:
        if len(tokens) < 2:  # nothing is predicted
            losses.append(0.0)
            continue
        score = score_tokens(weights, tokens, data.tokenizer, device)
        losses.append(score.bits_per_character * math.log(2))
    files.write_text(model.folder / LOSSES, json.dumps(losses))
    # The weights have told what they were trained for.
    files.remove_folder(model.folder / "checkpoints")
    (model.folder / "best.safetensors").unlink(missing_ok=True)


def _read_losses(run: Run, half: int) -> FloatArray | None:
    """Read the stored loss of each song, (songs,); `None` if there are none, or not all."""
    try:
        stored = files.parse_json((_find_folder(run, half) / LOSSES).read_text("utf-8"))
        losses = np.array(stored, np.float64)
    except (OSError, ValueError, TypeError):
        return None
    songs = len(list_training_songs(run.load_dataset())[0])
    return losses if losses.shape == (songs,) and np.isfinite(losses).all() else None


def _stack_losses(run: Run, halves: Sequence[int]) -> FloatArray:
    """Read the losses of several models, all of which are there, (models, songs)."""
    losses = [_read_losses(run, half) for half in halves]
    return np.stack([each for each in losses if each is not None])


def _summarize(run: Run, data: Dataset, pairs: int) -> ByHeart | None:
    """Compare the losses of each song in all pairs, (pairs, songs)."""
    if pairs < 2:
        return None
    songs, tokens = list_training_songs(data)
    first, second = (
        _stack_losses(run, [sign * number for number in range(1, pairs + 1)]) for sign in (1, -1)
    )
    in_first = np.stack([choose_half(len(songs), n) for n in range(1, pairs + 1)])
    with_it, without_it = np.where(in_first, first, second), np.where(in_first, second, first)
    memories = without_it - with_it
    errors = memories.std(0, ddof=1) / math.sqrt(pairs)
    characters = [int(data.tokenizer.count_characters()[each.numpy()].sum()) for each in tokens]
    known = [
        SongMemory(
            song.title or f"song {index + 1}", size, *map(float, figures)
        )
        for index, (song, size, *figures) in enumerate(
            zip(songs, characters, with_it.mean(0), without_it.mean(0), memories.mean(0), errors,
                strict=True)
        )
    ]  # fmt: skip
    agreement = _compare_halves(memories)
    reliability = None if agreement is None else max(0.0, 2 * agreement / (1 + abs(agreement)))
    return ByHeart(
        tuple(sorted(known, key=lambda song: -song.memory)),
        2 * pairs,
        count_half_iterations(run),
        float(memories.mean()),
        agreement,
        reliability,
        count_models_needed(2 * pairs, reliability),
    )


def _compare_halves(memories: FloatArray) -> float | None:
    """Correlate the songs' memories by one half of the pairs with those by the other.

    The mean over random divisions of the pairs; `None` if there are too few, or no differences.
    """
    pairs, chance = len(memories), np.random.default_rng(0)
    found = []
    for _ in range(SPLITS if pairs >= 4 else 0):
        order = chance.permutation(pairs)
        one, other = (memories[part].mean(0) for part in (order[: pairs // 2], order[pairs // 2 :]))
        if one.std() and other.std():
            found.append(float(np.corrcoef(one, other)[0, 1]))
    return statistics.fmean(found) if found else None


def count_models_needed(models: int, reliability: float | None) -> int | None:
    """Count the models for a reliability of `RELIABLE`, by Spearman and Brown's formula (1910)."""
    if reliability is None or not 0 < reliability < 1:
        return None
    times = RELIABLE * (1 - reliability) / (reliability * (1 - RELIABLE))
    return max(models, 2 * math.ceil(models * times / 2))
