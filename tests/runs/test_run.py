import json
import shutil

import pytest
import torch
from learning import SHORT, train

from drakegpt.config import resolve
from drakegpt.data.prepare import prepare_dataset
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.errors import DrakeGPTError, RunError
from drakegpt.runs.checkpoint import list_checkpoints, load_weights
from drakegpt.runs.create import create_run
from drakegpt.runs.lookup import list_runs
from drakegpt.runs.run import open_run
from drakegpt.runs.session import TrainingSession
from drakegpt.training.reports import Evaluation

CPU = torch.device("cpu")


def test_a_run_remembers_everything(prepared):
    run = create_run(resolve("MultiHeadAttentionLM", "default", prepared.name, SHORT), prepared)
    with TrainingSession(run) as session:
        evaluations = [r for r in session.reports() if isinstance(r, Evaluation)]
    again = open_run(run.folder)
    assert again.config == run.config
    assert again.finished
    assert [e["val_loss"] for e in again.evaluations] == [e.val_loss for e in evaluations]
    assert again.load_dataset().metadata == prepared.metadata
    assert again.last_checkpoint().iteration == 4


def test_weights_have_metadata(prepared):
    run = train(prepared)
    _, metadata = load_weights(run.folder / "best.safetensors")
    best = min(run.evaluations, key=lambda e: e["val_loss"])
    assert metadata["iteration"] == str(best["iteration"])
    assert json.loads(metadata["model"])["model"] == "TransformerLM"
    assert json.loads(metadata["tokenizer"])["characters"] == run.tokenizer.characters
    assert metadata["dataset_version"] == prepared.metadata.version


@pytest.mark.parametrize("file", ["config.toml", "run.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"a": 1}', b'model = "X"\n'])
def test_damaged_runs_are_named_not_crashed_on(prepared, file, content):
    run = train(prepared, "BigramLM")
    (run.folder / file).write_bytes(content)
    with pytest.raises(RunError, match=run.name):
        open_run(run.folder)
    assert list_runs() == []


def test_damaged_weights_are_not_used(prepared):
    run = train(prepared, "BigramLM")
    for checkpoint in list_checkpoints(run.folder / "checkpoints"):
        content = bytearray(checkpoint.weights.read_bytes())
        content[-1] ^= 1
        checkpoint.weights.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        run.load_model(CPU)


def test_a_run_keeps_its_dataset_version(prepared, corpus):

    run = train(prepared, "BigramLM")
    prepare_dataset(corpus + "Z!", name="small", source="", provenance="", source_sha256="")
    assert open_run(run.folder).load_dataset().metadata.version == prepared.metadata.version


def test_training_checks_the_tokens_it_is_given(prepared):
    import numpy as np

    array = np.load(prepared.folder / "train.npy")
    array[5] ^= 1
    np.save(prepared.folder / "train.npy", array)
    with pytest.raises(DrakeGPTError, match="another checksum"):
        train(prepared, "BigramLM")


def test_data_of_another_tokenizer_are_refused(prepared):
    run = create_run(resolve("BigramLM", "default", "small", {"iters": 2}), prepared)
    other = CharTokenizer("".join(sorted({*prepared.tokenizer.characters, "?"})))
    (run.folder / "tokenizer.json").write_text(other.to_json(), encoding="utf-8")
    with pytest.raises(RunError, match="prepared with another tokenizer"):
        open_run(run.folder).load_dataset()


@pytest.mark.parametrize("left", [(), ("run.json",), ("config.toml",), ("checkpoints",)])
def test_the_rest_of_a_run_is_listed_and_can_be_removed(drakegpt, prepared, home, left):
    run = train(prepared, "BigramLM", "r")
    for path in list(run.folder.iterdir()):
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert drakegpt("runs", "list", "--json").json["runs"][0]["state"] == "damaged"
    refused = drakegpt("train", "BigramLM", "--iters", 2, "--name", "r")
    assert refused.code == 2
    assert "not a whole run" in refused.err
    assert "drakegpt runs remove r" in refused.err
    assert drakegpt("runs", "remove", "r", "-y").code == 0
    assert not (home / "runs" / "r").exists()
    assert drakegpt("train", "BigramLM", "--iters", 2, "--name", "r", "-q").code == 0


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "r"), ("generate", "r", "-n", "3"), ("export", "packed", "r"),
        ("train", "--resume", "r", "--iters", "9"), ("compare",),
        ("train", "TransformerLM", "--embedding-dim", "16", "--init-from", "r", "--iters", "2"),
    ],
)  # fmt: skip
def test_weights_of_another_shape_are_an_error_without_traceback(drakegpt, prepared, command):
    sizes = {"embedding_dim": 8, "num_heads": 2, "num_layers": 1, "context_length": 4}
    run = train(prepared, "TransformerLM", "r", **sizes)
    text = (
        (run.folder / "config.toml").read_text().replace("embedding_dim = 8", "embedding_dim = 16")
    )
    (run.folder / "config.toml").write_text(text)
    sizes = [w for n, v in sizes.items() if n != "embedding_dim" for w in (f"--{n}", str(v))]
    sizes = [word.replace("_", "-") for word in sizes] if "--init-from" in command else []
    told = drakegpt(*command, *sizes)
    assert told.code in (1, 2), told.out
    assert "Error: " in told.err
    assert "Traceback" not in told.err
    assert "fit" in told.err or "Cannot initialize" in told.err


