"""Command-line options shared by commands, and those made from the settings of a run.

`drakegpt.config.TrainConfig` is the one list of settings. `with_settings` gives
`train` an option for each of them: name, type, help, preset values and
environment variable all come from there. Other commands take a few of them, and
the rest by `--set`.
"""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand

from drakegpt import config
from drakegpt.config import TrainConfig
from drakegpt.errors import UsageError
from drakegpt.presets import PRESETS


def _not_empty(name: str | None) -> str | None:
    """Refuse an empty name, such as that of a variable which was never set."""
    if name is not None and not name.strip():
        raise UsageError("--data is empty.", "Name a dataset, or leave --data out.")
    return name


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
        show_envvar=False, show_default=False, callback=_not_empty,
    ),
]  # fmt: skip
Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL|RUN]",
        help="A model (its latest run), a run's name or its folder. "
        "If not given: the run with the lowest validation loss, chosen by that.",
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

# Settings of runs on commands that do not offer all of them as flags.
_PANEL = "Settings of the runs"
Preset = Annotated[
    config.Preset | None,
    typer.Option(
        metavar="NAME", help="A whole system; `train --list-presets`.", rich_help_panel=_PANEL
    ),
]
Recipe = Annotated[
    config.Recipe | None,
    typer.Option(metavar="NAME", help="How to train: original or fast.", rich_help_panel=_PANEL),
]
Iters = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Training iterations.", rich_help_panel=_PANEL),
]
Large = Annotated[bool, typer.Option("--scaled", help="The large size.", rich_help_panel=_PANEL)]
SelectOn = Annotated[
    config.SelectOn | None,
    typer.Option(
        metavar="NAME",
        help="Chooses: training-tail (default), validation.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
DeviceOrNone = Annotated[
    config.Device | None,
    typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.", rich_help_panel=_PANEL),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings in TOML or YAML.", rich_help_panel=_PANEL
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another setting of `train`; may be repeated.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]

# All settings but those that commands spell out themselves.
_SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(TrainConfig)
    if field.name not in ("model", "size", "data")
)


class SettingsCommand(TyperCommand):
    """A command that takes settings by `--set`, and says so where one is given as a flag."""

    without: tuple[str, ...] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Explain a flag that `train` has and this command has not."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            flag = str(getattr(error, "option_name", ""))
            name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
            if type(error).__name__ != "NoSuchOption" or name not in _SETTINGS:
                raise
            fix = "Leave it out." if name in self.without else f"Write it as --set {name}=VALUE."
            raise UsageError(f"{flag} is a flag of `drakegpt train`.", fix) from None


def settings_given(
    pairs: Sequence[str] | None, without: tuple[str, ...], **flags: Any
) -> dict[str, Any]:
    """The settings of runs from the environment, `--set KEY=VALUE` and a command's own flags.

    Raises `UsageError` for what is no setting, cannot have that value, or is given twice.
    """
    known = [name for name in _SETTINGS if name not in without]
    said = {name: value for name, value in flags.items() if value is not None}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair} has no value.", "Write --set KEY=VALUE.")
        name = config.setting_named(key, _SETTINGS)
        if name in without:
            raise UsageError(f"{name} cannot be set here.", "`drakegpt train` takes it.")
        if name in said:
            raise UsageError(f"{name} is given twice.", "Leave one of the two out.")
        said[name] = config.value_from_text(name, text)
    given = {}
    for name in known:
        variable = f"DRAKEGPT_{name.upper()}"
        if name not in said and (text := os.environ.get(variable, "")):
            try:
                given[name] = config.value_from_text(name, text)
            except UsageError as error:
                raise UsageError(f"{variable}: {error.problem}", error.fix) from error
    return given | said


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `settings` of a command by one option per training setting.

    The command then receives a dict of those settings that were given, on the
    command line or in the environment (`DRAKEGPT_CONTEXT_LENGTH` and so on).
    """
    signature = inspect.signature(command, eval_str=True)
    options = [_option(name) for name in _SETTINGS]

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
    if default in (None, ""):
        return ""
    shown = f"{default}" if default == scaled else f"{default}; scaled: {scaled}"
    return rf" \[{shown}]"  # the backslash: rich takes a bare [word] for markup
