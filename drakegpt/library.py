"""drakegpt as a library: the functions that `import drakegpt` offers.

Each does what the command of its name does, with the same settings, and returns a
value. Nothing is printed, nothing ends the program, and what a caller can fix is
raised as a `DrakeGPTError`. Devices are named as in the settings: "auto", "cpu", "cuda", "mps".
"""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from drakegpt import files
from drakegpt.config import SIZES, check_setting, parse_model
from drakegpt.data import dataset, sources
from drakegpt.data.corpus import StageProgress
from drakegpt.data.dataset import Dataset
from drakegpt.data.known_sources import SOURCES
from drakegpt.errors import CorpusError, RunError, UsageError
from drakegpt.experiments import ladder
from drakegpt.experiments.ladder import Comparison
from drakegpt.experiments.launcher import Job, Observer, train_runs
from drakegpt.generation.prompt import fit_prompt
from drakegpt.generation.sampling import Sampling
from drakegpt.report.contents import choose_runs, collect_contents
from drakegpt.report.embedded_model import Precision
from drakegpt.report.target import check_target
from drakegpt.runs.lookup import find_pretrained, find_run
from drakegpt.runs.run import Run
from drakegpt.runs.session import train_run
from drakegpt.runs.start import resolve_run, start_run
from drakegpt.runs.weights_file import PretrainedModel, pretrained_from_run
from drakegpt.trained_run import TrainedRun, generate_with, to_trained_run
from drakegpt.training.reports import Report

# Called with each report of the trainer: a step, an evaluation with its losses, or an estimate of
# the length of a run with a time.
TrainingProgress = Callable[[Report], object]

RunName = Run | str | PathLike[str]

# A program that has set up no logging does not want warnings on its stderr.
logging.getLogger("drakegpt").addHandler(logging.NullHandler())


def load_dataset(
    source: str | PathLike[str] | None = None,
    *,
    name: str | None = None,
    text_column: str | None = None,
    encoding: str | None = None,
    tokenizer: Literal["char", "bpe"] = "char",
    vocab_size: int | None = None,
    split: Literal["songs", "contiguous"] | None = None,
    dedupe: bool = False,
) -> Dataset:
    """Load a prepared dataset by its name, or prepare the bundled "sample" or a text of yours.

    Without a source: the dataset prepared last, or the sample where there is none. The
    other settings are those of `fetch`, for what is prepared. Never uses the network:
    raises `CorpusError` for a source that `fetch` would have to download.
    """
    options = {
        "name": name,
        "text_column": text_column,
        "encoding": encoding,
        "vocab_size": vocab_size,
        "split": split,
        "dedupe": dedupe,
    }
    as_prepared = tokenizer == "char" and not any(options.values())
    wanted = None if source is None else os.fspath(source)
    if as_prepared and (wanted is None or wanted in dataset.list_names()):
        return sources.load_or_prepare_sample(wanted)[0]
    wanted = wanted or "sample"
    if (known := SOURCES.get(wanted)) and not known.bundled:
        raise CorpusError(
            f"'{wanted}' has not been fetched with these settings; load_dataset downloads nothing.",
            f"Fetch it first, with the same settings: drakegpt.fetch({wanted!r}).",
        )
    return fetch(
        wanted,
        name=name,
        text_column=text_column,
        encoding=encoding,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        split=split,
        dedupe=dedupe,
    )


def fetch(
    source: str | PathLike[str],
    *,
    name: str | None = None,
    text_column: str | None = None,
    encoding: str | None = None,
    tokenizer: Literal["char", "bpe"] = "char",
    vocab_size: int | None = None,
    split: Literal["songs", "contiguous"] | None = None,
    dedupe: bool = False,
    force: bool = False,
    progress: StageProgress | None = None,
) -> Dataset:
    """Fetch "drake", "shakespeare" or "sample", or add a text of yours, as a dataset.

    A text is a path to a .txt, .md, .lrc, .csv, .tsv, .jsonl, .json or .parquet file, or to
    a folder or .zip archive of those; "-" is standard input. `text_column` names the field
    of a table that has the text, `encoding` that of files that are not UTF-8. `split` is
    "songs" (no song stands in both splits) or "contiguous" (the last tenth is for
    validation), the default of the three known sources. `dedupe` leaves out songs that
    repeat others. What is prepared already is left alone unless `force`. `progress` is
    called with what is done, the bytes done and the bytes in all, if known.
    """
    return sources.fetch(
        os.fspath(source),
        name=name,
        text_column=text_column,
        encoding=encoding,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        split=split,
        dedupe=dedupe,
        force=force,
        progress=progress,
    ).dataset


def train(
    model: str,
    data: Dataset | str,
    *,
    name: str | None = None,
    size: str = "default",
    progress: TrainingProgress | None = None,
    **settings: Any,
) -> TrainedRun:
    """Train a model on a dataset and return its run.

    `settings`: those of `drakegpt train`, with `_` for `-`, such as `iters=2000`,
    `epochs=5`, `minutes=2.0`, `seed=1` or `recipe="fast"`. A run that is interrupted
    keeps its last checkpoint; `drakegpt train --resume NAME` resumes it.
    """
    prepared = _dataset(data)
    config = resolve_run(parse_model(model), size, prepared, settings)
    run = start_run(config, prepared, name)
    train_run(run, progress=progress or _ignore)
    return to_trained_run(run)


