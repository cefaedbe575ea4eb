import os
import sys
from pathlib import Path

import pytest

from drakegpt import paths


def test_home_is_where_the_variable_says_or_in_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DRAKEGPT_HOME", str(tmp_path / "here"))
    assert paths.home() == tmp_path / "here"
    monkeypatch.delenv("DRAKEGPT_HOME")
    assert paths.home().name == "drakegpt"
    assert paths.home().is_relative_to(Path.home())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    paths.write_text(target, "first\n")
    with pytest.raises(RuntimeError), paths.write_atomically(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"first\n"
    paths.write_text(target, "zweite Ä\n")
    assert target.read_text(encoding="utf-8") == "zweite Ä\n"
    assert [f.name for f in target.parent.iterdir()] == ["file.txt"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "folder"
    for content in ("one", "two"):
        with paths.folder_atomically(target) as folder:
            (folder / "a").write_text(content)
    with pytest.raises(RuntimeError), paths.folder_atomically(target) as folder:
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

    def fails_the_second_time(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return replace(*arguments)

    monkeypatch.setattr(os, "replace", fails_the_second_time)
    with pytest.raises(OSError, match="Input/output"), paths.folder_atomically(target) as folder:
        (folder / "a").write_text("new")
    assert (target / "a").read_text() == "old"


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "kept").write_text("")
    (tmp_path / ".x.12.unfinished").write_text("")
    (tmp_path / ".y.34.unfinished").mkdir()
    paths.remove_leftovers(tmp_path)
    assert [f.name for f in tmp_path.iterdir() if f.name != "home"] == ["kept"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_files_get_the_permissions_the_user_wants(tmp_path):
    before = os.umask(0o022)
    try:
        paths.write_text(tmp_path / "f", "")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644
