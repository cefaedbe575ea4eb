"""The program: its commands in the order one meets them, and its exit codes."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import drakegpt
from drakegpt import paths
from drakegpt.cli import (
    bench,
    compare,
    console,
    data,
    eval_,
    export,
    generate,
    params,
    runs,
    sweep,
    train,
)
from drakegpt.errors import DrakeGPTError, NotEnoughMemoryError, is_out_of_memory

# Every command: the panel of the help that it is in, its name, what it does, its class.
COMMANDS: tuple[tuple[str, str, Any, type[TyperCommand] | None], ...] = (
    ("Text", "data", data.app, None),
    ("Models", "train", train.train, train.TrainCommand),
    ("Models", "sweep", sweep.sweep, sweep.SweepCommand),
    ("Models", "runs", runs.app, None),
    ("Models", "params", params.params, None),
    ("Results", "eval", eval_.eval_, None),
    ("Results", "compare", compare.compare, compare.CompareCommand),
    ("Results", "generate", generate.generate, None),
    ("Results", "export", export.app, None),
    ("Results", "bench", bench.bench, None),
)


class InOrder(TyperGroup):
    """Lists commands in the order of the table; typer would put groups behind plain commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names for the help text, which opens a panel where its first command comes."""
        order = [name for _, name, *_ in COMMANDS]
        return sorted(super().list_commands(ctx), key=order.index)


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)
for panel, name, what, kind in COMMANDS:
    if isinstance(what, typer.Typer):
        app.add_typer(what, name=name, rich_help_panel=panel)
    else:
        app.command(name, cls=kind, rich_help_panel=panel)(what)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"drakegpt {drakegpt.__version__}\n")
        raise typer.Exit


@app.callback(epilog="Try: drakegpt compare --train --iters 2000, then: drakegpt generate")
def drakegpt_(
    _asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """How a GPT comes to be: six models, each adding one idea, on lyrics or your own text."""
    paths.remove_dead_workplaces()


def main() -> None:
    """Run the command line; every error a user can cause ends here, in one message."""
    console.use_utf8()
    console.pass_on_warnings()
    try:
        app(prog_name="drakegpt")
    except Exception as error:
        if not (explained := _explained(error)):
            raise
        sys.exit(console.fail(explained))


def _explained(error: Exception) -> DrakeGPTError | None:
    """What a user can do something about, as the error that says what; `None` for anything else."""
    if isinstance(error, DrakeGPTError):
        return error
    if is_out_of_memory(error):
        return NotEnoughMemoryError(
            "There is not enough memory for this.",
            "Close other programs, or take a smaller model, a shorter text, or a smaller "
            "--batch-size or --num-samples.",
        )
    if isinstance(error, OSError):  # a full disk, a folder without write access
        return DrakeGPTError(
            f"{error.filename or paths.home()}: {error.strerror or error}.",
            f"Make room or get access there, or set {paths.HOME_VARIABLE} to another folder.",
        )
    return None