def test_the_list_of_many_runs_has_the_rows_of_few(drakegpt, prepared):
    """They go through the table in one piece."""
    run = train(prepared, "BigramLM", "a")
    one = drakegpt("runs").out.splitlines()
    for name in ("b", "c"):
        shutil.copytree(run.folder, run.folder.with_name(name))
    many = drakegpt("runs").out.splitlines()
    assert [line.replace("│ a", "│ b") for line in one[3:4]] == many[4:5]
    assert len(many) == len(one) + 2
    narrow = drakegpt("runs", COLUMNS=30)
    assert narrow.code == 0


@pytest.mark.parametrize(
    "line",
    ['seed = 7\nseed = 8', "seed = null", "seed = 7 = 8", "[seed]", "seed = [1]", "seed = NaN",
     'seed = 7, "iters": 3'],
)  # fmt: skip
def test_settings_that_are_almost_toml_are_damage(prepared, line):
    run = train(prepared, "BigramLM", "a")
    file = run.folder / "config.toml"
    lines = [each for each in file.read_text().splitlines() if not each.startswith("seed")]
    file.write_text("\n".join([*lines, line]) + "\n")
    with pytest.raises(RunError, match="not a whole run"):
        open_run(run.folder)


def no_weights(run):
    for file in (run.folder / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"")


def other_shape(run):
    file = run.folder / "config.toml"
    file.write_text(file.read_text().replace("embedding_dim = 32", "embedding_dim = 64"))


def other_tokenizer(run):
    other = CharTokenizer(run.tokenizer.characters[:-1] + "~")
    (run.folder / "tokenizer.json").write_text(other.to_json(), encoding="utf-8")


@pytest.mark.parametrize("damage", [no_weights, other_shape, other_tokenizer])
def test_a_comparison_leaves_a_damaged_run_out_and_says_what_is_wrong(drakegpt, prepared, damage):
    train(prepared, "BigramLM", "good")
    run = train(prepared, "MultiHeadAttentionLM", "odd")
    damage(run)
    shown = drakegpt("compare")
    assert shown.code == 0, shown.err
    assert "odd is damaged and left out. " in shown.err
    compared = drakegpt("compare", "--json").json
    assert [row["model"] for row in compared["rows"]] == ["BigramLM"]
    (odd,) = compared["damaged"]
    assert odd["run"] == "odd"
    assert odd["problem"]


def test_what_was_trained_beyond_the_last_whole_checkpoint_is_not_counted(drakegpt, prepared):
    run = train(prepared, "BigramLM", "r", iters=8, save_interval=4)
    run.last_checkpoint().weights.write_bytes(b"")
    compared = drakegpt("compare", "--json")
    assert compared.json["rows"][0]["iterations"] == 4
    assert compared.err.count("Going back to iteration 4") == 1
    evaluated = drakegpt("eval", "r")
    assert "after 4 iterations" in evaluated.out
