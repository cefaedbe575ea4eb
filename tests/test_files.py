import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drakegpt import files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    files.write_text(target, "first\n")
    with pytest.raises(RuntimeError), files.write_atomically(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"first\n"
    files.write_text(target, "zweite Ä\n")
    assert target.read_text(encoding="utf-8") == "zweite Ä\n"
    assert [f.name for f in target.parent.iterdir()] == ["file.txt"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "folder"
    for content in ("one", "two"):
        with files.write_folder_atomically(target) as folder:
            (folder / "a").write_text(content)
    with pytest.raises(RuntimeError), files.write_folder_atomically(target) as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert [f.name for f in target.parent.iterdir()] == ["folder"]
    assert {f.name: f.read_text() for f in target.iterdir()} == {"a": "two"}


def test_an_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "a").write_text("old")
    replace = os.replace
    calls = []

    def fails_the_third_time(*arguments):  # after one that the old folder refuses, and its move
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(5, "Input/output error")
        return replace(*arguments)

    monkeypatch.setattr(os, "replace", fails_the_third_time)
    with (
        pytest.raises(OSError, match="Input/output"),
        files.write_folder_atomically(target) as folder,
    ):
        (folder / "a").write_text("new")
    assert (target / "a").read_text() == "old"


def test_a_folder_that_is_to_be_kept_is_never_moved(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "a").write_text("first")
    before = target.stat().st_ino
    with files.write_folder_atomically(target, keep=lambda: True) as folder:
        (folder / "a").write_text("second")
    assert (target.stat().st_ino, (target / "a").read_text()) == (before, "first")
    assert [f.name for f in tmp_path.iterdir() if f.name != "home"] == ["folder"]


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "kept").write_text("")
    (tmp_path / ".x.12.unfinished").write_text("")
    (tmp_path / ".y.34.unfinished").mkdir()
    files.remove_leftovers(tmp_path)
    assert [f.name for f in tmp_path.iterdir() if f.name != "home"] == ["kept"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_files_get_the_permissions_the_user_wants(tmp_path):
    before = os.umask(0o022)
    try:
        files.write_text(tmp_path / "f", "")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644


def test_a_temporary_folder_is_gone_after_the_block(tmp_path):
    with files.temporary_folder(tmp_path / "a") as folder:
        (folder / "file").write_text("x")
        with pytest.raises(RuntimeError), files.temporary_folder(tmp_path / "a") as other:
            assert other != folder
            raise RuntimeError
        assert not other.exists()
        assert folder.parent == tmp_path / "a"
    assert list((tmp_path / "a").iterdir()) == []


def test_a_temporary_folder_is_locked_by_an_open_file_where_folders_have_no_locks(
    tmp_path, monkeypatch
):
    """As on Windows, where a file that is open is not removed."""
    monkeypatch.setattr(files, "_POSIX", False)
    unlink, opened = Path.unlink, set()

    def refuses(path, missing_ok=False):
        if path in opened:
            raise PermissionError(13, "used by another process", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuses)
    with files.temporary_folder(tmp_path) as folder:
        opened.update(folder.iterdir())
        (folder / "half").write_text("x")
        files.remove_leftovers(tmp_path, temporary_folders_only=True)
        assert (folder / "half").exists()
        new = folder.with_name(folder.name.replace("work.", "work.0"))
        new.mkdir()  # by a process that is about to lock it
        (tmp_path / ".file.1234.unfinished").touch()
        files.remove_leftovers(tmp_path, temporary_folders_only=True)
        assert new.exists()
        opened.clear()
        files.remove_leftovers(tmp_path, temporary_folders_only=True)
        assert not folder.exists()
    assert (tmp_path / ".file.1234.unfinished").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX links")
def test_a_leftover_that_is_a_link_leads_nowhere(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".x.12345678.unfinished").symlink_to("mine")
    files.remove_leftovers(tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_folder_takes_a_new_name_only_if_that_is_free(tmp_path):
    for name in ("made", "taken", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    for name in ("taken", "empty"):
        with pytest.raises(FileExistsError):
            files.move_exclusively(tmp_path / "made", tmp_path / name)
    files.move_exclusively(tmp_path / "made", tmp_path / "free")
    assert (tmp_path / "free").is_dir()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_is_never_over_another(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
    files.write_exclusively(tmp_path / "a", "one")
    with pytest.raises(FileExistsError):
        files.write_exclusively(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["a"]


def test_temporary_names_fit_where_names_are_long(tmp_path):
    path = tmp_path / ("é" * 120)
    files.write_text(path, "x")
    with files.write_folder_atomically(tmp_path / ("ü" * 120)):
        pass
    assert path.read_text() == "x"


def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as told:
        files.write_text(tmp_path / "f", "x")
    assert told.value.filename == str(tmp_path / "f")
    assert not [path for path in tmp_path.iterdir() if path.name != "home"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=6),
    st.sampled_from([np.uint8, np.int16, np.int32]),
)
def test_blocks_become_the_file_that_numpy_writes(tmp_path, blocks, kind):
    whole = np.array([token for block in blocks for token in block], kind)
    written = files.write_array(tmp_path / "a.npy", kind, (np.array(b, kind) for b in blocks))
    np.save(tmp_path / "b.npy", whole)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    digest = hashlib.sha256(whole.tobytes()).hexdigest()
    assert (written.tokens, written.sha256) == (len(whole), digest)


def test_a_checksum_is_taken_block_by_block(monkeypatch):
    array = np.arange(1000, dtype=np.int16)
    for size in (1, 7, 1000, 2000):
        monkeypatch.setattr(files, "CHECKSUM_BLOCK", size)
        assert files.compute_checksum(array) == hashlib.sha256(array.tobytes()).hexdigest()


def test_an_array_that_fails_half_way_leaves_nothing(tmp_path):
    def blocks():
        yield np.zeros(5, np.uint8)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        files.write_array(tmp_path / "new" / "a.npy", np.uint8, blocks())
    assert not list((tmp_path / "new").iterdir())
