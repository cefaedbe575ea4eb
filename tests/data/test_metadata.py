"""`dataset.json` is data from outside: what is odd in it is named, and used for nothing."""

import json
import shutil

import pytest

from drakegpt import home
from drakegpt.data import dataset
from drakegpt.data.metadata import metadata_from_json
from drakegpt.data.prepare import prepare_dataset
from drakegpt.errors import DamagedDatasetError


def test_what_was_written_is_read(prepared):
    assert metadata_from_json(prepared.metadata.to_json()) == prepared.metadata


def test_entries_with_their_names_from_before_are_read(prepared):
    written = json.loads(prepared.metadata.to_json())
    written["seen_share"] = written.pop("val_share_in_train")
    written["songs_in_both"] = written.pop("val_songs_in_train")
    assert metadata_from_json(json.dumps(written)) == prepared.metadata


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("name", "../small"), ("name", "other"), ("name", ""), ("name", ["small"]), ("name", None),
        ("version", "../.."), ("version", "0" * 64), ("version", 1),
        ("source", 7), ("provenance", None), ("prepared_at", 12),
        ("characters", "12"), ("characters", -1), ("characters", True), ("characters", 1.5),
        ("songs", "none"), ("songs", -2), ("songs", [1]),
        ("vocab_size", 10**9), ("vocab_size", None),
        ("train_tokens", -3), ("train_tokens", 3), ("val_tokens", 10**30),
        ("array_sha256", {}), ("array_sha256", {"../../x": "y", "val": "z"}),
        ("array_sha256", {"train": 1, "val": 2}), ("array_sha256", []),
        ("tokenizer", "bpe"), ("tokenizer", ["char"]),
        ("val_share_in_train", "much"), ("val_share_in_train", -0.5),
        ("val_share_in_train", float("nan")),
        ("val_songs_in_train", 1.5), ("rows_left_out", "2"), ("new", 1),
    ],
)  # fmt: skip
def test_an_odd_entry_is_one_odd_row(drakegpt, prepared, corpus, entry, value):
    prepare_dataset(corpus, name="whole", source="", provenance="", source_sha256="")
    file = prepared.folder / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {entry: value}))
    with pytest.raises(DamagedDatasetError):
        dataset.load("small").split("train"), dataset.load("small").split("val")
    listed = drakegpt("data", "list", "--json")
    assert (listed.code, [row["name"] for row in listed.json["datasets"]]) == (0, ["whole"])
    (odd,) = listed.json["damaged"]
    assert odd["name"] == "small"
    assert "is damaged" in odd["damaged"]
    shown = drakegpt("data", "list")
    assert (shown.code, "damaged" in shown.out, "whole" in shown.out) == (0, True, True)
    for options in ([], ["--json"]):
        told = drakegpt("data", "show", "small", *options)
        assert told.code == 0
        assert "is damaged" in told.out
        assert "--name small --force" in told.err
    assert drakegpt("data", "show", "whole").code == 0


@pytest.mark.parametrize(
    "content", ["", "..", "../whole", "x" * 16, "\0", "0" * 16, "é", "[" * 99999]
)
@pytest.mark.parametrize("file", ["current", "dataset.json", "tokenizer.json", "train.npy"])
def test_odd_files_are_odd_rows(drakegpt, prepared, corpus, file, content):
    prepare_dataset(corpus, name="whole", source="", provenance="", source_sha256="")
    folder = prepared.folder.parent if file == "current" else prepared.folder
    (folder / file).write_text(content)
    listed = drakegpt("data", "list", "--json")
    assert listed.code == 0
    assert [row["name"] for row in listed.json["datasets"]] == ["whole"]
    assert drakegpt("data", "show", "whole").code == 0


def test_a_folder_in_the_place_of_a_file(drakegpt, prepared):
    for file in ("train.npy", "dataset.json"):
        (prepared.folder / file).unlink()
        (prepared.folder / file).mkdir()
        assert drakegpt("data", "list", "--json").json["damaged"][0]["name"] == "small"
    shutil.rmtree(prepared.folder)
    with pytest.raises(DamagedDatasetError, match="is missing"):
        dataset.load("small")
    assert drakegpt("data", "list", "--json").json["damaged"][0]["name"] == "small"


def test_arrays_of_numbers_that_are_no_tokens(drakegpt, prepared):
    import numpy as np

    file = prepared.folder / "train.npy"
    array = np.load(file)
    for wrong in (array + 200, array.astype(np.float32), array.astype(np.int16) - 1):
        np.save(file, wrong)
        shown = drakegpt("data", "show")
        assert (shown.code, "is damaged" in shown.out) == (0, True)


def test_names_with_brackets_and_escapes_are_shown_as_they_are(drakegpt, corpus):
    prepare_dataset(
        corpus, name="[red]x", source="", provenance="/a/[b]/\x1b[31mc", source_sha256=""
    )
    listed = drakegpt("data", "list").out
    assert "[red]x" in listed
    assert "/a/[b]/\x1b[31mc" in listed  # to a pipe as it is; see test_foreign_text
    assert "/a/[b]/\x1b[31mc" in drakegpt("data", "show", "[red]x").out
    assert (home.datasets() / "[red]x").is_dir()
