import os
import subprocess
import sys
import tempfile
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


def test_a_workplace_is_gone_after_the_block(tmp_path):
    with paths.workplace(tmp_path / "a") as folder:
        (folder / "file").write_text("x")
        with pytest.raises(RuntimeError), paths.workplace(tmp_path / "a") as other:
            assert other != folder
            raise RuntimeError
        assert not other.exists()
        assert folder.parent == tmp_path / "a"
    assert list((tmp_path / "a").iterdir()) == []


WORK = """
import sys, time
from pathlib import Path
from drakegpt import paths
with paths.workplace(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x" * 1000)
    print(folder, flush=True)
    time.sleep(100)
"""


def test_the_workplaces_of_the_dead_are_removed_and_no_others(tmp_path, monkeypatch):
    place = paths.datasets()
    place.mkdir(parents=True)
    mine = place / ".drakegpt-work"
    mine.mkdir()
    (place / ".drakegpt-work-link").symlink_to(mine)
    processes = [
        subprocess.Popen([sys.executable, "-c", WORK, place], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    dead, alive = (Path(process.stdout.readline().strip()) for process in processes)
    paths.remove_dead_workplaces()
    assert dead.is_dir()
    processes[0].kill()
    processes[0].communicate()
    paths.remove_dead_workplaces()
    assert not dead.exists()
    assert (alive / "half").exists()
    assert mine.is_dir()
    processes[1].kill()
    processes[1].communicate()
    paths.remove_dead_workplaces()
    assert not alive.exists()


def test_workplaces_are_made_while_others_are_cleared(tmp_path, monkeypatch):
    import threading

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stop, failures = threading.Event(), []

    def clear():
        while not stop.is_set():
            paths.remove_dead_workplaces()

    def work():
        try:
            for _ in range(60):
                with paths.workplace(tmp_path) as folder:
                    (folder / "file").write_text("x")
                    assert (folder / "file").read_text() == "x"
        except Exception as error:
            failures.append(error)

    clearing = threading.Thread(target=clear)
    working = [threading.Thread(target=work) for _ in range(3)]
    for thread in (clearing, *working):
        thread.start()
    for thread in working:
        thread.join()
    stop.set()
    clearing.join()
    assert not failures


HELD = """
import sys, time
from pathlib import Path
from drakegpt import paths
with paths.write_atomically(Path(sys.argv[1]) / "file") as file:
    with paths.folder_atomically(Path(sys.argv[1]) / "folder") as folder:
        (folder / "half").write_text("x")
        print("ready", flush=True)
        time.sleep(100)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
@pytest.mark.parametrize(
    "place", ["runs", "runs/r", "runs/r/checkpoints", "sweeps/s/locks", "comparisons/d", "data/d"]
)
def test_leftovers_of_the_dead_are_cleared_everywhere_and_none_of_the_living(home, place):
    parent = home / place
    parent.mkdir(parents=True)
    kept = parent / "kept.unfinished"
    kept.mkdir()
    (kept / "x").write_text("x")
    processes = [
        subprocess.Popen([sys.executable, "-c", HELD, parent], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    paths.clear_leftovers()
    assert len(list(parent.glob(".f*.unfinished"))) == 4
    for left, process in zip((2, 0), processes, strict=True):
        process.kill()
        process.communicate()
        paths.clear_leftovers()
        assert len(list(parent.glob(".f*.unfinished"))) == left
    assert [path.name for path in parent.iterdir()] == ["kept.unfinished"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX links")
def test_a_leftover_that_is_a_link_leads_nowhere(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".x.12345678.unfinished").symlink_to("mine")
    paths.remove_leftovers(tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_folder_takes_a_new_name_only_if_that_is_free(tmp_path):
    for name in ("made", "taken", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    for name in ("taken", "empty"):
        with pytest.raises(FileExistsError):
            paths.move_new(tmp_path / "made", tmp_path / name)
    paths.move_new(tmp_path / "made", tmp_path / "free")
    assert (tmp_path / "free").is_dir()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_is_never_over_another(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
    paths.write_new(tmp_path / "a", "one")
    with pytest.raises(FileExistsError):
        paths.write_new(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["a"]


def test_temporary_names_fit_where_names_are_long(tmp_path):
    path = tmp_path / ("é" * 120)
    paths.write_text(path, "x")
    with paths.folder_atomically(tmp_path / ("ü" * 120)):
        pass
    assert path.read_text() == "x"


def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as told:
        paths.write_text(tmp_path / "f", "x")
    assert told.value.filename == str(tmp_path / "f")
    assert not [path for path in tmp_path.iterdir() if path.name != "home"]
