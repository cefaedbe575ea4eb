"""The other systems: BPE, GPT-1, tutorials, epochs, presets."""

import json
import os
from pathlib import Path

import pytest
from program_runs import settings

SONGS = ["la la lo 🦊 the lazy dog", "the quick brown fox\nruns far away", "no more songs tonight"]
BRIEF = ("--iters", 4, "--eval-iters", 1, "--quiet")


@pytest.fixture
def songs(tmp_path):
    rows = "".join(f'{i},"{song} {i}"\n' for i in range(40) for song in SONGS)
    path = tmp_path / "songs.csv"
    path.write_text("number,Lyric\n" + rows, encoding="utf-8")
    return path


def test_bpe_from_fetch_to_text(drakegpt, songs, home, tmp_path):
    asked = ("data", "fetch", songs, "--tokenizer", "bpe", "--vocab-size", 5000)
    fetched = drakegpt(*asked)
    assert fetched.code == 0, fetched.err
    assert "fewer than 5,000" in fetched.err
    assert drakegpt("data", "fetch", songs).code == 0
    train = ("train", "GPT1LM", *BRIEF, "--name", "gpt", "--tie-embeddings")
    trained = drakegpt(*train, "--data", "songs-bpe")
    assert trained.code == 0, trained.err
    assert "nats per token over the whole splits" in trained.out

    ask = ("--seed", 1, "-n", 40, "--prompt", "Ünknown 🐕: the", "--json")
    file = tmp_path / "taken.safetensors"
    (checkpoint,) = (home / "runs" / "gpt" / "checkpoints").glob("*4")
    file.write_bytes((checkpoint / "weights.safetensors").read_bytes())
    texts = [
        drakegpt("generate", *who, *ask).json["samples"][0]["text"]
        for who in (["gpt"], ["--run", home / "runs" / "gpt"], [file], ["--run", file])
    ]
    assert len(set(texts)) == 1
    assert texts[0].startswith("Ünknown 🐕: the")
    both = drakegpt("generate", "gpt", "--run", file)
    assert both.code == 2
    assert "both name a run" in both.err

    plain = ("generate", "gpt", "--seed", 1, "-n", 30)
    streamed, whole = drakegpt(*plain), drakegpt(*plain, "--no-stream")
    assert streamed.out == whole.out
    other = drakegpt(*plain, "--repetition-penalty", 5, "--stop")
    assert other.code == 0, other.err
    assert other.out != streamed.out


def rows_of_losses(shown):
    """The rows of a comparison's first table, by what is in their first column."""
    lines = shown.partition("Is it copying?")[0].splitlines()
    return {line.split("│")[1].strip(): line for line in lines if "│" in line}


@pytest.mark.slow
def test_characters_and_longer_tokens_side_by_side(drakegpt, songs):
    drakegpt("data", "fetch", songs, "--tokenizer", "bpe", "--vocab-size", 300)
    drakegpt("data", "fetch", songs)
    for model, data in (("GPT1LM", "songs-bpe"), ("BigramLM", "songs"), ("GPT1LM", "songs")):
        trained = drakegpt("train", model, *BRIEF, "--data", data, "--name", f"{model}-{data}")
        assert trained.code == 0, trained.err
    score = drakegpt("eval", "GPT1LM-songs-bpe", "--json").json["val"]
    assert score["characters"] > score["tokens"]
    alone = drakegpt("eval", "GPT1LM-songs", "--json").json["val"]
    assert alone["characters"] == alone["tokens"] == score["characters"]
    shown = drakegpt("compare")
    assert shown.code == 0, shown.err
    rows = rows_of_losses(shown.out)
    longer = rows["GPT1LM (300 BPE tokens)"]
    assert f"{score['bits_per_character']:.3f}" in longer
    assert f"{score['loss']:.4f}" not in longer
    assert f"{alone['loss']:.4f}" in rows["GPT1LM"]
    assert "only bits per character" in shown.out
    others = drakegpt("compare", "--json").json["others"]
    assert {row["tokenizer"] for row in others} == {"char", "bpe"}
    # seen from the other side, the losses that can stand side by side are the tokens' own
    turned = drakegpt("compare", "--data", "songs-bpe")
    rows = rows_of_losses(turned.out)
    assert f"{score['loss']:.4f}" in rows["GPT1LM (300 BPE tokens)"]
    assert f"{alone['loss']:.4f}" not in rows["GPT1LM"]
    assert "nats per token of 300 over" in turned.out


