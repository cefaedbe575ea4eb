"""Weights that were taken out of their run: they write the same, or are refused in words."""

import json
import shutil

import pytest
import torch
from learning import at_home, prepare, small_text, train

from drakegpt.errors import RunError
from drakegpt.generation.text import generate_text
from drakegpt.runs.checkpoint import load_weights, save_weights
from drakegpt.runs.lookup import find_pretrained
from drakegpt.runs.packing import pack_run
from drakegpt.runs.weights_file import pretrained_from_file, pretrained_from_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trained once, for what only reads it."""
    with at_home(tmp_path_factory.mktemp("weights_file")):
        return train(prepare(small_text()))


def text(pretrained):
    return "".join(generate_text(pretrained.load_model(CPU), pretrained.tokenizer, "the", 60))


def tampered(run, path, setting, value):
    """A copy of the run's weights that says something else of its model."""
    weights, metadata = load_weights(run.last_checkpoint().weights)
    metadata.pop("format_version")
    metadata["model"] = json.dumps(json.loads(metadata["model"]) | {setting: value})
    save_weights(path, weights, metadata)


@pytest.mark.parametrize("bits", ["full", "1.58"])
def test_a_file_writes_what_its_run_writes(prepared, tmp_path, bits):
    run = train(prepared, bits=bits)
    expected = text(pretrained_from_run(run))
    file = shutil.copy(run.last_checkpoint().weights, tmp_path / "mine.safetensors")
    packed = pack_run(run, "1.58" if bits == "1.58" else "8")
    small = shutil.copy(packed.last_checkpoint().weights, tmp_path / "small.safetensors")
    whole = text(pretrained_from_run(packed))
    shutil.rmtree(run.folder.parent)
    assert text(find_pretrained(str(file))) == expected
    assert text(find_pretrained(str(small))) == whole
    pretrained = pretrained_from_file(file)
    assert (pretrained.model, pretrained.data) == ("TransformerLM", "small")
    assert pretrained.tokenizer.to_json() == prepared.tokenizer.to_json()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", None),
        ("model", "[]"),
        ("model", '{"model": "TransformerLM"}'),
        ("tokenizer", None),
        ("tokenizer", '{"kind": "char", "characters": "ab"}'),
        ("packed", "5"),
        ("packed", '{"bits": "1.58"}'),
    ],
)
def test_files_that_do_not_say_what_they_are_are_refused(run, tmp_path, key, value):
    weights, metadata = load_weights(run.last_checkpoint().weights)
    metadata = {k: v for k, v in metadata.items() if k not in ("format_version", key)}
    if value is not None:
        metadata[key] = value
    save_weights(tmp_path / "w.safetensors", weights, metadata)
    with pytest.raises(RunError, match="does not describe a model"):
        pretrained_from_file(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("embedding_dim", 64), ("bits", "1"), ("num_layers", 2), ("model", "BlocksLM")],
)
def test_weights_of_another_model_are_refused(run, tmp_path, setting, value):
    tampered(run, tmp_path / "w.safetensors", setting, value)
    with pytest.raises(RunError, match="do not match its metadata"):
        pretrained_from_file(tmp_path / "w.safetensors").load_model(CPU)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("embedding_dim", -1), ("embedding_dim", "32"), ("vocab_size", 10**9), ("dropout", 2.0),
     ("num_heads", 5), ("model", "os.system"), ("more", 1)],
)  # fmt: skip
def test_settings_from_outside_are_checked(run, tmp_path, setting, value):
    tampered(run, tmp_path / "w.safetensors", setting, value)
    with pytest.raises(RunError, match="does not describe a model"):
        pretrained_from_file(tmp_path / "w.safetensors")


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "poem.txt").write_text("roses are red")
    with pytest.raises(RunError, match="cannot be read"):
        find_pretrained(str(tmp_path / "poem.txt"))