def load_run(run: str | PathLike[str] | None = None, *, data: str | None = None) -> TrainedRun:
    """Load a run by its name or folder, or the latest of a model.

    Without a name: the run with the lowest validation loss on `data` or the default dataset.
    """
    return to_trained_run(find_run(None if run is None else os.fspath(run), data=data))


def generate(
    run: RunName | Sequence[RunName] | None = None,
    prompt: str = "",
    length: int = 500,
    *,
    seed: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    best: bool = False,
    counts: bool = False,
    device: str = "auto",
) -> str:
    """Generate `length` tokens that continue `prompt`, with a run or a file of weights.

    `run` is found as by `load_run`; several are averaged as an ensemble. The text begins
    with the prompt, whose characters that the model does not know are replaced by plain
    ones; it equals what `drakegpt generate` writes with the same `seed`, which is drawn if
    not given. `temperature`, `top_k` and `top_p` are those of `Sampling`; `best` takes the
    weights with the lowest estimated loss instead of the last. `counts` mixes in n-gram
    counts of the training split.
    """
    named = run if isinstance(run, Sequence) and not isinstance(run, str) else [run]
    members = [_find_pretrained(each) for each in named]
    sampling = Sampling(temperature, top_k, top_p)
    return generate_with(members, prompt, length, seed, sampling, best, counts, device)


def compare(
    data: Dataset | str,
    train: bool = False,
    *,
    size: str | None = None,
    seeds: int | None = None,
    progress: TrainingProgress | None = None,
    **settings: Any,
) -> Comparison:
    """Score the runs of the six models on a dataset and set them side by side.

    Compared are runs that agree in all settings but model and seed; `settings` choose
    among them. With `train`, models without such a run are trained first, of as many
    `seeds`; `progress` gets the reports of those that this process trains.
    """
    prepared = _dataset(data)
    _check_ladder_settings(settings)
    if train:

        def train_missing(jobs: Sequence[Job]) -> list[Run]:
            return train_runs(jobs, prepared, resume=True, observer=_Reports(progress))

        given = ladder.choose_trained_settings(size, settings)
        chosen = ladder.collect_ladder(prepared, size or "default", given, seeds, train_missing)
    else:
        chosen = ladder.select_ladder(prepared, [size] if size else SIZES, settings, seeds)
    if not chosen.by_row:
        problem = next(
            iter(chosen.damaged.values()), "No model has been trained with these settings yet."
        )
        raise RunError(problem, "Train the models: drakegpt.compare(data, train=True).")
    device = settings.get("device") or "auto"
    return ladder.compare(prepared, chosen.runs, device, chosen.others, settings)


def export_page(
    path: str | PathLike[str],
    runs: RunName | Sequence[RunName] | None = None,
    *,
    data: Dataset | str | None = None,
    title: str = "",
    licence: str = "",
    prompt: str = "",
    text: str = "",
    precision: Precision | None = None,
    static: bool = False,
    replace: bool = False,
) -> int:
    """Write one HTML file in which models run, in any browser; returns its bytes.

    `runs` are found as by `load_run`; without them it holds what `compare` shows of `data`, or
    of the default dataset, and the best run. `title` and `licence` stand in the page. `prompt`:
    of every sample; `text`: to look into, a held-out verse if not given. `precision`: of the
    weights, by default "int8" from 0.2 million on. `static` leaves the models out; `replace`
    overwrites a file that is not a page.
    """
    if runs is None:
        runs = []
    name = data.name if isinstance(data, Dataset) else data
    named = [
        _find_run(run, name)
        for run in (runs if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs])
    ]
    for run in named:
        run.check_finished()
    if data is None and named:
        data = named[0].load_dataset()
    prepared = load_dataset() if data is None else _dataset(data)
    check_target(Path(path), "`path`", "`replace=True`", replace=replace)
    files.remove_leftovers(Path(path).absolute().parent)
    contents = collect_contents(
        prepared,
        choose_runs(prepared, named),
        prompt=fit_prompt(prompt, prepared.tokenizer, skip_unknown=False).text,
        named=bool(named),
        static=static,
        precision=precision,
        text=text,
    )
    files.write_text(Path(path), contents.render(title=title, licence=licence))
    return Path(path).stat().st_size


class _Reports(Observer):
    """Passes on the reports of each run that is trained in this process."""

    def __init__(self, progress: TrainingProgress | None) -> None:
        self._progress = progress or _ignore

    def train(self, run: Run) -> AbstractContextManager[TrainingProgress]:  # noqa: ARG002
        return nullcontext(self._progress)


def _ignore(_: Report) -> None:
    """Take a report that nobody asked for."""


def _dataset(data: Dataset | str) -> Dataset:
    return data if isinstance(data, Dataset) else load_dataset(data)


def _check_ladder_settings(settings: dict[str, Any]) -> None:
    """Raise `UsageError` for a setting that does not exist or would make the ladder another."""
    for name, value in settings.items():
        if value is not None:
            check_setting(name, value)
        if name in ("model", "data", "bits", "init_from", "tie_embeddings"):
            raise UsageError(f"compare takes no {name}.", "Leave it out.")


def _find_run(run: RunName, data: str | None) -> Run:
    return run if isinstance(run, Run) else find_run(os.fspath(run), data=data)


def _find_pretrained(run: RunName | None) -> PretrainedModel:
    if isinstance(run, Run):
        return pretrained_from_run(run)
    return find_pretrained(None if run is None else os.fspath(run))
