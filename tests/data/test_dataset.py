import json
import os
import threading

import numpy as np
import pytest

from drakegpt import home
from drakegpt.data import dataset
from drakegpt.data import prepare as preparing
from drakegpt.data.prepare import prepare_dataset
from drakegpt.errors import CorpusError, DrakeGPTError


def prepare(text, name="x"):
    return prepare_dataset(text, name=name, source="t", provenance="t", source_sha256="")


def test_the_split_is_contiguous_and_ninety_to_ten():
    text = "".join(chr(97 + i % 26) for i in range(1000))
    data = prepare(text)
    train, val = (data.tokenizer.decode(data.split(s).numpy()) for s in ("train", "val"))
    assert train + val == text
    assert (len(train), len(val)) == (900, 100)


def test_tokens_are_stored_compactly_and_as_data(prepared):
    stored = np.load(prepared.folder / "train.npy", mmap_mode="r", allow_pickle=False)
    assert stored.dtype == np.uint8
    assert (prepared.folder / "train.npy").stat().st_size < len(stored) + 200


def test_metadata_tells_where_it_came_from(prepared):
    assert prepared.metadata.source == "test"
    assert prepared.metadata.characters == (
        prepared.metadata.train_tokens + prepared.metadata.val_tokens
    )
    assert dataset.load("small").metadata == prepared.metadata


def test_a_new_text_is_a_new_version_and_the_old_one_stays(corpus):
    old = prepare(corpus)
    new = prepare(corpus + "more\n")
    assert dataset.load("x").metadata.version == new.metadata.version
    again = dataset.load("x", old.metadata.version)
    assert again.metadata == old.metadata
    assert len(again.split("train")) == old.metadata.train_tokens


def test_preparing_again_mends_a_damaged_array(corpus):
    data = prepare(corpus)
    good = (data.folder / "train.npy").read_bytes()
    (data.folder / "train.npy").write_bytes(good[:-10])
    prepare(corpus)
    assert (data.folder / "train.npy").read_bytes() == good
    assert sorted(f.name for f in data.folder.iterdir()) == [
        "dataset.json", "tokenizer.json", "train.npy", "val.npy",
    ]  # fmt: skip


def test_two_preparations_at_once_do_no_harm(corpus):
    failures = []

    def work():
        try:
            prepare(corpus)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert dataset.load("x").text("train", 10) == corpus[:10]
    assert not list((home.datasets() / "x").glob(".*unfinished"))


def test_a_version_that_another_process_has_stored_meanwhile_stays(corpus, monkeypatch):
    """It may be in use: there is no moment without it."""
    write, stored = preparing._write_files, []

    def write_slowly(preparation, folder):
        write(preparation, folder)
        if not stored:
            stored.append(None)
            stored.append(prepare(corpus).folder.stat().st_ino)

    monkeypatch.setattr(preparing, "_write_files", write_slowly)
    assert prepare(corpus).folder.stat().st_ino == stored[1]


@pytest.mark.parametrize("file", ["train.npy", "tokenizer.json", "dataset.json"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY broken", b'{"kind": 1}', b"\xff\xfe"])
def test_damaged_files_are_named(prepared, file, content):
    (prepared.folder / file).write_bytes(content)
    with pytest.raises(DrakeGPTError, match="damaged"):
        dataset.load("small").split("train")


def test_a_full_disk_leaves_the_old_version(prepared, corpus, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        prepare_dataset(corpus * 2, name="small", source="", provenance="", source_sha256="")
    assert dataset.load("small").metadata == prepared.metadata
    assert not list((home.datasets() / "small").glob(".*unfinished"))


def test_context_is_checked_against_the_smaller_split(prepared):
    val = prepared.metadata.val_tokens
    prepared.check_context(val - 1)
    with pytest.raises(CorpusError, match=rf"{val:,} tokens, and {val + 1:,} are needed"):
        prepared.check_context(val)


def test_default_is_what_was_prepared_last(corpus):
    assert dataset.get_default_name() is None
    prepare(corpus, "a")
    prepare(corpus, "b")
    assert dataset.get_default_name() == "b"
    prepare(corpus, "a")
    assert dataset.load().name == "a"
    (home.datasets() / "default").write_text("gone")
    assert dataset.get_default_name() == "a"


def test_pickles_are_never_loaded(prepared):
    np.save(prepared.folder / "train.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(CorpusError, match="damaged"):
        dataset.load("small").split("train")


def test_metadata_is_plain_json(prepared):
    stored = json.loads((prepared.folder / "dataset.json").read_text())
    assert set(stored["array_sha256"]) == {"train", "val"}
