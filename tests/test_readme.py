"""What the README promises: its commands work as written, its figures are the program's."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from drakegpt.config import IDEAS
from drakegpt.models import ladder

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


def test_each_idea_is_told_alike_in_the_readme_the_ladder_and_the_report():
    told = dict(re.findall(r"^\| (\w+LM) \| ([a-z][^|]*[a-z]) \|$", TEXT, re.M))
    assert told == IDEAS
    written = dict(re.findall(r"^    (\w+LM) +(\S.*)$", ladder.__doc__, re.M))
    assert written == IDEAS


def test_the_parameter_table_is_what_params_prints(drakegpt):
    by_name = {}
    for model in drakegpt("params", "--json").json["models"]:
        by_name.setdefault(model["name"], []).extend([model["counted"], model["published"]])
    for name, figures in by_name.items():
        assert "| " + " | ".join([name, *(f"{figure:,}" for figure in figures)]) + " |" in TEXT


@pytest.mark.skipif("TINY_SHAKESPEARE" not in os.environ, reason="needs tiny Shakespeare")
@pytest.mark.slow
def test_losses_in_the_readme_are_what_training_gives(tmp_path):
    """The full recipe for the rungs that the text argues about: one seed, near the mean of three.

    Another processor rounds differently, and 10,000 steps magnify that a little.
    """
    program = [sys.executable, "-m", "drakegpt"]
    env = {**os.environ, "DRAKEGPT_HOME": str(tmp_path / "h")}
    fetch = [*program, "data", "fetch", os.environ["TINY_SHAKESPEARE"], "--name", "shakespeare"]
    subprocess.run(fetch, check=True, capture_output=True, env=env)

    def trained(model, *options):
        train = [*program, "train", model, *options, "--json", "--quiet"]
        done = subprocess.run(train, check=True, capture_output=True, env=env)
        result = json.loads(done.stdout)
        return result["train_loss"], result["val_loss"]

    for model in ("BigramLM", "MultiHeadAttentionLM", "ResidualBlocksLM", "TransformerLM"):
        row = re.search(
            rf"│ {model} +│ +[\d,]+ │ +[\d,]+ │ ([\d.]+) │ +([\d.]+) │ ([\d.]+) │", TEXT
        )
        train_loss, val_loss, spread = map(float, row.groups())
        near = pytest.approx((train_loss, val_loss), abs=0.02 + 2 * spread)
        assert trained(model) == near, model
    shown = re.search(r"--dropout 0\nTransformerLM: train loss ([\d.]+), .*? loss ([\d.]+)", TEXT)
    without_dropout = trained("TransformerLM", "--dropout", "0")
    assert without_dropout == pytest.approx((float(shown[1]), float(shown[2])), abs=0.02)
    fast = re.search(r"validation losses fall at each rung: ([\d., ]+)\.", " ".join(TEXT.split()))
    last = float(fast[1].split(", ")[-1])
    assert trained("TransformerLM", "--recipe", "fast")[1] == pytest.approx(last, abs=0.02)
    shown = re.search(r"--bits 1\.58 --iters 4000 .*\n.* loss ([\d.]+), .*? loss ([\d.]+)", TEXT)
    few = trained("TransformerLM", "--bits", "1.58", "--iters", "4000")
    assert few == pytest.approx((float(shown[1]), float(shown[2])), abs=0.02)
