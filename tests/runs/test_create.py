import pytest
from learning import train

from drakegpt import home
from drakegpt import home as home_folders
from drakegpt.config import resolve
from drakegpt.errors import UsageError
from drakegpt.runs.create import create_run
from drakegpt.runs.lookup import list_runs


def test_no_run_overwrites_another(prepared):
    first = train(prepared)
    second = train(prepared)
    assert first.folder != second.folder
    train(prepared, name="mine")
    with pytest.raises(UsageError, match="'mine' already"):
        train(prepared, name="mine")
    assert len(list_runs()) == 3


@pytest.mark.parametrize("name", ["a/b", "..", "", ".hidden", "transformerlm"])
def test_names_that_are_paths_are_refused(prepared, name):
    with pytest.raises(UsageError, match="cannot name a run"):
        train(prepared, name=name)


def test_everything_lives_under_the_home(prepared, home):
    run = train(prepared, "BigramLM")
    assert run.folder.parent == home_folders.runs() == home / "runs"


def test_a_run_that_cannot_be_made_whole_leaves_its_name_free(prepared, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    config = resolve("BigramLM", "default", prepared.name)
    with pytest.raises(OSError, match="No space"):
        create_run(config, prepared, "r", fill=full)
    assert list(home.runs().iterdir()) == []
    assert create_run(config, prepared, "r").name == "r"
