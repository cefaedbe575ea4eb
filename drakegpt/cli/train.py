"""`drakegpt train`: train one model, show it learning, end with a sample of its writing."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt import config
from drakegpt.cli import console, options
from drakegpt.config import files
from drakegpt.config.presets import SYSTEMS
from drakegpt.errors import UsageError
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    from drakegpt.config import TrainConfig
    from drakegpt.data.dataset import Dataset
    from drakegpt.runs.run import Run
    from drakegpt.runs.scores import Scores
    from drakegpt.training.distributed import ProcessGroup

SAMPLE_LENGTH = 200
EXAMPLE = "drakegpt train TransformerLM"
LATEST = "-"  # what a lone `--resume` stands for, and no run is named


class TrainCommand(options.Command):
    """Lets `--resume` stand alone or take a value, which typer has no word for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a lone `--resume` a value."""
        followers = [*args, "-"][1:]
        args = [
            f"--resume={LATEST}" if arg == "--resume" and after.startswith("-") else arg
            for arg, after in zip(args, followers, strict=True)
        ]
        return super().parse_args(ctx, args)


@options.with_settings
def train(
    settings: dict[str, Any],
    model: options.ModelOrNone = None,
    scaled: options.Scaled = False,
    data: options.Data = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; made from model, data and time.")
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings in TOML or YAML; flags win."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as TOML, and stop.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[RUN]",
            help="Go on with a run: by name or folder, or the latest unfinished one of MODEL.",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            max=options.MOST_SEEDS,
            help="So many runs, which differ in their seed, from --seed on.",
        ),
    ] = 1,
    list_presets: Annotated[
        bool,
        typer.Option("--list-presets", help="List presets and their time here, and exit."),
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model; under torchrun, on several processes or GPUs."""
    if list_presets:
        from drakegpt.cli.presets import show_presets

        show_presets(json=json, quiet=quiet)
        return
    if resume is not None and name is not None:
        raise UsageError("A run that goes on keeps its name.", "Leave out --name, or --resume.")
    given = files.from_file(config_file) if config_file else {}
    spelt_out = {"model": model, "size": "scaled" if scaled else None, "data": data}
    given |= {key: value for key, value in spelt_out.items() if value is not None}
    given |= settings
    if print_config:
        model, size = named_model(given, EXAMPLE), given.get("size", "default")
        resolved = config.resolve(model, size, _dataset_name(given), given)
        console.show_text(files.to_toml(resolved).rstrip("\n"))
        return
    if seeds > 1:
        if resume is not None:
            raise UsageError("--seeds makes new runs.", "Resume each run by its name.")
        _train_seeds(given, seeds, name, json=json, quiet=quiet)
        return
    from drakegpt.runs.lookup import find_origin
    from drakegpt.runs.start import start_run

    with _processes(given.get("device", "auto")) as world:
        if not world.first:
            _follow(world, resume=resume is not None)
            return
        if resume is not None:
            chosen, run = _run_to_resume(resume, given)
            if world.size == 1 and _is_over(chosen, run):
                _show_finished(run, json=json)
                return
            console.note(f"Going on with {run.name}")
        elif world.size > 1 and given.get("minutes"):
            raise UsageError("--minutes tries out one process only.", "Give --iters instead.")
        else:
            dataset = choose_dataset(given.get("data"))
            resolved = _resolve(given, dataset)
            run = start_run(resolved, dataset, name, origin=find_origin(resolved))
        scores = _train_and_score(run, resume=resume is not None, quiet=quiet, world=world)
    if json:
        console.show_json(_as_json(run, scores))
        return
    _render(run, scores)
    console.next_commands(
        [format_command("generate", run.name), format_command("compare", data=run.config.data)]
    )


