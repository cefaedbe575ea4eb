"""What commands share: their class, which checks words and shows help, and common options."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from drakegpt import config
from drakegpt.config.presets import SIZE_SETTINGS
from drakegpt.errors import UsageError

MAY_BE_EMPTY = ("prompt",)  # options whose value may be an empty text
MAX_SEEDS = 10_000
NARROW = 60  # columns
WHOLE = 1000  # characters: more than a sentence has


class PlainHelp:
    """Help without the types and technical bounds that typer shows.

    On a narrow screen, where typer's columns would cut the names of options, it has
    the plain layout of other programs.
    """

    help: str | None
    rich_markup_mode: Any

    def get_params(self, ctx: Any) -> list[Any]:
        """Return options and arguments, so marked that help shows what a user needs."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if isinstance(parameter, TyperArgument):
                vars(parameter)["display_type_rich"] = lambda **_: None
                vars(parameter)["get_usage_pieces"] = partial(_name_in_usage, parameter)
            elif isinstance(parameter, TyperOption):
                parameter.min = parameter.max = None  # only shown; values are checked elsewhere
                if parameter.is_flag:
                    parameter.metavar = ""
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, its paragraphs filled to the width of the screen."""
        paragraphs = (self.help or "").split("\n\n")
        self.help = "\n\n".join(" ".join(each.split()) for each in paragraphs)
        if shutil.get_terminal_size().columns < NARROW:
            self.rich_markup_mode = None
            self.help = self.help.replace(r"\[", "[")
            for parameter in self.get_params(ctx):
                parameter.help = (parameter.help or "").replace(r"\[", "[")
                if "\n" in (parameter.metavar or ""):
                    choices = parameter.metavar.replace("\n", "").replace("|", ", ")
                    parameter.help += f" One of {choices}."
                    parameter.metavar = "NAME"
        with _without_negations(self.get_params(ctx)):
            super().format_help(ctx, formatter)  # type: ignore[misc]


@contextmanager
def _without_negations(parameters: list[Any]) -> Iterator[None]:
    """Hide `--no-` forms of settings that are off by default: they would narrow all columns."""
    off = [each for each in parameters if SIZE_SETTINGS["default"].get(each.name) is False]
    kept = [each.secondary_opts for each in off]
    for each in off:
        each.secondary_opts = []
    try:
        yield
    finally:
        for each, negations in zip(off, kept, strict=True):
            each.secondary_opts = negations


class Command(PlainHelp, TyperCommand):
    """A command that refuses options that are given but empty.

    An empty RUN, such as a shell variable that was never set, would otherwise count
    as not given.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check the words of the command line before any of them takes effect."""
        given, *_ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.get_params(ctx):
            value = given.get(parameter.name)
            values = value if isinstance(value, list | tuple) else [value]
            if parameter.name not in MAY_BE_EMPTY and any(
                isinstance(each, str) and not each.strip() for each in values
            ):
                raise UsageError(
                    f"{_name_in_help(parameter)} is empty.", "Give it a value, or leave it out."
                )
        return super().parse_args(ctx, args)


class Group(PlainHelp, TyperGroup):
    """A group of commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `help COMMAND` for `COMMAND --help`."""
        if args[:1] == ["help"] and "help" not in self.commands:
            args = [*args[1:], "--help"]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands in plain help, where typer would cut what they do."""
        names = self.list_commands(ctx)
        told = [(name, self.commands[name].get_short_help_str(WHOLE)) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(told)


def _name_in_usage(argument: Any, _: Any) -> list[str]:
    """Return an argument's name, in brackets if it may be left out, with dots if repeatable."""
    name = argument.metavar or argument.name.upper()
    return [(name if argument.required else f"[{name}]") + "..." * (argument.nargs == -1)]


def _name_in_help(parameter: Any) -> str:
    """Return an option's longest name, or the name of an argument in the help."""
    flag: str = max(parameter.opts, key=len)
    return flag if flag.startswith("-") else (parameter.metavar or flag).upper()


def complete_run(incomplete: str) -> list[str]:
    """List the runs, and the words that stand for one, that begin with what was typed."""
    from drakegpt.runs.lookup import BEST, LATEST, list_run_names

    return _filter((*list_run_names(), LATEST, BEST), incomplete)


def complete_target(incomplete: str) -> list[str]:
    """List the models and the runs that begin with what was typed."""
    return [*_filter(config.MODEL_NAMES, incomplete), *complete_run(incomplete)]


def complete_dataset(incomplete: str) -> list[str]:
    """List the datasets that begin with what was typed."""
    from drakegpt.data.dataset import list_names

    return _filter(list_names(), incomplete)


def _filter(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


Temperature = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=config.LARGEST_FLOAT,
        metavar="X",
        help="Sampling temperature; 0 always takes the likeliest token.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print results as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Scaled = Annotated[
    bool, typer.Option("--scaled", help="Large size: context 256, width 384, 6 layers.")
]
OptionalModel = Annotated[
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
        metavar="NAME|FILE",
        help="Dataset or text file; default: the one fetched last.",
        autocompletion=complete_dataset,
        envvar="DRAKEGPT_DATA",
        show_envvar=False,
        show_default=False,
    ),
]
Target = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL|RUN",
        help="A run by name, its beginning or its folder; latest; or the latest run of a model. "
        "Default: best, the run with the lowest validation loss.",
        autocompletion=complete_target,
        show_default=False,
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL|RUN",
        help="A run by name, its beginning or its folder; latest; or the latest run of a model. "
        "Several are averaged as an ensemble. Default: best, the run with the lowest validation "
        "loss.",
        autocompletion=complete_target,
        show_default=False,
    ),
]
Counts = Annotated[
    bool,
    typer.Option(
        "--counts",
        help="Mix in n-gram counts of the training split.",
    ),
]
Device = Annotated[
    config.Device,
    typer.Option(
        help="Device; auto uses a GPU if there is one.",
        envvar="DRAKEGPT_DEVICE",
        show_envvar=False,
    ),
]

# Settings of runs on commands that do not offer all of them as flags.
_PANEL = "Settings of the runs"
Preset = Annotated[
    config.Preset | None,
    typer.Option(
        metavar="NAME",
        help="Preset; see `drakegpt train --list-presets`.",
        rich_help_panel=_PANEL,
    ),
]
LadderPreset = Annotated[
    config.Preset | None,
    typer.Option(
        metavar="NAME",
        help="Preset; with --train and no other setting: class.",
        rich_help_panel=_PANEL,
    ),
]
Recipe = Annotated[
    config.Recipe | None,
    typer.Option(
        metavar="NAME", help="Training recipe: original, fast or best.", rich_help_panel=_PANEL
    ),
]
Iters = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Number of training iterations.", rich_help_panel=_PANEL),
]
ScaledRuns = Annotated[
    bool, typer.Option("--scaled", help="Use the large size.", rich_help_panel=_PANEL)
]
SelectOn = Annotated[
    config.SelectOn | None,
    typer.Option(
        metavar="NAME",
        help="Ranking: training-tail (default), validation.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
OptionalDevice = Annotated[
    config.Device | None,
    typer.Option(metavar="NAME", help="Device: auto, cpu, cuda or mps.", rich_help_panel=_PANEL),
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
        help="Other setting of `drakegpt train`; repeatable.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
