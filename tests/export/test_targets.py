"""An export is whole or not there, and replaces nothing but an export."""

import errno
import os

import pytest

from drakegpt.errors import DrakeGPTError, UsageError
from drakegpt.export.onnx_file import export_onnx
from drakegpt.export.transformers_folder import FILES, export_transformers


def listing(folder):
    """All that is in a folder, hidden files too, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


EXPORTS = pytest.mark.parametrize("export", [export_transformers, export_onnx])


@EXPORTS
def test_an_export_is_replaced_on_request_only(trained, place, export):
    export(trained("GPT1LM"), place / "out", licence="first")
    before = listing(place)
    with pytest.raises(UsageError, match="--force"):
        export(trained(), place / "out")
    assert listing(place) == before
    export(trained(), place / "out", replace=True)
    after = listing(place)
    assert after.keys() == before.keys()
    assert after != before


@EXPORTS
@pytest.mark.parametrize("made", ["file", "folder", "foreign config", "link", "export and more"])
def test_nothing_of_a_users_is_replaced(trained, place, export, made):
    out = place / "out"
    if made == "file":
        out.write_text("mine")
    elif made == "link":
        (place / "target").write_text("mine")
        out.symlink_to(place / "target")
    elif made == "export and more":
        export_transformers(trained(), out)
        (out / "notes.txt").write_text("mine")
    else:
        out.mkdir()
        (out / ("config.json" if "config" in made else "notes.txt")).write_text('{"a": 1}')
    before = listing(place)
    for replace in (False, True):
        with pytest.raises(UsageError):
            export(trained(), out, replace=replace)
    assert listing(place) == before


def test_an_empty_folder_is_filled(trained, place):
    (place / "out").mkdir()
    export_transformers(trained(), place / "out")
    assert sorted(path.name for path in (place / "out").iterdir()) == sorted(FILES)


def test_a_folder_that_appears_meanwhile_stays(trained, place, monkeypatch):
    run = trained()
    load = type(run).load_model

    def load_slowly(self, device, **given):
        (place / "out").mkdir()
        (place / "out" / "notes.txt").write_text("mine")
        return load(self, device, **given)

    monkeypatch.setattr(type(run), "load_model", load_slowly)
    with pytest.raises(UsageError, match="no export of drakegpt, such as notes.txt"):
        export_transformers(run, place / "out")
    assert listing(place) == {"out": None, "out/notes.txt": b"mine"}


@EXPORTS
def test_a_missing_folder_is_named(trained, place, export):
    with pytest.raises(UsageError, match="there is no folder"):
        export(trained(), place / "missing" / "out")
    assert listing(place) == {}


@EXPORTS
def test_a_name_that_is_too_long_is_a_sentence(trained, place, export):
    with pytest.raises(DrakeGPTError, match="Name a place that you can write to"):
        export(trained(), place / ("x" * 300))
    assert listing(place) == {}


@EXPORTS
@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("written", [0, 1, 5])
def test_a_full_disk_leaves_what_was_there(trained, place, monkeypatch, export, replaced, written):
    """Of six files that are synced to the disk, or one, the first after `written` fails."""
    run = trained()
    if replaced:
        export(trained("GPT1LM"), place / "out")
    before = listing(place)
    sync, left = os.fsync, [0 if export is export_onnx else written]

    def fill(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sync(handle)

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(DrakeGPTError, match=r"No space left on device.*Make room"):
        export(run, place / "out", replace=replaced)
    assert listing(place) == before
