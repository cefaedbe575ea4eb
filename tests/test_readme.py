"""What the README promises: its commands work as written, its figures are the program's."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
MAIN, TESTS = re.findall(r"```sh\n(.*?)\n```", TEXT, re.S)


def test_each_command_starts_from_python_alone():
    for command in (MAIN, TESTS):
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_the_main_command_works_with_a_smaller_budget(tmp_path, home):
    """All of it but the installation, which is what put the program here."""
    steps = [step for step in MAIN.split(" && ") if step.startswith(".venv/bin/drakegpt")]
    assert len(steps) == 2
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    compare = steps[0].replace("--iters 2000", "--iters 40 --eval-iters 2")
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
        command = words[:2] if words[0] == "data" else words[:1]
        options = {word for word in words if word.startswith("--")}
        text = drakegpt(*command, "--help", COLUMNS=200)
        assert text.code == 0, line
        for option in options:
            assert option in text.out, line


def test_the_parameter_table_is_what_params_prints(drakegpt):
    by_name = {}
    for model in drakegpt("params", "--json").json["models"]:
        by_name.setdefault(model["name"], []).extend([model["counted"], model["published"]])
    for name, figures in by_name.items():
        assert "| " + " | ".join([name, *(f"{figure:,}" for figure in figures)]) + " |" in TEXT


@pytest.mark.skipif("TINY_SHAKESPEARE" not in os.environ, reason="needs tiny Shakespeare")
@pytest.mark.slow
def test_losses_in_the_table_are_what_training_gives(tmp_path):
    """The first two rungs with the full recipe: the README's losses within rounding."""
    program = [sys.executable, "-m", "drakegpt"]
    env = {**os.environ, "DRAKEGPT_HOME": str(tmp_path / "h")}
    corpus = os.environ["TINY_SHAKESPEARE"]
    fetch = [*program, "data", "fetch", corpus, "--name", "shakespeare"]
    subprocess.run(fetch, check=True, capture_output=True, env=env)
    for model in ("BigramLM", "MultiHeadAttentionLM"):
        train = [*program, "train", model, "--json", "--quiet"]
        done = subprocess.run(train, check=True, capture_output=True, env=env)
        got = json.loads(done.stdout)
        row = re.search(rf"│ {model} +│ +[\d,]+ │ +[\d,]+ │ ([\d.]+) │ +([\d.]+) │", TEXT)
        # Another processor may round differently, and 10,000 steps magnify that a little.
        assert got["train_loss"] == pytest.approx(float(row[1]), abs=0.02)
        assert got["val_loss"] == pytest.approx(float(row[2]), abs=0.02)
