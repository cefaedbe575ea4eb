"""`compare --low-bit` and `train --init-from`."""

import dataclasses

import pytest
from program_runs import settings

from drakegpt.cli import console
from drakegpt.cli.compare.low_bit import _render
from drakegpt.cli.console import Screen
from drakegpt.experiments import low_bit_costs
from drakegpt.experiments.low_bit import LowBitRow

SHORT = ["--iters", "4", "--eval-iters", "1"]


@pytest.mark.slow
def test_the_table_is_trained_measured_and_found_again(drakegpt, prepared, monkeypatch):
    """Memory is measured in earnest, by a process for each form, in `test_low_bit`."""
    monkeypatch.setattr(low_bit_costs, "REPETITION", 0.01)
    monkeypatch.setattr(low_bit_costs, "peak_memory", lambda *_: 2**20)
    trained = drakegpt(
        "compare", "--low-bit", "--train", "--seeds", "1", *settings(*SHORT), "--json"
    )
    assert trained.code == 0, trained.err
    result = trained.json
    assert len(result["rows"]) == 10
    assert len(result["findings"]) == 9
    assert result["data"] == "small"
    assert {row["peak_memory"] for row in result["rows"]} == {2**20}
    assert "5 of 5: TransformerLM on 'small', seed 42, small" in trained.err
    assert "1 of 1: TransformerLM on 'small', seed 42, from full" in trained.err
    assert "Measuring: " in trained.err
    refused = drakegpt(
        "compare", "--low-bit", "--seeds", "2", *settings(*SHORT)
    )  # of which one is there
    assert refused.code == 1
    assert "the same command with --train" in refused.err
    assert refused.out == ""


ROW = LowBitRow(
    name="float32", runs=("a", "b"), embedding_dim=32, val_losses=(2.0, 2.1),
    bits_per_character=2.957, difference=0.0, noise=0.05, paired=False,
    file_bytes=169_300, packed_bytes=0,
    remainder_bytes=165_100, resident_bytes=165_100, peak_memory=17_500_000,
    tokens_per_second={1: 6_565.0, 32: 49_181.0}, speedup={1: 1.0, 32: 1.0},
    training_seconds=9.3,
)  # fmt: skip


def shown(rows, width, monkeypatch, capsys):
    screen = Screen(width=width)
    monkeypatch.setattr(console, "results", lambda: screen)
    _render("shakespeare", "character", rows, ["A finding."])
    return capsys.readouterr().out


def test_what_the_tables_show(monkeypatch, capsys):
    other = dataclasses.replace(ROW, name="1.58 bits", difference=0.0667, peak_memory=None)
    text = shown([ROW, other], 140, monkeypatch, capsys)
    first = next(line for line in text.splitlines() if "│ float32" in line)
    assert first.split("│")[1:-1] == [
        " float32   ", "    32 ", "     2.0500 ", " 0.0707 ", "     2.957 ", "              ",
        "      9.3 ",
    ]  # fmt: skip
    for figure in ("169.3", "17.5", "6,565", "+0.0667", "A finding."):
        assert figure in text
    assert "Means of 2 seeds each; ±: their sample standard deviation." in " ".join(text.split())


def test_what_is_noise_is_marked(monkeypatch, capsys):
    other = dataclasses.replace(ROW, name="bfloat16", difference=-0.00001)
    text = shown([ROW, other], 140, monkeypatch, capsys)
    assert "│    ≈ +0.0000 │" in text
    assert "≈: within noise, neither a gain nor a loss." in " ".join(text.split())
    plain = shown([ROW, dataclasses.replace(other, difference=0.0667)], 140, monkeypatch, capsys)
    assert "≈" not in plain


def test_a_narrow_screen_and_a_single_seed(monkeypatch, capsys):
    single = dataclasses.replace(ROW, val_losses=(2.0,))
    text = shown([single], 60, monkeypatch, capsys)
    assert "±" not in text
    assert max(map(len, text.splitlines())) <= 60
    assert "Left out: " in text


def test_minutes_would_give_each_form_another_length(drakegpt, prepared):
    refused = drakegpt("compare", "--low-bit", "--train", "--set", "minutes=0.01")
    assert refused.code == 2
    assert "a different number of iterations" in refused.err


def test_train_begins_with_a_run(drakegpt, prepared, home):
    full = ["train", "TransformerLM", *SHORT, "--quiet", "--name"]
    assert drakegpt(*full, "first").code == 0
    begun = drakegpt(*full, "second", "--bits", "1.58", "--init-from", "first")
    assert begun.code == 0, begun.err
    config = (home / "runs" / "second" / "config.toml").read_text()
    assert 'init_from = "first"' in config
    assert (home / "runs" / "second" / "initial.safetensors").exists()
    refused = drakegpt(*full, "third", "--embedding-dim", "64", "--init-from", "first")
    assert refused.code == 2
    assert "embedding_dim is 32, not 64" in refused.err
    assert not (home / "runs" / "third").exists()