def test_stop_is_for_tokenizers_with_an_end(drakegpt, prepared):
    assert drakegpt("train", "BigramLM", *BRIEF, "--name", "b").code == 0
    refused = drakegpt("generate", "b", "--stop")
    assert refused.code == 2
    assert "without an end-of-song token" in refused.err


@pytest.mark.parametrize(
    ("preset", "prompt"),
    [("shakespeare-tutorial", "i like to eat food"), ("shakespeare-sweep", "LEONTES:\n")],
)
def test_the_tutorials_run_and_go_on_from_their_prompts(drakegpt, tmp_path, preset, prompt):
    text = tmp_path / "plays.txt"
    text.write_text("LEONTES:\ni like to eat food of kings\n\nHERMIONE:\nso do i\n" * 60)
    if "TINY_SHAKESPEARE" in os.environ:
        beginning = Path(os.environ["TINY_SHAKESPEARE"]).read_text(encoding="utf-8")[:30_000]
        text.write_text(beginning, encoding="utf-8")
    assert drakegpt("data", "fetch", text, "--name", "shakespeare").code == 0
    trained = drakegpt("train", "--preset", preset, *BRIEF, "--json")
    assert trained.code == 0, trained.err
    run = trained.json["run"]
    written = drakegpt("generate", run, "--prompt", prompt, "--length", 60, "--seed", 1)
    assert written.code == 0, written.err
    assert written.out.startswith(prompt)
    assert len(written.out.removesuffix("\n")) == len(prompt) + 60


@pytest.mark.slow
def test_epochs_from_a_yaml_file(drakegpt, prepared, home, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: GPT1LM\nepochs: 1\neval_interval: 1000\neval_iters: 1\n")
    trained = drakegpt("train", "--config", path, "--json", "--batch-size", 256)
    assert trained.code == 0, trained.err
    windows = (prepared.metadata.train_tokens - 1) // 8
    assert trained.json["iterations"] == -(-windows // 256)
    assert "1 epoch: " in trained.err
    again = (home / "runs" / Path(trained.json["run"]).name / "config.toml").read_text()
    assert 'window_order = "epoch"' in again
    assert "epochs = 0" in again
    together = (
        "compare",
        "--train",
        *settings("--epochs", 1, "--batch-size", 256, "--eval-iters", 1),
    )
    rows = drakegpt(*together, "--json", "--quiet").json["rows"]
    assert [row["iterations"] for row in rows] == [-(-windows // 256)] * 6
    for other in ("--minutes", "--iters"):
        refused = drakegpt("train", "--config", path, other, 1)
        assert refused.code == 2
        assert "both set the length of a run" in refused.err


@pytest.mark.slow
def test_presets_are_measured_here(drakegpt):
    listed = drakegpt("train", "--list-presets", "--json").json["presets"]
    assert {row["seconds"] for row in listed} == {None}
    result = drakegpt("train", "--list-presets", "--times", "--json", "--quiet")
    assert result.code == 0, result.err
    assert drakegpt("train", "--list-presets", "--json").json == result.json  # from its notes
    rows = {row["name"]: row for row in result.json["presets"]}
    assert list(rows) == [
        "default", "scaled", "class", "shakespeare-tutorial", "shakespeare-sweep", "gpt1-small",
        "gpt1",
    ]  # fmt: skip
    assert rows["gpt1"]["parameters"] == 116_141_568
    assert rows["gpt1"]["tokens_per_iteration"] == 6 * 512
    assert rows["default"]["parameters"] == 43_344
    assert 0 < rows["shakespeare-tutorial"]["seconds"] < rows["gpt1"]["seconds"]
    assert json.dumps(rows, allow_nan=False)
