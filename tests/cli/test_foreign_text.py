"""Names, paths, lyrics and messages of others are text: no markup, no orders to a terminal.

Each command is run twice, to a pipe and to a pseudo-terminal. Brackets that rich would read as
markup must come out as they are; control characters must reach the terminal as pictures only.
"""

import logging
import time
from types import SimpleNamespace

import pytest
from learning import prepare
from test_help import NAMES

from drakegpt import home
from drakegpt.cli import progress as progress_module
from drakegpt.cli.progress import (
    ScoringWork,
    TrainingProgress,
    counting,
    fetch_progress,
    parallel_progress,
)
from drakegpt.config import resolve
from drakegpt.training.reports import Evaluation
from drakegpt.wording import escape_control_characters

ESCAPES = "\x1b]0;owned\x07\x1b[31mEVIL\x9b2J\x08\u202e"
PLAIN = "[red]x[bold] $HOME"  # a name that drakegpt gives
NAME = f"[red]x[bold]{ESCAPES} $HOME"  # of runs, datasets and sweeps, without a slash
TEXT = f"[red]x[/red] [/] [link=file:///x]here {ESCAPES}"
ODD_FOLDER = "[/x] [red]"
SONGS = [f"{TEXT} la la {i}\nfa la la lala" for i in range(40)]
TINY = ("--iters", 2, "--eval-iters", 1, "--embedding-dim", 8, "--num-heads", 2, "--num-layers", 1)
SET = ("--set", "eval_iters=1", "--set", "embedding_dim=8", "--set", "num_layers=1")


def make_odd(drakegpt):
    """Everything that has a name has an odd one."""
    source = f"/{ODD_FOLDER}/words.csv"
    prepare("\n".join(SONGS), NAME, source=source, provenance=source)
    trained = drakegpt("train", "BigramLM", *TINY, "--name", PLAIN, "--data", NAME, "-q")
    assert trained.code == 0, trained.err
    (home.runs() / PLAIN).rename(home.runs() / NAME)  # as other programs may


@pytest.fixture
def world(home_as, tmp_path, monkeypatch):
    """An odd home, and in the current folder, files for commands to read."""
    home_as(make_odd)
    folder = tmp_path / ODD_FOLDER
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    rows = "".join(f'"{song}"\n' for song in [TEXT, *SONGS, "nan"])
    (folder / "words.csv").write_text(rows, encoding="utf-8", newline="")
    (folder / "key.toml").write_text("model = 'BigramLM'\n'[red]x' = 1\n", encoding="utf-8")
    (folder / "odd.toml").write_text(f"model = '[red]{TEXT[:10]}'\n", encoding="utf-8")
    return folder


# Command lines; what must be shown, with `NAME` and `TEXT` as the terminal shows them.
COMMANDS = {
    "write": ([NAME, "--minutes", 0.1], NAME),
    "data add": (["words.csv", "--text-column", TEXT, "--name", "plain", "--force"], TEXT),
    "data fetch": (["words.csv", "--text-column", TEXT, "--name", "plain", "--force"], TEXT),
    "data list": ([], NAME),
    "data show": ([NAME], TEXT),
    "data remove": ([NAME, "--yes"], NAME),
    "train": (["BigramLM", *TINY, "--name", PLAIN], PLAIN),
    "runs list": ([], NAME),
    "runs show": ([NAME], NAME),
    "runs remove": ([NAME, "--yes"], NAME),
    "eval": ([NAME], NAME),
    "compare": (["--prompt", "la"], NAME),
    "generate": ([NAME, "--prompt", TEXT, "-n", 20], TEXT),
    "export onnx": ([NAME, f"{NAME}.onnx", "--force", "--licence", TEXT], NAME),
    "sweep": (["BigramLM", "--param", "max_lr=0.01,0.02", "--iters", 2, *SET, "--name", PLAIN,
               "--sampler", "grid"], PLAIN),
}  # fmt: skip
ERRORS = {
    "write": [TEXT],
    "data add": ["words.csv", "--encoding", NAME],
    "data remove": [NAME + "?"],
    "data fetch": ["words.csv", "--text-column", NAME],
    "data show": [NAME + "?"],
    "train": ["BigramLM", "--data", TEXT],
    "train --config (key)": ["--config", "key.toml"],
    "train --config (model)": ["--config", "odd.toml"],
    "train --resume": ["--resume", NAME + "?"],
    "runs show": [TEXT],
    "runs remove": [NAME + "?"],
    "runs import": ["no" + NAME, "--model", "BigramLM"],
    "eval": [TEXT],
    "compare": ["--set", TEXT],
    "generate": ["no" + NAME],
    "export packed": [NAME + "?"],
    "export page": [NAME + "?"],
    "export transformers": [NAME, "out"],
    "params": ["--model", TEXT],
    "bench": [TEXT],
    "doctor": ["--device", TEXT],
    "sweep": ["BigramLM", "--param", TEXT],
    "generate --run": ["--run", TEXT],
    "(nothing)": [TEXT],
}


