"""`drakegpt train`: train a model with its progress on the screen, score it, show a sample."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt import config
from drakegpt.cli import console, options
from drakegpt.cli.inputs import load_dataset, require_model
from drakegpt.cli.settings import LR_VARIABLE, with_settings
from drakegpt.config import files
from drakegpt.errors import UsageError
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    from drakegpt.config import TrainConfig
    from drakegpt.data.dataset import Dataset
    from drakegpt.runs.run import Run
    from drakegpt.training.distributed import ProcessGroup

EXAMPLE = "drakegpt train TransformerLM"
# Floating-point operations that take a CPU of two cores some ten minutes at least.
LONG_OPERATIONS = 10**14
LATEST = "-"  # the value of a lone `--resume`; no run can have that name


class TrainCommand(options.Command):
    """Lets `--resume` stand alone or take a value, which typer cannot express."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a lone `--resume` a value."""
        followers = [*args, "-"][1:]
        args = [
            f"--resume={LATEST}" if arg == "--resume" and after.startswith("-") else arg
            for arg, after in zip(args, followers, strict=True)
        ]
        return super().parse_args(ctx, args)


@with_settings
def train(
    settings: dict[str, Any],
    model: options.OptionalModel = None,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Peak learning rate; --base-lr and --muon-lr keep their ratio to it. With a "
            "schedule that does not go down to --base-lr, such as constant, it is both.",
            rich_help_panel="Common settings",
            envvar=LR_VARIABLE,
            show_envvar=False,
        ),
    ] = None,
    data: options.Data = None,
    scaled: options.Scaled = False,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the run; default: dataset and number."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[RUN]",
            help="Resume RUN, or the latest unfinished run (of MODEL).",
            autocompletion=options.complete_run,
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            max=options.MAX_SEEDS,
            metavar="N",
            help="Number of runs, with seeds --seed, --seed + 1 and so on.",
        ),
    ] = 1,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings in TOML or YAML; flags win."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings as TOML and exit.")
    ] = False,
    list_presets: Annotated[
        bool,
        typer.Option(
            "--list-presets", help="List the presets, with the times that are known, and exit."
        ),
    ] = False,
    times: Annotated[
        bool,
        typer.Option(
            "--times", help="With --list-presets: measure how long each takes on this machine."
        ),
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model (also with torchrun, on several processes or GPUs)."""
    started = time.monotonic()
    if list_presets:
        from drakegpt.cli.presets import show_presets

        show_presets(measure=times, json=json, quiet=quiet)
        return
    if times:
        raise UsageError("--times is for --list-presets.", "Add that, or leave it out.")
    given = files.from_file(config_file) if config_file else {}
    flags = {"model": model, "size": "scaled" if scaled else None, "data": data}
    given |= {key: value for key, value in flags.items() if value is not None}
    if lr is not None:
        given.pop("max_lr", None)  # of the file, over which flags win
        settings |= _expand_lr(lr, given, settings)
    given |= settings
    if print_config:
        _print_config(given)
        return
    if resume is not None and name is not None:
        raise UsageError("A resumed run keeps its name.", "Leave out --name, or --resume.")
    if seeds == 1:
        _train_run(given, name, resume, started, json=json, quiet=quiet)
    elif resume is None:
        _train_seeds(given, seeds, name, json=json, quiet=quiet)
    else:
        raise UsageError("--seeds makes new runs.", "Resume each run by its name.")


def _expand_lr(
    lr: float, given: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, float]:
    """Return the learning rates that `--lr` stands for, beside those of a file and of flags."""
    model = require_model({**given, **settings}, EXAMPLE)
    return config.expand_lr(lr, model, given.get("size", "default"), given, settings)


def _print_config(given: dict[str, Any]) -> None:
    """Print all settings of the run that `given` would start, as TOML.

    Without the dataset, those that depend on it stay as they are given.
    """
    from drakegpt.data import dataset

    data = given.get("data", dataset.get_default_name() or "sample")
    if data in dataset.list_names():
        resolved = _resolve(given, dataset.load(data))
    else:
        model, size = require_model(given, EXAMPLE), given.get("size", "default")
        resolved = config.resolve(model, size, data, given)
    console.show_text(files.to_toml(resolved).rstrip("\n"))


def _train_run(
    given: dict[str, Any],
    name: str | None,
    resume: str | None,
    started: float,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Train a new run, or resume one, and show its losses.

    `started`: when the command was, in seconds of `time.monotonic`; the time of a run counts
    from there.
    """
    from drakegpt.cli.progress import score_with_progress
    from drakegpt.cli.train_output import show_finished, show_run

    with _process_group(given.get("device", "auto")) as group:
        if not group.is_main:
            _follow(group, resume=resume is not None)
            return
        if resume is not None:
            chosen, run = _find_run_to_resume(resume, given)
            if group.size == 1 and _is_over(chosen, run):
                show_finished(run, json=json)
                return
            if group.size > 1 and run.config.minutes:
                raise UsageError("--minutes is measured with one process.", "Give --iters as well.")
            console.note(f"Resuming {run.name}")
        else:
            run = _start_run(given, name, group)
        _train_with_progress(run, group, started, resume=resume is not None, quiet=quiet)
        scores = score_with_progress(run, run.config.device, quiet=quiet)
    show_run(run, scores, json=json)


def _start_run(given: dict[str, Any], name: str | None, group: "ProcessGroup") -> "Run":
    """Make the folder of a new run."""
    from drakegpt.runs.start import start_run

    if group.size > 1 and given.get("minutes"):
        raise UsageError("--minutes is measured with one process.", "Give --iters instead.")
    dataset = _load_dataset(given)
    resolved = _resolve(given, dataset)
    run = start_run(resolved, dataset, name)  # checks first that it fits in memory
    if not given.get("minutes"):
        _note_long_training(resolved, dataset)
    return run


def _load_dataset(given: dict[str, Any]) -> "Dataset":
    """Load the dataset that is named, or prepare the file; `given` names the dataset then."""
    dataset = load_dataset(given.get("data"))
    if "data" in given:
        given["data"] = dataset.name
    return dataset


def _note_long_training(resolved: "TrainConfig", dataset: "Dataset") -> None:
    """Note how long a training on a CPU takes, if its arithmetic alone takes many minutes."""
    from drakegpt.cli.short_forms import format_estimate
    from drakegpt.compute.device import choose_device
    from drakegpt.training.run_length import count_operations, estimate_seconds

    tokenizer, metadata = dataset.tokenizer, dataset.metadata
    if choose_device(resolved.device).type != "cpu":
        return
    if count_operations(resolved, tokenizer.vocab_size) < LONG_OPERATIONS:
        return
    seconds = estimate_seconds(
        resolved, tokenizer.vocab_size, metadata.train_tokens, metadata.val_tokens
    )
    console.note(
        f"This takes about {format_estimate(seconds)} on this machine's CPU. Ctrl-C saves the run, "
        "and --resume continues it."
    )


def _train_seeds(
    given: dict[str, Any], seeds: int, name: str | None, *, json: bool, quiet: bool
) -> None:
    """Train runs that differ in their seed only, and show them together."""
    from drakegpt.cli.run_launcher import RunLauncher
    from drakegpt.cli.train_output import show_seeds
    from drakegpt.experiments.experiment import list_seeds
    from drakegpt.experiments.launcher import Job
    from drakegpt.runs.lookup import find_run

    if "WORLD_SIZE" in os.environ:
        raise UsageError(
            "torchrun's processes train one run together.", "Leave out torchrun, or --seeds."
        )
    dataset = _load_dataset(given)
    first = _resolve(given, dataset)
    first = replace(first, minutes=0.0, max_epochs=0)  # the same number of iterations for all
    if first.init_from:  # looked up once: for the next seed, a model's name would mean the first
        first = replace(first, init_from=find_run(first.init_from).name)
    common = asdict(first)
    configs = [
        config.resolve(first.model, first.size, first.data, common, {"seed": seed})
        for seed in list_seeds(common, seeds)
    ]
    jobs = [Job(each, name=f"{name}_{each.seed}" if name else None) for each in configs]
    show_seeds(RunLauncher(dataset, quiet=quiet, resume=False)(jobs), json=json)


@contextmanager
def _process_group(device: str) -> Iterator["ProcessGroup"]:
    """Connect the processes of this training, if torchrun has started several."""
    from drakegpt.training.distributed import connect, disconnect

    try:
        yield connect(device)
    finally:
        disconnect()


def _follow(group: "ProcessGroup", *, resume: bool) -> None:
    """Train along with the first process, which alone writes, prints and answers Ctrl-C."""
    from drakegpt.runs.session import follow
    from drakegpt.training.distributed import ProcessLostError, disconnect

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # this process stops when the first one does
    try:
        follow(Path(group.broadcast()), group, resume=resume)
    except ProcessLostError:  # the first process has said why, or was stopped
        raise typer.Exit(1) from None
    disconnect()
    # Not through Python's clean-up, in which gloo's threads abort now and then (torch 2.13), so
    # that torchrun would report a finished run as failed.
    sys.stderr.flush()
    os._exit(0)


def _resolve(given: dict[str, Any], dataset: "Dataset") -> "TrainConfig":
    """Resolve the settings of a new run; note its iterations where epochs or minutes are given."""
    from drakegpt.runs.start import resolve_run

    model = require_model(given, EXAMPLE)
    if given.get("minutes"):
        console.note("Measuring how fast this machine is…")
    resolved = resolve_run(model, given.get("size", "default"), dataset, given)
    iterations = pluralize(resolved.iters, "iteration")
    if epochs := given.get("epochs"):
        console.note(f"{pluralize(epochs, 'epoch')}: {iterations}")
    elif minutes := given.get("minutes"):
        console.note(f"{pluralize(minutes, 'minute')}: about {iterations} on this machine")
    return resolved


def _train_with_progress(
    run: "Run", group: "ProcessGroup", started: float, *, resume: bool, quiet: bool
) -> None:
    """Train a run; when interrupted, save it, say how to resume it, and exit with 130."""
    from drakegpt.cli.interrupts import Interrupts
    from drakegpt.cli.progress import training_progress
    from drakegpt.runs.session import train_run

    with Interrupts() as interrupts, training_progress(run, group.size, quiet=quiet) as progress:
        finished = train_run(
            run,
            resume=resume,
            progress=progress,
            stop=lambda: interrupts.requested,
            group=group,
            started=started,
        )
    if not finished:
        saved = run.checkpoints[-1].iteration
        console.note(f"Stopped at iteration {saved:,}; saved.", style="")
        console.next_commands([format_command("train", resume=run.name)])
        raise typer.Exit(console.INTERRUPTED)


def _find_run_to_resume(target: str, given: dict[str, Any]) -> "tuple[Run, Run]":
    """Find the run that `--resume [TARGET]` and MODEL mean; return it, and it with changes."""
    from drakegpt.runs.changes import change_settings
    from drakegpt.runs.lookup import find_unfinished

    run = find_unfinished(
        given.get("model") if target == LATEST else target,
        size=given.get("size"),
        data=given.get("data"),
    )
    return run, change_settings(run, given)


def _is_over(run: "Run", resumed: "Run") -> bool:
    """Return whether `run` is finished, and `resumed` has no more iterations, time or patience."""
    ending, same = run.ending, run.config.patience == resumed.config.patience
    if not ending or not same or run.config.minutes != resumed.config.minutes:
        return False
    if run.config.minutes:
        return True
    whole = ending["iteration"] >= resumed.config.iters
    return whole or (ending["reason"] == "patience" and run.config.iters == resumed.config.iters)
