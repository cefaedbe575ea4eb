"""Runs in other forms: packed in 1.58 bits, for transformers, for ONNX Runtime."""

from pathlib import Path

import pytest

from drakegpt.export.formats import FORMATS, make_markdown_table


def test_train_export_eval_generate(drakegpt, prepared):
    train = ["train", "TransformerLM", "--bits", "1.58", "--iters", "30", "--eval-iters", "2"]
    assert drakegpt(*train, "--name", "few", "--quiet").code == 0
    packing = drakegpt("export", "packed", "few", "--name", "packed")
    assert packing.code == 0, packing.err
    assert "Packed few to 1.58 bits per weight, exactly as trained, as packed" in packing.out
    assert "drakegpt eval packed" in packing.err
    losses = [drakegpt("eval", run, "--json").json["val"]["loss"] for run in ("few", "packed")]
    assert abs(losses[0] - losses[1]) < 1e-5
    texts = [
        drakegpt("generate", run, "--length", "60", "--seed", "1").out for run in ("few", "packed")
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) >= 60


def test_json_counts_bytes(drakegpt, prepared):
    train = ["train", "TransformerLM", "--iters", "4", "--eval-iters", "1", "--name", "full"]
    assert drakegpt(*train, "--quiet").code == 0
    result = drakegpt("export", "packed", "full", "--bits", "8", "--json").json
    assert result["bits"] == "8"
    assert not result["trained_with_these_bits"]
    # 3 blocks of 3 x 32 x 32 + 32 x 32 + 2 x 4 x 32 x 32 weights, and a scale for each row
    weights, rows = 3 * 12 * 32 * 32, 3 * (3 * 32 + 32 + 4 * 32 + 32)
    assert result["packed_bytes"] == weights + 4 * rows
    assert result["resident_bytes"]["after"] < result["resident_bytes"]["before"] / 2
    assert result["file_bytes"]["after"] < result["file_bytes"]["before"] / 2


def test_what_cannot_be_packed_is_one_message(drakegpt, prepared):
    assert drakegpt("train", "BigramLM", "--iters", "2", "--quiet", "--name", "b").code == 0
    refused = drakegpt("export", "packed", "b")
    assert refused.code == 2
    assert "no linear layers" in refused.err
    assert refused.out == ""
    refused = drakegpt("train", "BigramLM", "--bits", "1")
    assert refused.code == 2
    assert "TransformerLM --bits 1.58" in refused.err


SHORT = ("--iters", 20, "--eval-iters", 2, "--quiet")


@pytest.mark.parametrize(("form", "out"), [("transformers", "out"), ("onnx", "out.onnx")])
def test_a_run_leaves_with_a_licence_and_a_card(drakegpt, prepared, tmp_path, form, out):
    assert drakegpt("train", "TransformerLM", *SHORT, "--name", "r").code == 0
    done = drakegpt("export", form, "r", tmp_path / out)
    assert done.code == 0, done.err
    assert f"{out}: r in" in done.out.replace("\n", "")
    assert "--licence TEXT" in done.err
    refused = drakegpt("export", form, "r", tmp_path / out)
    assert refused.code == 2
    assert "--force" in refused.err
    again = drakegpt(
        "export", form, "latest", tmp_path / out, "--force", "--json", "--licence", "MIT"
    )
    assert again.json["run"] == "r"
    assert again.err == ""
    if form == "transformers":
        card = (tmp_path / out / "README.md").read_text(encoding="utf-8")
        assert 'license: "mit"' in card
        assert again.json["bytes"]["README.md"] == len(card.encode())
        # `train` has scored it, and what counting reaches
        assert "| counts of 2 characters in a row (" in card
    else:
        assert again.json["bytes"] == (tmp_path / out).stat().st_size


@pytest.mark.parametrize("form", ["transformers", "onnx", "page"])
def test_a_run_half_trained_is_refused_with_the_command_that_finishes_it(
    drakegpt, prepared, tmp_path, form
):
    assert drakegpt("train", "TransformerLM", *SHORT, "--name", "half").code == 0
    metrics = next((tmp_path / "home").rglob("metrics.jsonl"))
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(each for each in lines if '"finished"' not in each))
    place = ["--output", tmp_path / "out"] if form == "page" else [tmp_path / "out"]
    refused = drakegpt("export", form, "half", *place)
    assert refused.code == 1
    assert "half is not finished." in refused.err
    assert "drakegpt train --resume half" in refused.err
    assert not list(tmp_path.glob("*out*"))


def test_a_model_that_transformers_does_not_know_is_sent_to_onnx(drakegpt, prepared, tmp_path):
    assert drakegpt("train", "BigramLM", *SHORT, "--name", "b").code == 0
    refused = drakegpt("export", "transformers", "b", tmp_path / "out")
    assert refused.code == 2
    assert "drakegpt export onnx b b.onnx" in refused.err
    assert drakegpt("export", "onnx", "b", tmp_path / "b.onnx").code == 0


def test_the_formats_are_those_of_the_commands_in_one_table(drakegpt):
    from drakegpt.cli.app import COMMANDS

    names = [entry.name for entries in COMMANDS.values() for entry in entries]
    commands = [name.split()[1] for name in names if name.startswith("export ")]
    assert [form.name for form in FORMATS] == commands
    shown = drakegpt("export", "--help", COLUMNS=300).out
    table = make_markdown_table().splitlines()
    page = Path(__file__).parents[2] / ".readme" / "usage.md"
    assert make_markdown_table() in page.read_text(encoding="utf-8")
    for form, row in zip(FORMATS, table[2:], strict=True):
        assert f"{form.name}: to {form.purpose}. Takes {form.models}." in shown
        assert row.startswith(f"| `{form.name}` | {form.purpose} | {form.models} |")
        assert form.needs in shown
