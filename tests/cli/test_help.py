"""The first thing one sees: help that is quick, complete and grouped."""

import re
import subprocess
import sys
import time

import pytest
import typer

from drakegpt.cli.app import COMMANDS

GROUPS = {name: what for _, name, what, _ in COMMANDS if isinstance(what, typer.Typer)}
# Every command that can be called, found in the program itself.
CALLED = [
    *(name for _, name, *_ in COMMANDS if name not in GROUPS),
    *(
        f"{name} {command.name or command.callback.__name__.rstrip('_')}"
        for name, group in GROUPS.items()
        for command in group.registered_commands
    ),
]


def test_all_commands_are_known_here():
    assert [name for _, name, *_ in COMMANDS] == [
        "data", "train", "sweep", "runs", "params",
        "eval", "compare", "generate", "export", "bench",
    ]  # fmt: skip
    assert {"runs import", "runs remove", "export packed", "data fetch", "train"} <= set(CALLED)


def test_help_groups_the_commands_in_the_order_of_use(drakegpt):
    shown = drakegpt("--help")
    assert shown.code == 0
    assert shown.err == ""
    order = [
        shown.out.index(f" {word} ") for word in ("Text", "data", "Models", "train", "Results")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize("command", [*GROUPS, *CALLED])
def test_every_option_is_explained(drakegpt, command):
    shown = drakegpt(*command.split(), "--help", COLUMNS=250)
    assert shown.code == 0
    options = re.findall(r"^│ .*?(--[\w-]+).*│$", shown.out, re.M)
    assert "--help" in options
    for line in re.findall(r"^│ +(?:\* +)?(--.*?)│$", shown.out, re.M):
        words = re.sub(r"--?[\w-]+|<[^>]*>|\[[^]]*\]", "", line).split()
        assert len(words) >= 3, f"not explained: {line}"


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_help_of_what_takes_settings_fits_a_screen(drakegpt, command):
    assert len(drakegpt(command, "--help", COLUMNS=80).out.splitlines()) <= 45


@pytest.mark.parametrize("command", [*GROUPS, *CALLED])
def test_every_option_has_its_whole_name_at_80_columns(drakegpt, command):
    """Of its own column, as wide as the longest name; a cut name ends with an ellipsis."""
    shown = drakegpt(*command.split(), "--help", COLUMNS=80).out
    assert not re.findall(r"-[\w-]+…", shown)


def test_help_says_what_else_evaluations_decide(drakegpt):
    text = re.sub(r"[│\s]+", " ", drakegpt("train", "--help", COLUMNS=250).out)
    assert "The cyclic schedule moves the rate at each" in text


def test_version(drakegpt):
    assert drakegpt("--version").out.startswith("drakegpt 0.")


@pytest.mark.parametrize(
    "arguments",
    ["--help", "train --help", "sweep --help", "params --help", "compare --help", "bench --help",
     "data list"],
)  # fmt: skip
def test_torch_stays_out_until_it_is_needed(arguments):
    code = (
        "import sys\n"
        f"sys.argv = ['drakegpt', *{arguments.split()!r}]\n"
        "from drakegpt.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'kaggle', 'wandb', 'matplotlib', 'optuna', 'jinja2', 'markupsafe'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    if arguments == "data list":
        code = code.replace("'torch', ", "")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_help_starts_nearly_as_fast_as_any_typer_program(tmp_path, monkeypatch):
    """Within 1.5 times the processor time, by turns, so that a busy machine slows both."""
    bare = tmp_path / "bare.py"
    bare.write_text(
        "import typer\napp = typer.Typer()\n"
        "@app.command()\ndef one(): ...\n@app.command()\ndef two(): ...\napp()\n"
    )
    # Compiled once, as what is installed is; the machine may forbid that beside the sources.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    ours = [sys.executable, "-m", "drakegpt", "--help"]
    theirs = [sys.executable, str(bare), "--help"]

    def used():
        """By the processes so far, to the microsecond; Windows does not tell, so there by all."""
        if sys.platform == "win32":
            return time.perf_counter()
        import resource

        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def seconds(command):
        before = used()
        subprocess.run(command, check=True, capture_output=True)
        return used() - before

    seconds(ours), seconds(theirs)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(11)]
    # The least of each is what the program needs; what is above that is other programs' doing.
    ratio = min(mine for mine, _ in pairs) / min(bare for _, bare in pairs)
    assert ratio < 1.5
