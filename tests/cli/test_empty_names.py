"""What is given but empty is never taken for what is not given."""

from pathlib import Path

import pytest
import typer

from drakegpt.cli import options
from drakegpt.cli.app import app
from drakegpt.cli.options import MAY_BE_EMPTY
from drakegpt.errors import CorpusError, UsageError
from drakegpt.runs.lookup import find_pretrained, find_run, find_unfinished


def commands(group=None, words=()):
    """Every command of the program, with the words that call it."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


def texts(command):
    """The parameters of a command that take a text, be it of a number."""
    return [each for each in command.params if not getattr(each, "is_flag", False)]


GIVEN = [
    pytest.param((*words, *([flag] if flag.startswith("-") else []), ""), id=f"{words[-1]} {flag}")
    for words, command in commands()
    for parameter in texts(command)
    if parameter.name not in MAY_BE_EMPTY
    for flag in [max(parameter.opts, key=len)]
]


def test_every_command_is_checked():
    for words, command in commands():
        assert isinstance(command, options.Command), words
    named = {words for words, command in commands() if texts(command)}
    assert {("runs", "remove"), ("export", "packed"), ("train",), ("eval",)} <= named
    assert len(GIVEN) > 40


@pytest.mark.parametrize("arguments", GIVEN)
def test_an_empty_text_is_a_usage_error(drakegpt, home, arguments):
    refused = drakegpt(*arguments)
    assert refused.code == 2, refused.err
    assert "is empty." in refused.err
    assert refused.out == ""
    assert not home.exists()


@pytest.mark.parametrize("blank", ["", "  "])
def test_blank_counts_as_empty(drakegpt, blank):
    assert drakegpt("runs", "remove", blank, "-y").code == 2
    assert drakegpt("train", "--resume", blank).code == 2


def test_what_may_be_empty(drakegpt, prepared):
    assert drakegpt("train", "--resume").code == 1  # there is no run to go on with
    trained = drakegpt("train", "BigramLM", "--iters", 2, "--eval-iters", 1, "-q", "--name", "r")
    assert trained.code == 0, trained.err
    assert drakegpt("generate", "r", "--prompt", "", "-n", 3).code == 0
    assert drakegpt("compare", "--prompt", "").code == 0


def test_the_library_refuses_empty_names_too(prepared):
    from drakegpt.data import dataset

    for find in (find_run, find_pretrained, find_unfinished):
        with pytest.raises(UsageError, match="empty"):
            find("")
    with pytest.raises((UsageError, CorpusError), match="empty"):
        dataset.load("")


@pytest.mark.parametrize("line", ['model = ""', 'model = "BigramLM"\ndata = ""'])
def test_a_configuration_file_with_an_empty_name_is_refused(drakegpt, prepared, tmp_path, line):
    file = tmp_path / "c.toml"
    Path(file).write_text(line + "\n")
    refused = drakegpt("train", "--config", file)
    assert refused.code == 2, refused.err


@pytest.mark.parametrize("target", ["bigramlm", "BigramLM", "r*", "."])
def test_only_an_exact_name_or_folder_is_removed(drakegpt, trained, home, target):
    refused = drakegpt("runs", "remove", target, "-y")
    assert refused.code in (1, 2)
    assert (home / "runs" / "r").is_dir()


def test_a_name_beside_resume_is_refused(drakegpt, prepared, home):
    refused = drakegpt("train", "--resume", "r", "--name", "other")
    assert refused.code == 2
    assert "keeps its name" in refused.err


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_lies_in_the_current_folder_does_not_hide_the_run_of_that_name(
    drakegpt, trained, tmp_path, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r").mkdir() if kind == "folder" else (tmp_path / "r").write_text("x")
    for command in (("eval", "r"), ("generate", "r", "-n", 3), ("runs", "show", "r")):
        done = drakegpt(*command)
        assert done.code == 0, done.err


@pytest.mark.parametrize("name", ["a\nb", "-x", "x" * 201, " ", "a\\b", "\x1b[2J"])
def test_names_that_a_shell_or_a_screen_would_misread_are_refused(drakegpt, prepared, name):
    refused = drakegpt("train", "BigramLM", "--iters", 2, f"--name={name}")
    assert refused.code == 2
    assert "cannot name a run" in refused.err or "is empty" in refused.err


def test_commands_that_are_suggested_can_be_pasted(drakegpt, prepared):
    done = drakegpt("train", "BigramLM", "--iters", 2, "--eval-iters", 1, "--name", "a b", "-q")
    assert "Next: drakegpt generate 'a b'" in done.err
