"""The program: its commands in the order one meets them, and its exit codes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from drakegpt import home
from drakegpt.cli import (
    bench,
    compare,
    console,
    data,
    eval_,
    export,
    generate,
    options,
    params,
    runs,
    sweep,
    train,
)
from drakegpt.errors import DrakeGPTError, NotEnoughMemoryError, is_out_of_memory
from drakegpt.version import __version__

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

    def make_context(self, *given: Any, **how: Any) -> Any:
        """Read the program's own options; a word in an error is shown as text."""
        with _shown_as_text():
            return super().make_context(*given, **how)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, whose options are read here."""
        with _shown_as_text():
            return super().invoke(ctx)


@contextmanager
def _shown_as_text() -> Iterator[None]:
    """Make typer's errors harmless to a terminal, and have them name the environment's variable."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):
            ctx, param = getattr(error, "ctx", None), getattr(error, "param", None)
            if ctx and param and param.envvar:
                source = ctx.get_parameter_source(param.name)
                if source and source.name == "ENVIRONMENT":
                    vars(error)["param_hint"] = param.envvar
            vars(error)["message"] = console.messages().text(str(getattr(error, "message", "")))
        raise


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
        app.command(name, cls=kind or options.Command, rich_help_panel=panel)(what)


def _version(wanted: bool) -> None:
    if wanted:
        console.show_text(f"drakegpt {__version__}")
        raise typer.Exit


@app.callback(epilog="Try: drakegpt compare --train --iters 2000, then: drakegpt generate")
def drakegpt_(
    _asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """How a GPT comes to be: six models, each adding one idea, on lyrics or your own text."""
    home.clear_leftovers()
    for misspelt in options.misspelt_variables():
        console.warn(misspelt)


# How OpenMP's threads wait for each other: of GCC on Linux, turns of a loop; of LLVM and Intel on
# macOS and Windows, milliseconds. By default they spin, at a thousand barriers in each training
# step, and where another program takes a core, the one that is waited for cannot run.
WAITING = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}


def let_threads_wait() -> None:
    """Have threads sleep soon where they wait, unless the user says how; before PyTorch loads."""
    if not {"OMP_WAIT_POLICY", *WAITING} & os.environ.keys():
        os.environ.update(WAITING)


def main() -> None:
    """Run the command line; every error a user can cause ends here, in one message."""
    let_threads_wait()
    with console.streams():
        sys.exit(_run())


def _run() -> int:
    """The exit code of the command that is asked for, after what there is to say of it."""
    console.pass_on_warnings()
    try:
        app(prog_name="drakegpt")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except Exception as error:
        if not (explained := _explained(error)):
            raise
        return console.fail(explained)
    return 0


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
            f"{error.filename or home.root()}: {error.strerror or error}.",
            f"Make room or get access there, or set {home.HOME_VARIABLE} to another folder.",
        )
    return None
