"""The settings of runs on the command line and in the environment.

`drakegpt.config.TrainConfig` is the one list of settings. `with_settings` gives
`train` an option for each of them, whose name, type, help, defaults and
environment variable all come from there. Other commands offer a few of them and
take the rest with `--set`.
"""

import dataclasses
import functools
import inspect
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from drakegpt import config, home
from drakegpt.cli.options import Command, complete_run
from drakegpt.config import PANELS, TrainConfig
from drakegpt.config.presets import SIZE_SETTINGS
from drakegpt.errors import UsageError, suggest_name

LR_VARIABLE = "DRAKEGPT_LR"  # of `train --lr`, which sets several settings
CHOICES_WIDTH = 14  # columns of the help that the choices of an option take

# All settings but those that commands have options of their own for, as the help shows them.
_SETTINGS = tuple(
    sorted(
        (
            field.name
            for field in dataclasses.fields(TrainConfig)
            if field.name not in ("model", "size", "data")
        ),
        key=lambda name: PANELS.index(config.setting_of(name).panel),
    )
)


class SettingsCommand(Command):
    """A command that takes settings with `--set`, and says so if one is given as a flag."""

    without: Mapping[str, str] = {}  # settings that it does not take, each with what to do

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Explain a flag that `train` has and this command has not."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            flag = str(getattr(error, "option_name", ""))
            name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
            if type(error).__name__ != "NoSuchOption" or name not in (*_SETTINGS, "lr"):
                raise
            if name == "lr":
                name = "max_lr"
            fix = self.without.get(name, f"Write it as --set {name}=VALUE.")
            raise UsageError(f"{flag} is a flag of `drakegpt train`.", fix) from None


def describe_misspelt_variables() -> list[str]:
    """Return a sentence for each environment variable that looks like a setting and is none."""
    known = [home.HOME_VARIABLE, LR_VARIABLE, *(_variable(name) for name in ("data", *_SETTINGS))]
    names = [name for name in os.environ if name.startswith("DRAKEGPT_") and name not in known]
    return [f"{name} is not a variable of drakegpt. {suggest_name(name, known)}".strip()
            for name in sorted(names)]  # fmt: skip


def _variable(name: str) -> str:
    """Return the name of the environment variable for a setting."""
    return f"DRAKEGPT_{name.upper()}"


def _check_variable(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Check a value that comes from the environment, so that an error does not name a flag."""
    source = ctx.get_parameter_source(str(param.name))
    if value is not None and source is not None and source.name == "ENVIRONMENT":
        _call_for_variable(str(param.name), lambda name: config.check_setting(name, value))
    return value


def _call_for_variable(name: str, check: Callable[[str], Any]) -> Any:
    """Return what `check` gives for a setting; its error names the environment variable."""
    try:
        return check(name)
    except UsageError as error:
        raise UsageError(f"{_variable(name)}: {error.problem}", error.fix) from error


def read_settings(
    pairs: Sequence[str] | None, without: Mapping[str, str], **flags: Any
) -> dict[str, Any]:
    """Collect settings from the environment, `--set KEY=VALUE` and a command's own flags.

    Raises `UsageError` for a setting that does not exist, cannot have that value, is
    in `without`, or is given twice.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair} has no value.", "Write --set KEY=VALUE.")
        name = config.parse_setting_name(key, _SETTINGS)
        if name in without:
            raise UsageError(f"{name} cannot be set here.", without[name])
        if name in given:
            raise UsageError(f"{name} is given twice.", "Leave one of the two out.")
        given[name] = config.parse_value(name, text)
    in_environment = {}
    for name in _SETTINGS:
        text = os.environ.get(_variable(name), "")
        if text and name not in given and name not in without:
            parse = functools.partial(config.parse_value, text=text)
            in_environment[name] = _call_for_variable(name, parse)
    return in_environment | given


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `settings` of a command by one option per training setting.

    The command receives a dict of the settings that were given, on the command line
    or in the environment (`DRAKEGPT_CONTEXT_LENGTH` and so on).
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
    """Make the option of a setting."""
    setting, flag = config.setting_of(name), name.replace("_", "-")
    switch = config.type_of(name) in (bool, bool | None)
    # An error lists the choices that the other settings allow, which typer does not know.
    kind = str if setting.unlisted else config.type_of(name)
    option = typer.Option(
        f"--{flag}/--no-{flag}" if switch else f"--{flag}",
        metavar=_metavar(name),
        autocompletion=_complete(name),
        help=setting.help + _describe_default(name),
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


def _complete(name: str) -> Callable[..., list[str]] | None:
    """Return what completes the value of a setting, if typer does not know its choices."""
    if config.setting_of(name).metavar == "RUN":
        return complete_run
    return (lambda: config.choices(name)) if config.setting_of(name).unlisted else None


def _metavar(name: str) -> str:
    """Return what stands for the value in the help: its choices, or a letter for numbers."""
    if metavar := config.setting_of(name).metavar:
        return metavar
    if choices := config.choices(name):
        lines = textwrap.wrap(
            "| ".join(choices), CHOICES_WIDTH, break_on_hyphens=False, break_long_words=False
        )
        return "\n".join(lines).replace("| ", "|")
    return {int: "N", float: "X", str: "NAME"}.get(config.type_of(name), "")


def _describe_default(name: str) -> str:
    """Return the default at both sizes as the help shows it: `[default: 8; scaled: 256]`."""
    default, scaled = (preset.get(name) for preset in SIZE_SETTINGS.values())
    if default in (None, ""):
        return ""
    zero = config.setting_of(name).zero
    shown = [
        "off" if value is False else zero if zero and not value else _format(value)
        for value in (default, scaled)
    ]
    text = shown[0] if default == scaled else f"{shown[0]}; scaled: {shown[1]}"
    return rf" \[default: {text}]"  # the backslash: rich takes a bare [word] for markup


def _format(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
