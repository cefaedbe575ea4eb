"""`drakegpt bench` through the installed program: its JSON, its tables, its words."""

import re
import subprocess
import sys

import pytest


def test_json_is_one_object_and_progress_is_apart(drakegpt):
    shown = drakegpt("bench", "singleheadattentionlm", "--rounds", 1, "--json")
    assert shown.code == 0, shown.err
    assert shown.out.count("\n") == 1
    result = shown.json
    assert result.keys() == {"machine", "settings", "models"}
    assert result["settings"]["rounds"] == 1
    (model,) = result["models"]
    assert model["model"] == "SingleHeadAttentionLM"
    assert model["limit"]["flops_per_iteration"] == 8_699_904
    for kind in ("training", "training_with_evaluations", "generation"):
        for figures in model[kind]["contenders"].values():
            assert len(figures["repetitions_ms"]) == 1
    assert "SingleHeadAttentionLM (1 of 1): warming up: drakegpt, training" in shown.err
    assert "\x1b" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["TransfomerLM"], "Did you mean TransformerLM"), (["--rounds", 0], "--rounds")],
)
def test_what_cannot_be_measured_is_said(drakegpt, arguments, words):
    shown = drakegpt("bench", *arguments)
    assert shown.code == 2
    assert shown.out == ""
    assert words in shown.err


def test_tables_fit_a_narrow_terminal_and_say_what_was_measured():
    """Through a pseudo-terminal of 70 columns: whole lines, the vital columns, no progress."""
    pytest.importorskip("pty")
    code = (
        "import os, pty, sys\n"
        "os.environ |= {'COLUMNS': '70', 'TERM': 'xterm-256color'}\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, '-m', 'drakegpt', "
        "'bench', 'SingleHeadAttentionLM', '--rounds', '1', '--memory', '-q'])))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    out = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.stdout.decode())
    assert done.returncode == 0, out
    table = [line.rstrip("\r") for line in out.split("\n") if line[:1] in "┏┃┡│└"]
    assert all(len(line) <= 70 for line in table)
    for words in ("SingleHeadAttentionLM", "drakegpt", "textbook", "times"):
        assert words in "\n".join(table)
    assert "Left out: threads" in out
    for words in ("Training at default size", "Generation at default size", "Peak of memory",
                  "1,000,000 random", "GFLOP/s", "Machine: ", "PyTorch"):  # fmt: skip
        assert words in out
    assert "warming up" not in out


def test_help_needs_no_torch():
    code = (
        "import sys\nsys.argv = ['drakegpt', 'bench', '--help']\n"
        "from drakegpt.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert b"--rounds" in done.stdout
