"""The program: the table of its commands, and what becomes of errors."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from drakegpt import home
from drakegpt.cli import (
    bench,
    console,
    data,
    doctor,
    export,
    export_model,
    export_page,
    generate,
    params,
    runs,
    settings,
    sweep,
    write,
)
from drakegpt.cli import eval as eval_
from drakegpt.cli import train as train_
from drakegpt.cli.compare import command as compare
from drakegpt.cli.options import Command, Group
from drakegpt.errors import (
    DrakeGPTError,
    NotEnoughMemoryError,
    UsageError,
    is_out_of_memory,
    suggest_name,
)
from drakegpt.export.formats import make_help
from drakegpt.version import __version__


@dataclass(frozen=True)
class Entry:
    """A command: its words, what it calls, an example for its help, and its class."""

    name: str
    function: Callable[..., None]
    example: str
    kind: type[Command] = Command


@dataclass(frozen=True)
class GroupEntry:
    """A group of commands, and what it calls where no command follows, if anything."""

    name: str
    help: str
    function: Callable[..., None] | None = None


# Every command and group, by the panel of the help that shows it, in the order of the help.
COMMANDS: dict[str, tuple[Entry | GroupEntry, ...]] = {
    "Text": (
        Entry("write", write.write, "drakegpt write my-lyrics.txt"),
        GroupEntry("data", "Prepare texts for training, and list, show or remove them."),
        Entry("data add", data.add, "drakegpt data add my-lyrics.txt --tokenizer bpe"),
        Entry("data fetch", data.add, "drakegpt data fetch shakespeare"),
        Entry("data list", data.list_, "drakegpt data list"),
        Entry("data show", data.show, "drakegpt data show shakespeare"),
        Entry("data remove", data.remove, "drakegpt data remove shakespeare"),
    ),
    "Models": (
        Entry(
            "train",
            train_.train,
            "drakegpt train TransformerLM --recipe fast --minutes 10",
            train_.TrainCommand,
        ),
        Entry(
            "sweep",
            sweep.sweep,
            "drakegpt sweep TransformerLM --param embedding_dim=32,64 --param "
            "max_lr=1e-3..1e-2:log --trials 20",
            sweep.SweepCommand,
        ),
        GroupEntry("runs", "List, show, remove or import training runs.", runs.list_by_default),
        Entry("runs list", runs.list_, "drakegpt runs list"),
        Entry("runs show", runs.show, "drakegpt runs show my-run"),
        Entry("runs remove", runs.remove, "drakegpt runs remove my-run"),
        Entry(
            "runs import",
            runs.import_,
            "drakegpt runs import old.pt --model TransformerLM --scaled --data drake",
        ),
        Entry("params", params.params, "drakegpt params --source TransformerLM"),
    ),
    "Results": (
        Entry("eval", eval_.eval_, "drakegpt eval TransformerLM"),
        Entry(
            "compare",
            compare.compare,
            "drakegpt compare --train --html report.html",
            compare.CompareCommand,
        ),
        Entry(
            "generate",
            generate.generate,
            'drakegpt generate --prompt "late night" --temperature 0.8 --length 500',
        ),
        GroupEntry("export", make_help()),
        Entry("export page", export_page.page, "drakegpt export page --title 'Our songs'"),
        Entry(
            "export transformers",
            export_model.transformers,
            "drakegpt export transformers my-run my-model",
        ),
        Entry("export onnx", export_model.onnx, "drakegpt export onnx my-run my-model.onnx"),
        Entry("export packed", export.packed, "drakegpt export packed TransformerLM --bits 8"),
        Entry("bench", bench.bench, "drakegpt bench TransformerLM", settings.SettingsCommand),
    ),
    "Machine": (Entry("doctor", doctor.doctor, "drakegpt doctor --device cuda"),),
}


class OrderedGroup(Group):
    """The program; it lists commands as the table does, where typer would put groups last."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the table."""
        order = [entry.name for entries in COMMANDS.values() for entry in entries]
        return sorted(super().list_commands(ctx), key=order.index)

    def make_context(self, *given: Any, **how: Any) -> Any:
        """Read the program's own options."""
        with _own_errors():
            return super().make_context(*given, **how)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, which reads its options."""
        with _own_errors():
            return super().invoke(ctx)


@contextmanager
def _own_errors() -> Iterator[None]:
    """Turn typer's errors into the program's, which name environment variables that are wrong."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, "format_message") or type(error).__name__ == "NoArgsIsHelpError":
            raise
        ctx, param = getattr(error, "ctx", None), getattr(error, "param", None)
        if ctx and param and param.envvar:
            source = ctx.get_parameter_source(param.name)
            if source and source.name == "ENVIRONMENT":
                vars(error)["param_hint"] = param.envvar
        vars(error)["message"] = _reword(str(getattr(error, "message", "")))
        command = ctx.command_path if ctx else "drakegpt"
        fix = f"`{command} --help` shows what it takes."
        raise UsageError(error.format_message(), fix) from error


