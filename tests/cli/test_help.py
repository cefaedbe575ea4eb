"""The first thing one sees: help that is quick, complete and grouped."""

import math
import re
import shlex
import subprocess
import sys
import time

import pytest
import typer

from drakegpt.cli.app import COMMANDS, Entry, GroupEntry, app

ENTRIES = [entry for entries in COMMANDS.values() for entry in entries]
GROUPS = [entry.name for entry in ENTRIES if isinstance(entry, GroupEntry)]
CALLED = [entry for entry in ENTRIES if isinstance(entry, Entry)]
NAMES = [entry.name for entry in CALLED]


def commands(group, words=()):
    """The names of all commands that the program has, found in it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name))


def test_the_program_has_the_commands_of_the_table():
    assert sorted(commands(typer.main.get_command(app))) == sorted(NAMES)
    assert [name for name in NAMES if " " not in name] == [
        "write", "train", "sweep", "params", "eval", "compare", "generate", "bench",
        "doctor",
    ]  # fmt: skip
    assert GROUPS == ["data", "runs", "export"]


@pytest.mark.parametrize("entry", CALLED, ids=NAMES)
def test_every_command_shows_an_example_that_it_can_read(drakegpt, entry):
    """Each option of the example exists, and has a value where it needs one."""
    shown = drakegpt(*entry.name.split(), "--help", COLUMNS=250).out
    assert f"Example: {entry.example}\n" in re.sub(" +\n", "\n", shown)
    program, *words = shlex.split(entry.example)
    assert program == "drakegpt"
    command = typer.main.get_command(app)
    for word in entry.name.split():
        assert words.pop(0) == word
        command = command.commands[word]
    context = command.context_class(command, info_name=entry.name)
    _, left, _ = command.make_parser(context).parse_args(args=words)
    assert not left


@pytest.mark.parametrize("name", ["", *GROUPS, *NAMES])
def test_help_is_free_of_types_and_empty_brackets(drakegpt, name):
    shown = drakegpt(*name.split(), "--help", COLUMNS=100).out
    usage = next(line for line in shown.splitlines() if "Usage:" in line)
    for odd in ("<bool>", "<str>", "<int", "<float", "range]", "x>=", "[]", "None", "False"):
        assert odd not in shown
    assert not re.search(r"\[\[|[{}]", usage)


@pytest.mark.parametrize("name", NAMES)
def test_completion_offers_every_option(drakegpt, name):
    """As bash asks for it: the words so far, and the last one to complete."""
    words = f"drakegpt {name} --"
    shown = drakegpt(
        _DRAKEGPT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=len(words.split()) - 1
    )
    command = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]
    expected = {flag for each in command.params for flag in each.opts if flag.startswith("--")}
    assert expected <= set(shown.out.split())


def test_a_default_that_is_off_is_shown_as_off(drakegpt):
    shown = drakegpt("train", "--help", COLUMNS=250).out
    for option in ("patience", "grad-clip", "minutes", "epochs", "tie-embeddings"):
        assert re.search(rf"│ --{option} .*\[default: off\] +│", shown), option


@pytest.mark.parametrize("command", ["", *GROUPS, *NAMES])
def test_a_narrow_screen_has_whole_names(drakegpt, command):
    shown = drakegpt(*command.split(), "--help", COLUMNS=50).out
    assert max(map(len, shown.splitlines())) <= 50
    assert "…" not in shown.replace("(), …)", "")
    assert "\\" not in shown


def test_a_narrow_screen_has_whole_commands(drakegpt):
    shown = " ".join(drakegpt("--help", COLUMNS=50).out.split())
    for name in ("train", "sweep", "params", "eval", "compare", "generate", "bench"):
        (entry,) = (entry for entry in CALLED if entry.name == name)
        sentence = " ".join(entry.function.__doc__.partition("\n\n")[0].split())
        assert f" {name} {sentence}" in shown


def test_help_groups_the_commands_in_the_order_of_use(drakegpt):
    shown = drakegpt("--help")
    assert shown.code == 0
    assert shown.err == ""
    words = ("─ Text ─", "│ data ", "─ Models ─", "│ train ", "─ Results ─")
    order = [shown.out.index(word) for word in words]
    assert order == sorted(order)


@pytest.mark.parametrize("command", [*GROUPS, *NAMES])
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


@pytest.mark.parametrize("command", [*GROUPS, *NAMES])
def test_every_option_has_its_whole_name_at_80_columns(drakegpt, command):
    """Of its own column, as wide as the longest name; a cut name ends with an ellipsis."""
    shown = drakegpt(*command.split(), "--help", COLUMNS=80).out
    assert not re.findall(r"-[\w-]+…", shown)


def test_help_says_what_else_evaluations_decide(drakegpt):
    text = re.sub(r"[│\s]+", " ", drakegpt("train", "--help", COLUMNS=250).out)
    assert "The cyclic schedule changes the learning rate at each evaluation" in text


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


@pytest.mark.slow
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
    # The least of each is what the program needs; what is above that is other programs' doing,
    # of which more rounds see less.
    pairs, ratio = [], math.inf
    while ratio >= 1.5 and len(pairs) < 33:
        pairs += [(seconds(ours), seconds(theirs)) for _ in range(11)]
        ratio = min(mine for mine, _ in pairs) / min(bare for _, bare in pairs)
    assert ratio < 1.5