def _train_seeds(
    given: dict[str, Any],
    seeds: int,
    name: str | None,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Train runs that differ in their seed alone, and show what they have in common."""
    from drakegpt.cli.several import Training, show_seeds
    from drakegpt.experiments.experiment import seeds_from
    from drakegpt.experiments.launcher import Job
    from drakegpt.runs.lookup import find_run

    if "WORLD_SIZE" in os.environ:
        raise UsageError(
            "torchrun's processes train one run together.", "Leave out torchrun, or --seeds."
        )
    dataset = choose_dataset(given.get("data"))
    first = _resolve(given, dataset)
    if first.init_from:  # found once: a model's name would come to mean the seed before
        first = replace(first, init_from=find_run(first.init_from).name)
    common = asdict(first)
    configs = [
        config.resolve(first.model, first.size, first.data, common, {"seed": seed})
        for seed in seeds_from(common, seeds)
    ]
    jobs = [Job(each, name=f"{name}_{each.seed}" if name else None) for each in configs]
    show_seeds(Training(dataset, quiet=quiet, resume=False)(jobs), json=json)


@contextmanager
def _processes(device: str) -> Iterator["ProcessGroup"]:
    """All processes of this training, if torchrun has started several."""
    from drakegpt.training.distributed import end, start

    try:
        yield start(device)
    finally:
        end()


def _follow(world: "ProcessGroup", *, resume: bool) -> None:
    """Train along with the first process, which alone writes, prints and answers Ctrl-C."""
    from drakegpt.runs.session import follow
    from drakegpt.training.distributed import ProcessLostError, end

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # when the first process stops, so does this one
    try:
        follow(Path(world.tell()), world, resume=resume)
    except ProcessLostError:  # the first has said why, or was stopped
        raise typer.Exit(1) from None
    end()
    # Not through Python's clean-up, in which gloo's threads abort now and then (torch 2.13), and
    # torchrun would take a run that is whole for one that has failed.
    sys.stderr.flush()
    os._exit(0)


def choose_dataset(name: str | None) -> "Dataset":
    """The dataset asked for; the sample, prepared on the spot, when nothing was ever fetched."""
    from drakegpt.data.sources import load_or_prepare_sample

    dataset, newly_prepared = load_or_prepare_sample(name)
    if newly_prepared:
        console.warn(
            f"prepared the bundled sample lyrics ({dataset.metadata.characters:,} characters); "
            "`drakegpt data fetch` gets others."
        )
    return dataset


def _resolve(given: dict[str, Any], dataset: "Dataset") -> "TrainConfig":
    """The settings of a new run; says how long it is where that was not given in iterations."""
    from drakegpt.runs.start import resolve_run

    model = named_model(given, EXAMPLE)
    resolved = resolve_run(model, given.get("size", "default"), dataset, given)
    iterations = pluralize(resolved.iters, "iteration")
    if epochs := given.get("epochs"):
        console.note(f"Epochs: {epochs:,}, that is {iterations}")
    elif minutes := given.get("minutes"):
        console.note(f"--minutes {minutes:g} holds about {iterations} here")
    return resolved


def _train_and_score(
    run: "Run", *, resume: bool = False, quiet: bool, world: "ProcessGroup"
) -> "Scores":
    """Train a run with its progress on the screen, then score it on whole splits.

    When asked to stop, saves, says how to go on, and exits with 130.
    """
    from drakegpt.cli.interrupts import Interrupts
    from drakegpt.cli.progress import training_progress
    from drakegpt.runs.scores import score
    from drakegpt.runs.session import train_run

    with Interrupts() as interrupts, training_progress(run, world.size, quiet=quiet) as progress:
        finished = train_run(
            run, resume=resume, progress=progress, stop=lambda: interrupts.requested, world=world
        )
    if not finished:
        saved = run.checkpoints[-1].iteration
        console.note(f"Stopped at iteration {saved:,}; saved.", style="")
        console.next_commands([format_command("train", resume=run.name)])
        raise typer.Exit(console.INTERRUPTED)
    return score(run, run.config.device)


def named_model(given: "Mapping[str, Any]", example: str) -> str:
    """The model that the settings name, by itself or as a system's; `example` is for the error."""
    system = SYSTEMS.get(str(given.get("preset")))
    if (model := given.get("model", system and system.settings["model"])) is not None:
        return str(model)
    raise UsageError(
        "No model is named.",
        f"Name one of {', '.join(config.MODEL_NAMES)}, e.g. `{example}`, or a --preset, or a "
        "configuration file with one.",
    )


def _dataset_name(given: dict[str, Any]) -> str:
    from drakegpt.data import dataset

    return given.get("data", dataset.get_default_name() or "sample")


def _run_to_resume(target: str, given: dict[str, Any]) -> "tuple[Run, Run]":
    """The run meant by `--resume [TARGET]` and MODEL, and the same with the changes asked for."""
    from drakegpt.runs.lookup import find_unfinished
    from drakegpt.runs.run import with_changes

    run = find_unfinished(
        given.get("model") if target == LATEST else target,
        size=given.get("size"),
        data=given.get("data"),
    )
    return run, with_changes(run, given)


def _is_over(run: "Run", resumed: "Run") -> bool:
    """Whether `run` is finished and has neither more iterations nor other patience as `resumed`."""
    ending = run.ending
    if not ending or run.config.patience != resumed.config.patience:
        return False
    whole = ending["iteration"] >= resumed.config.iters
    return whole or (ending["reason"] == "patience" and run.config.iters == resumed.config.iters)


def _show_finished(run: "Run", *, json: bool) -> None:
    """Say that a run is finished, and what can be done with it."""
    from drakegpt.runs.scores import score

    if json:
        console.show_json(_as_json(run, score(run, run.config.device)))
        return
    last = run.evaluations[-1]["iteration"]
    early = ", stopped early" if run.ending["reason"] == "patience" else ""
    console.note(f"{run.name} is finished after {pluralize(last, 'iteration')}{early}.", style="")
    longer = format_command("train", resume=run.name, iters=2 * last)
    console.next_commands(
        [
            format_command("generate", run.name),
            format_command("eval", run.name),
            *([] if early else [longer]),
        ]
    )


def _as_json(run: "Run", scores: "Scores") -> dict[str, Any]:
    last = run.evaluations[-1]
    return {
        "run": str(run.folder),
        "model": run.config.model,
        "size": run.config.size,
        "data": run.config.data,
        "iterations": last["iteration"],
        "parts": [asdict(part) for part in run.parts],
        "train_loss": scores.train.loss,
        "val_loss": scores.val.loss,
        "best_val_loss": scores.best_val.loss,
        "tail_loss": scores.tail and scores.tail.loss,
        "select_on": run.config.select_on,
        "bits_per_character": scores.val.bits_per_character,
        "seconds": last["seconds"],
        "tokens_per_second": last["tokens_per_second"],
        "seed": run.config.seed,
        "evaluations": run.evaluations,
    }


def _render(run: "Run", scores: "Scores") -> None:
    from drakegpt.cli.progress import duration, sparkline
    from drakegpt.report.samples import sample

    evaluations = run.evaluations
    last = evaluations[-1]
    size = " (scaled)" if run.config.size == "scaled" else ""
    unit = run.tokenizer.unit
    tail = f"tail loss {scores.tail.loss:.4f}, " if scores.tail else ""
    console.show(
        f"{run.config.model}{size}: train loss {scores.train.loss:.4f}, {tail}"
        f"validation loss {scores.val.loss:.4f} nats per {unit} over the whole "
        f"{'of each part' if scores.tail else 'splits'} "
        f"({scores.val.bits_per_character:.3f} bits per character)"
    )
    console.show(
        f"{pluralize(last['iteration'], 'iteration')} in {duration(last['seconds'])}, "
        f"evaluations included; {last['tokens_per_second']:,.0f} tokens/s in training steps; "
        f"{'tail' if scores.tail else 'validation'} "
        f"{sparkline([evaluation['val_loss'] for evaluation in evaluations])}"
    )
    for sentence in _of_best_weights(run, scores):
        console.show(sentence)
    if run.history:
        console.show(f"It was {run.history}.")
    console.show(f"Run: {run.folder}\n")
    console.show_text(sample(run, SAMPLE_LENGTH, run.config.device).rstrip())


def _of_best_weights(run: "Run", scores: "Scores") -> Iterator[str]:
    """By what the best weights were chosen, why training ended, and whether they are better."""
    from drakegpt.evaluation.noise import own_fall
    from drakegpt.experiments.results import row_of

    best = min(run.evaluations, key=lambda e: float(e["val_loss"]))
    what = "the training split's tail" if scores.tail else "validation"
    chosen = (
        "the tail of the training split; validation chose nothing"
        if scores.tail
        else "the validation split, whose loss is shown above"
    )
    yield f"Best weights: of iteration {best['iteration']:,}, chosen by estimates on {chosen}."
    best_writes = format_command("generate", run.name, best=True)
    overfits = row_of([run])
    better = own_fall([scores.val.loss - scores.best_val.loss])
    if run.ending.get("reason") == "patience":
        waited = pluralize(run.config.patience, "evaluation")
        yield (
            f"Stopped early: {what} did not fall for {waited}, "
            f"estimated lowest at iteration {best['iteration']:,} ({best['val_loss']:.4f})."
        )
    if overfits.overfits_from:
        yield (
            f"Overfits from iteration {overfits.overfits_from:,} on: validation rose by "
            f"{overfits.overfits_by:.3f} nats while training fell. The weights from there are "
            f"kept: `{best_writes}`; what helps: `drakegpt compare --remedies`."
        )
    elif better.lower:
        yield (
            f"By exact losses the best weights are {better.amount} nats lower on validation than "
            f"the last: `{best_writes}`."
        )
