"""Command-line options shared by commands, and those made from the settings of a run.

`drakegpt.config.TrainConfig` is the one list of settings. `with_settings` gives
a command an option for each of them: name, type, help, preset values and
environment variable all come from there.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args

import typer

from drakegpt import config
from drakegpt.config import TrainConfig
from drakegpt.presets import PRESETS

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Scaled = Annotated[
    bool, typer.Option("--scaled", help="The large size: context 256, width 384, 6 layers.")
]
ModelOrNone = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help=f"One of {', '.join(config.MODEL_NAMES)}.",
        callback=lambda name: name and config.model_named(name),
        autocompletion=lambda: list(config.MODEL_NAMES),
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Dataset by name; the one fetched last if not given.", envvar="DRAKEGPT_DATA",
        show_envvar=False, show_default=False,
    ),
]  # fmt: skip
Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL|RUN]",
        help="A model (its latest run), a run's name or its folder. "
        "If not given: the run with the lowest validation loss.",
        show_default=False,
    ),
]
Device = Annotated[
    config.Device,
    typer.Option(
        help="Where to compute; auto takes a GPU if there is one.",
        envvar="DRAKEGPT_DEVICE",
        show_envvar=False,
    ),
]

# Settings that commands spell out themselves.
_SPELT_OUT = ("model", "size", "data")


def with_settings(
    command: Callable[..., None], without: tuple[str, ...] = ()
) -> Callable[..., None]:
    """Replace the parameter `settings` of a command by one option per training setting.

    The command then receives a dict of those settings that were given, on the
    command line or in the environment (`DRAKEGPT_CONTEXT_LENGTH` and so on).
    Settings named in `without` get none.
    """
    signature = inspect.signature(command, eval_str=True)
    options = [
        _option(field.name)
        for field in dataclasses.fields(TrainConfig)
        if field.name not in (*_SPELT_OUT, *without)
    ]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        settings = {option.name: given.pop(option.name) for option in options}
        settings = {name: value for name, value in settings.items() if value is not None}
        command(**given, settings=settings)

    parameters = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in signature.parameters.values()
        if p.name != "settings"
    ]
    shown = signature.replace(parameters=[*parameters, *options])
    wrapped.__signature__ = shown  # type: ignore[attr-defined]
    del wrapped.__wrapped__
    return wrapped


@functools.cache
def _option(name: str) -> inspect.Parameter:
    setting, flag = config.setting_of(name), name.replace("_", "-")
    switch = config.type_of(name) in (bool, bool | None)
    option = typer.Option(
        f"--{flag}/--no-{flag}" if switch else f"--{flag}",
        metavar=_listed(name),
        help=setting.help + _preset_values(name),
        rich_help_panel=f"{setting.panel} settings",
        envvar=f"DRAKEGPT_{name.upper()}",
        show_envvar=False,
        show_default=False,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[config.type_of(name) | None, option],
    )


def _listed(name: str) -> str | None:
    """The values that help lists, where not all of them are; `None` where they are."""
    unlisted = config.setting_of(name).unlisted
    values = [value for value in get_args(config.type_of(name)) if value not in unlisted]
    return f"[{'|'.join(values)}]" if unlisted else None


def _preset_values(name: str) -> str:
    """What the presets set, as the help shows it: `[8; scaled: 256]`."""
    default, scaled = (preset.get(name) for preset in PRESETS.values())
    if default is None:
        return ""
    shown = f"{default}" if default == scaled else f"{default}; scaled: {scaled}"
    return rf" \[{shown}]"  # the backslash: rich takes a bare [word] for markup
