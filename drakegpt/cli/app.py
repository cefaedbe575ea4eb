"""The program: its commands in the order one meets them, and its exit codes."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import drakegpt
from drakegpt import paths
from drakegpt.cli import (
    bench,
    compare,
    console,
    data,
    eval_,
    generate,
    import_,
    options,
    params,
    presets,
    quantize,
    runs,
    sweep,
    train,
)
from drakegpt.errors import DrakeGPTError

ORDER = [
    "data",
    "params",
    "presets",
    "train",
    "sweep",
    "runs",
    "import",
    "quantize",
    "eval",
    "compare",
    "generate",
    "bench",
]


class InOrder(TyperGroup):
    """Lists commands in the order of use; typer would put groups behind plain commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names for the help text, which opens a panel where its first command comes."""
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(data.app, name="data", rich_help_panel="Text")
app.command("params", rich_help_panel="Models")(params.params)
app.command("presets", rich_help_panel="Models")(presets.presets)
app.command("train", cls=train.TrainCommand, rich_help_panel="Models")(train.train)
app.command("sweep", cls=options.SettingsCommand, rich_help_panel="Models")(sweep.sweep)
app.add_typer(runs.app, name="runs", rich_help_panel="Models")
app.command("import", rich_help_panel="Models")(import_.import_)
app.command("quantize", rich_help_panel="Models")(quantize.quantize)
app.command("eval", rich_help_panel="Results")(eval_.eval_)
app.command("compare", cls=options.SettingsCommand, rich_help_panel="Results")(compare.compare)
app.command("generate", rich_help_panel="Results")(generate.generate)
app.command("bench", rich_help_panel="Results")(bench.bench)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"drakegpt {drakegpt.__version__}\n")
        raise typer.Exit


@app.callback(epilog="Try: drakegpt compare --train --iters 2000, then: drakegpt generate")
def drakegpt_(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """How a GPT comes to be: six models, each adding one idea, on lyrics or your own text."""


def main() -> None:
    """Run the command line; every error a user can cause ends here, in one message."""
    console.use_utf8()
    console.pass_on_warnings()
    try:
        app(prog_name="drakegpt")
    except DrakeGPTError as error:
        sys.exit(console.fail(error))
    except OSError as error:  # a full disk, a folder without write access
        place = error.filename or paths.home()
        problem = f"{place}: {error.strerror or error}."
        fix = f"Make room or get access there, or set {paths.HOME_VARIABLE} to another folder."
        sys.exit(console.fail(DrakeGPTError(problem, fix)))
