"""`drakegpt bench`: measure this machine, beside textbook code and other programs.

Not here: the tables (`bench_output`) and the measurements (`drakegpt.bench`).
"""

from dataclasses import fields
from typing import Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.bench_output import show_speeds, show_time_to_loss
from drakegpt.cli.settings import read_settings
from drakegpt.config import LADDER, TrainConfig, parse_model
from drakegpt.config.schema import Dtype
from drakegpt.errors import UsageError

ROUNDS, ROUNDS_TO_LOSS = 7, 1
# Settings that the other programs can have as well.
_SHAPE = ("batch_size", "context_length", "embedding_dim", "num_heads", "num_layers", "dropout")
# Settings that training until a loss cannot have, or has flags for, each with what to do.
_NOT_TO_LOSS = dict.fromkeys(
    ("preset", "init_from", "patience", "save_interval", "select_on", "wandb"),
    "`drakegpt train` takes it.",
) | {name: f"Write it as --{name}." for name in ("device", "dtype")}
_NOT_SHAPE = {
    field.name: f"Only --to-loss takes it, beside {', '.join(_SHAPE)}."
    for field in fields(TrainConfig)
    if field.name not in (*_NOT_TO_LOSS, *_SHAPE)
} | _NOT_TO_LOSS


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"Any of {', '.join(LADDER)}; default: all.",
            callback=lambda names: [parse_model(name, LADDER) for name in names or []],
            autocompletion=lambda: list(LADDER),
            show_default=False,
        ),
    ] = None,
    scaled: Annotated[
        bool,
        typer.Option("--scaled", help="Large size, by default TransformerLM only; takes minutes."),
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            metavar="N",
            help=f"Measurement rounds; medians are reported. Default: {ROUNDS}; "
            f"with --to-loss: {ROUNDS_TO_LOSS}.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also measure peak memory, each in a new process.")
    ] = False,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Also measure training by torch.compile, which takes a minute for each model, "
            "and by Hugging Face's GPT-2 if transformers is installed.",
        ),
    ] = False,
    to_loss: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="LOSS",
            help="Measure the time of training until this validation loss, beside nanoGPT's "
            "settings for a CPU; it states 1.88 on tiny Shakespeare.",
            show_default=False,
        ),
    ] = None,
    max_minutes: Annotated[
        float,
        typer.Option(
            min=0.0, metavar="X", help="With --to-loss: minutes after which a program is stopped."
        ),
    ] = 10.0,
    data: options.Data = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help=f"Another shape: {', '.join(_SHAPE)}; repeatable. With --to-loss: any setting of "
            "`drakegpt train`, for drakegpt.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        Dtype,
        typer.Option(
            metavar="NAME",
            help="Dtype of training: auto, float32 or bfloat16, which plain PyTorch then has too, "
            "by autocast.",
        ),
    ] = "auto",
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Benchmark against textbook code and the limit of the hardware."""
    shown = {"json": json, "quiet": quiet}
    if to_loss is None:
        settings = read_settings(set_, _NOT_SHAPE) | {"dtype": dtype}
        size = "scaled" if scaled else "default"
        names = models or (["TransformerLM"] if scaled else list(LADDER))
        extra = {"memory": memory, "peers": peers}
        _bench_speed(names, size, settings, rounds or ROUNDS, extra, device, **shown)
        return
    model, *others = models or ["TransformerLM"]
    unusable = {"--scaled": scaled, "--memory": memory, "--peers": peers, " ".join(others): others}
    if unused := [word for word, given in unusable.items() if given]:
        raise UsageError(f"--to-loss cannot use {' and '.join(unused)}.", "Leave that out.")
    settings = read_settings(set_, _NOT_TO_LOSS) | {"dtype": dtype}
    limits = {"rounds": rounds or ROUNDS_TO_LOSS, "seconds": 60 * max_minutes}
    _bench_to_loss(model, settings, to_loss, data, limits, device, **shown)


def _bench_speed(
    names: list[str],
    size: str,
    shape: dict[str, Any],
    rounds: int,
    extra: dict[str, bool],
    device: str,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Measure the models one after another, and show the results."""
    from drakegpt.bench.hardware import describe_machine
    from drakegpt.bench.timing import describe_settings, measure
    from drakegpt.bench.workloads import bench_config
    from drakegpt.cli.progress import counting
    from drakegpt.compute.device import choose_device

    chosen_device = choose_device(device)
    configs = [bench_config(name, size, shape) for name in names]
    measured = []
    for number, config in enumerate(configs, 1):
        title = f"{config.model} ({number} of {len(names)})"
        with counting(title, quiet=quiet) as progress:
            measured.append(measure(config, rounds, chosen_device, **extra, progress=progress))
    machine, settings = describe_machine(chosen_device), describe_settings(rounds)
    if json:
        models_json = [measurement.to_json() for measurement in measured]
        console.show_json({"machine": machine, "settings": settings, "models": models_json})
    else:
        show_speeds(measured, machine, settings)


def _bench_to_loss(
    model: str,
    given: dict[str, Any],
    target: float,
    data_name: str | None,
    limits: dict[str, Any],
    device: str,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Train both programs until the loss, and show the results."""
    from drakegpt.bench.hardware import describe_machine
    from drakegpt.bench.to_loss import LAPTOP, describe_settings, measure_to_loss
    from drakegpt.cli.inputs import load_dataset
    from drakegpt.cli.progress import counting
    from drakegpt.compute.device import choose_device
    from drakegpt.runs.start import resolve_run

    chosen_device = choose_device(device)
    data = load_dataset(data_name)
    config = resolve_run(model, "default", data, LAPTOP, given)
    with counting("Training", quiet=quiet) as progress:
        attempts = measure_to_loss(config, data, target, chosen_device, **limits, progress=progress)
    machine, settings = describe_machine(chosen_device), describe_settings(config, target, **limits)
    if json:
        shown = [attempt.to_json() for attempt in attempts]
        console.show_json({"machine": machine, "settings": settings, "attempts": shown})
    else:
        show_time_to_loss(attempts, settings, machine)