def _reword(message: str) -> str:
    """Say what typer's and pydantic's messages say in plainer words, and suggest a choice."""
    if found := re.match(r"Input should be a valid (\w+)", message):
        kinds = {"boolean": "true or false", "integer": "a whole number"}
        return f"it should be {kinds.get(found[1], f'a {found[1]}')}."
    message = message.replace("Input should be", "it should be")
    found = re.fullmatch(r"(?:Value error, )?('(.*)' is not one of ('.*')\.)", message, re.DOTALL)
    if not found:
        return message
    sentence, value, listed = found.groups()
    known = re.findall("'([^']*)'", listed)
    return f"{sentence} {suggest_name(value, known)}".strip()


def _make_app() -> typer.Typer:
    """Make the program from the table of commands."""
    program = typer.Typer(
        cls=OrderedGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    groups: dict[str, typer.Typer] = {}
    for panel, entries in COMMANDS.items():
        for entry in entries:
            if isinstance(entry, GroupEntry):
                group = groups[entry.name] = typer.Typer(
                    cls=Group, help=entry.help, no_args_is_help=not entry.function
                )
                if entry.function:
                    group.callback(invoke_without_command=True)(entry.function)
                program.add_typer(group, name=entry.name, rich_help_panel=panel)
                continue
            group_name, _, name = entry.name.rpartition(" ")
            place = groups[group_name] if group_name else program
            place.command(
                name,
                cls=entry.kind,
                rich_help_panel=None if group_name else panel,
                epilog=f"Example: {entry.example}",
            )(entry.function)
    return program


app = _make_app()


def _show_version(wanted: bool) -> None:
    if wanted:
        console.show_text(f"drakegpt {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: drakegpt write my-lyrics.txt")
def drakegpt_(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Learn how GPTs work: six small models, each adding one idea, on lyrics or your own text."""
    home.clear_leftovers()
    for sentence in settings.describe_misspelt_variables():
        console.warn(sentence)


# How OpenMP's threads wait for each other: with GCC on Linux, turns of a loop; with LLVM and Intel
# on macOS and Windows, milliseconds. By default they spin, at a thousand barriers in each training
# step, and where another program takes a core, the one that is waited for cannot run.
OPENMP_WAITING = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}


def let_threads_wait() -> None:
    """Have waiting threads sleep soon, unless the user says how; call it before PyTorch loads."""
    if not {"OMP_WAIT_POLICY", *OPENMP_WAITING} & os.environ.keys():
        os.environ.update(OPENMP_WAITING)


def main() -> None:
    """Run the command line; every error that a user can cause becomes one message."""
    let_threads_wait()
    with console.streams():
        sys.exit(_run())


def _run() -> int:
    """Run the command and return its exit code."""
    console.show_warnings()
    try:
        app(prog_name="drakegpt")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except Exception as error:
        if not (explained := _explain(error)):
            raise
        return console.fail(explained)
    return 0


def _explain(error: Exception) -> DrakeGPTError | None:
    """Return the error with its fix, if a user can do something about it; else `None`."""
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
