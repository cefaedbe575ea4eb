import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from drakegpt import files, home


def test_home_is_where_the_variable_says_or_in_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DRAKEGPT_HOME", str(tmp_path / "here"))
    assert home.root() == tmp_path / "here"
    monkeypatch.delenv("DRAKEGPT_HOME")
    assert home.root().name == "drakegpt"
    assert home.root().is_relative_to(Path.home())


WORKING = """
import sys, time
from pathlib import Path
from drakegpt import files
with files.temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x" * 1000)
    print(folder, flush=True)
    time.sleep(100)
"""


def test_temporary_folders_of_killed_processes_are_removed_and_no_others():
    place = home.datasets()
    place.mkdir(parents=True)
    mine = place / ".drakegpt-work"
    mine.mkdir()
    (place / ".drakegpt-work.12345678.unfinished").symlink_to(mine)
    processes = [
        subprocess.Popen([sys.executable, "-c", WORKING, place], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    killed, alive = (Path(process.stdout.readline().strip()) for process in processes)
    home.clear_leftovers()
    assert killed.is_dir()
    processes[0].kill()
    processes[0].communicate()
    home.clear_leftovers()
    assert not killed.exists()
    assert (alive / "half").exists()
    assert mine.is_dir()
    processes[1].kill()
    processes[1].communicate()
    home.clear_leftovers()
    assert not alive.exists()


def test_temporary_folders_are_made_while_others_are_cleared(tmp_path, monkeypatch):
    import threading

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stop, failures = threading.Event(), []

    def clear():
        while not stop.is_set():
            home.clear_leftovers()

    def work():
        try:
            for _ in range(60):
                with files.temporary_folder(tmp_path) as folder:
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
from drakegpt import files
with files.write_atomically(Path(sys.argv[1]) / "file") as file:
    with files.write_folder_atomically(Path(sys.argv[1]) / "folder") as folder:
        (folder / "half").write_text("x")
        print("ready", flush=True)
        time.sleep(100)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
@pytest.mark.parametrize(
    "place", ["runs", "runs/r", "runs/r/checkpoints", "sweeps/s/locks", "comparisons/d", "data/d"]
)
def test_leftovers_of_killed_processes_are_cleared_everywhere_and_no_others(place):
    parent = home.root() / place
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
    home.clear_leftovers()
    assert len(list(parent.glob(".f*.unfinished"))) == 4
    for left, process in zip((2, 0), processes, strict=True):
        process.kill()
        process.communicate()
        home.clear_leftovers()
        assert len(list(parent.glob(".f*.unfinished"))) == left
    assert [path.name for path in parent.iterdir()] == ["kept.unfinished"]