def test_every_command_is_walked():
    assert set(NAMES) <= {*COMMANDS, *ERRORS}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_show_text(drakegpt, terminal, world, name):
    arguments, expected = COMMANDS[name]
    piped = drakegpt(*name.split(), *arguments)
    assert piped.code == 0, piped.err
    assert expected in piped.out + piped.err
    if name == "runs remove":
        drakegpt("train", "BigramLM", *TINY, "--name", PLAIN, "-q")
        (home.runs() / PLAIN).rename(home.runs() / NAME)
    if name == "data remove":
        prepare("\n".join(SONGS), NAME)
    if name == "train":
        expected = arguments[-1] + "3"
        arguments = [*arguments[:-1], expected]
    shown = terminal(*name.split(), *arguments)
    assert shown.code == 0, shown.text
    assert escape_control_characters(expected) in shown.text


@pytest.mark.parametrize("name", ERRORS)
def test_errors_show_text(drakegpt, terminal, world, name):
    words = [word for word in name.split() if word[0] not in "-("] + ERRORS[name]
    piped = drakegpt(*words)
    assert piped.code in (1, 2), piped.err
    shown = terminal(*words)
    assert shown.code == piped.code, shown.text
    assert "[red]" in shown.text or "\\x1b" in shown.text


def test_a_library_that_warns(terminal):
    shown = terminal(function=lambda: logging.getLogger("drakegpt").warning("W&B: %s", TEXT))
    assert escape_control_characters(TEXT) in shown.text


def test_progress(terminal, monkeypatch):
    monkeypatch.setattr(progress_module, "DELAY_SECONDS", 0)
    config = resolve("BigramLM", "default", NAME)

    def draw():
        with TrainingProgress(config, ScoringWork(1, 1), quiet=False) as progress:
            step = SimpleNamespace(iteration=1, loss=SimpleNamespace(item=lambda: 1.0),
                                   learning_rate=0.1)  # fmt: skip
            progress.report(step)
            progress._drawn = 0.0  # it is drawn now and then
            progress.report(Evaluation(1, 1.0, 1.0, 0.1, 1.0, 1.0))
        with counting(NAME, quiet=False) as report:
            report(TEXT, 1, 2)
            time.sleep(0.2)  # the bar is drawn by a timer
        run = SimpleNamespace(name="r", config=config, last_evaluation={})
        with parallel_progress(1, quiet=False) as bars:
            bars(run, TEXT, True)
            bars(run, TEXT, False)
        with fetch_progress(NAME) as report:
            report(TEXT, 1, 2)

    shown = terminal(function=draw).text
    for text in (f"BigramLM on {NAME}", f"{NAME}, {TEXT}", TEXT, f"1 of 1: {TEXT}"):
        assert escape_control_characters(text) in shown


def test_json_holds_no_controls_that_a_terminal_obeys(drakegpt, terminal, world):
    shown = terminal("runs", "list", "--json")
    (run,) = drakegpt("runs", "list", "--json").json["runs"]
    assert run["run"] == NAME
    assert "\\u009b2J" in shown.text


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2066])
def test_control_characters_are_shown(code):
    assert escape_control_characters(chr(code)).isprintable() or chr(code) in "\t\n"


def test_other_characters_stay():
    text = "naïve “quotes” 日本 👩\u200d👩\u200d👧 שלום \u200f tab\tend\n"
    assert escape_control_characters(text) == text
