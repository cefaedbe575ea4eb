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
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from drakegpt import config, home
from drakegpt.config import TrainConfig
from drakegpt.config.presets import PRESETS
from drakegpt.errors import UsageError, suggest_name

# Texts for which nothing is something.
MAY_BE_EMPTY = ("prompt",)


class Command(TyperCommand):
    """Refuses what is given but empty, such as a variable of a script that was never set.

    Else an empty RUN or name would be taken for one that is not given.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check what stands on the command line before any of it is taken up."""
        given, *_ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.get_params(ctx):
            value = given.get(parameter.name)
            values = value if isinstance(value, list | tuple) else [value]
            if parameter.name not in MAY_BE_EMPTY and any(
                isinstance(each, str) and not each.strip() for each in values
            ):
                raise UsageError(
                    f"{_as_written(parameter)} is empty.", "Give it a value, or leave it out."
                )
        return super().parse_args(ctx, args)


def _as_written(parameter: Any) -> str:
    """An option's longest name, or the word that stands for an argument in the help."""
    flag: str = max(parameter.opts, key=len)
    return flag if flag.startswith("-") else (parameter.metavar or flag).upper().strip("[]")


# Each is a run.
MOST_SEEDS = 10_000

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
        callback=lambda name: name and config.parse_model(name),
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


class SettingsCommand(Command):
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


def misspelt_variables() -> list[str]:
    """A sentence for each variable of the environment that looks like a setting and is none."""
    known = [home.HOME_VARIABLE, *(_variable(name) for name in ("data", *_SETTINGS))]
    names = [name for name in os.environ if name.startswith("DRAKEGPT_") and name not in known]
    return [f"{name} is not a variable of drakegpt. {suggest_name(name, known)}".strip()
            for name in sorted(names)]  # fmt: skip


def _variable(name: str) -> str:
    """The variable of the environment that stands for a setting."""
    return f"DRAKEGPT_{name.upper()}"


def _check_variable(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Check a setting that comes from the environment, in whose errors no flag is to blame."""
    source = ctx.get_parameter_source(str(param.name))
    if value is not None and source is not None and source.name == "ENVIRONMENT":
        _check_as_variable(str(param.name), lambda name: config.check_setting(name, value))
    return value


def _check_as_variable(name: str, check: Callable[[str], Any]) -> Any:
    """What `check` gives for a setting; its error names the variable."""
    try:
        return check(name)
    except UsageError as error:
        raise UsageError(f"{_variable(name)}: {error.problem}", error.fix) from error


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
        name = config.parse_setting_name(key, _SETTINGS)
        if name in without:
            raise UsageError(f"{name} cannot be set here.", "`drakegpt train` takes it.")
        if name in said:
            raise UsageError(f"{name} is given twice.", "Leave one of the two out.")
        said[name] = config.parse_value(name, text)
    given = {}
    for name in known:
        if name not in said and (text := os.environ.get(_variable(name), "")):
            read = functools.partial(config.parse_value, text=text)
            given[name] = _check_as_variable(name, read)
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
    # Where not all choices can be taken always, an error is to list those that can.
    kind = str if setting.unlisted else config.type_of(name)
    option = typer.Option(
        f"--{flag}/--no-{flag}" if switch else f"--{flag}",
        metavar=_metavar(name),
        autocompletion=(lambda: config.choices(name)) if setting.unlisted else None,
        help=setting.help + _preset_values(name),
        rich_help_panel=f"{setting.panel} settings",
        envvar=_variable(name),
        callback=_check_variable,
        show_envvar=False,
        show_default=False,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _metavar(name: str) -> str | None:
    """What stands for a value in help, where it is not all choices or the type."""
    setting = config.setting_of(name)
    return setting.metavar or (f"[{'|'.join(config.choices(name))}]" if setting.unlisted else None)


def _preset_values(name: str) -> str:
    """What the presets set, as the help shows it: `[8; scaled: 256]`."""
    default, scaled = (preset.get(name) for preset in PRESETS.values())
    if default in (None, ""):
        return ""
    shown = f"{default}" if default == scaled else f"{default}; scaled: {scaled}"
    return rf" \[{shown}]"  # the backslash: rich takes a bare [word] for markup
