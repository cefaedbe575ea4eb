"""What the README promises: its commands work as written, its figures are the program's."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from drakegpt.cli.app import COMMANDS
from drakegpt.config import IDEAS
from drakegpt.models import ladder

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
GROUPS = {name for _, name, what, _ in COMMANDS if isinstance(what, typer.Typer)}
RESULTS = json.loads((README.parent / ".readme" / "results.json").read_text(encoding="utf-8"))
MAIN, TESTS = re.findall(r"```sh\n(.*?)\n```", TEXT, re.S)


def test_each_command_starts_from_python_alone():
    for command in (MAIN, TESTS):
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


@pytest.mark.slow
def test_the_main_command_works_with_a_smaller_budget(tmp_path, home):
    """All of it but the installation, which is what put the program here."""
    steps = [step for step in MAIN.split(" && ") if step.startswith(".venv/bin/drakegpt")]
    assert len(steps) == 2
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    compare = steps[0].replace("--iters 2000", "--iters 40 --set eval_iters=2")
    assert compare != steps[0]
    command = " && ".join([compare, steps[1]])
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, timeout=300, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("LM") > 12
    (written,) = (home / "generations").iterdir()
    text = written.read_text(encoding="utf-8")
    assert len(text) == 500
    assert done.stdout.rstrip("\n").endswith(text.rstrip("\n"))


def test_every_command_shown_is_understood(drakegpt):
    """Each `$ drakegpt ...` line names commands and options that exist."""
    shown = re.findall(r"^\$ drakegpt (.*?)(?:\s+#.*)?$", TEXT, re.M)
    assert len(shown) > 8
    for line in shown:
        words = shlex.split(line)
        command = words[:2] if words[0] in GROUPS else words[:1]
        options = {word for word in words if word.startswith("--")}
        command = [word for word in command if not word.startswith("-")]
        text = drakegpt(*command, "--help", COLUMNS=200)
        assert text.code == 0, line
        for option in options:
            assert option in text.out, line


def test_each_idea_is_told_alike_in_the_readme_the_ladder_and_the_report():
    for model, idea in IDEAS.items():
        assert f"| {model} | {idea} |" in TEXT
        assert f"{model:<21}  {idea}" in ladder.__doc__


def test_the_parameter_table_is_what_params_prints(drakegpt):
    by_name = {}
    for model in drakegpt("params", "--json").json["models"]:
        by_name.setdefault(model["name"], []).extend([model["counted"], model["published"]])
    for name, figures in by_name.items():
        assert "| " + " | ".join([name, *(f"{figure:,}" for figure in figures)]) + " |" in TEXT


def test_the_results_beside_the_readme_are_those_in_it():
    for result in RESULTS.values():
        assert result["command"] in TEXT
        for figures in result["rows"].values():
            assert all(figure in TEXT for figure in figures.values())


@pytest.mark.skipif("TINY_SHAKESPEARE" not in os.environ, reason="needs tiny Shakespeare")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("result", "model", "options"),
    [
        ("ladder", "BigramLM", ()),
        ("ladder", "MultiHeadAttentionLM", ()),
        ("ladder", "ResidualBlocksLM", ()),
        ("ladder", "TransformerLM", ()),
        ("without dropout", "TransformerLM", ("--dropout", 0)),
        ("fast", "TransformerLM", ("--recipe", "fast")),
        ("few bits", "TransformerLM", ("--bits", 1.58, "--iters", 4000)),
    ],
)
def test_losses_in_the_readme_are_what_training_gives(drakegpt, result, model, options):
    """The full recipe for the rungs that the text argues about: one seed, near the mean of three.

    Another processor rounds differently, and 10,000 steps magnify that a little.
    """
    fetched = drakegpt("data", "fetch", os.environ["TINY_SHAKESPEARE"], "--name", "shakespeare")
    assert fetched.code == 0, fetched.err
    got = drakegpt("train", model, *options, "--json", "--quiet").json
    shown = RESULTS[result]["rows"][model]
    near = 0.02 + 2 * float(shown.get("spread", 0))
    for split, key in (("train", "train_loss"), ("validation", "val_loss")):
        if split in shown:
            assert got[key] == pytest.approx(float(shown[split]), abs=near)
