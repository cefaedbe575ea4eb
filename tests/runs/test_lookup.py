import os
from pathlib import Path

from learning import train

from drakegpt import home
from drakegpt.config import resolve
from drakegpt.runs.create import create_run
from drakegpt.runs.lookup import list_runs


def test_a_run_without_a_checkpoint_is_not_offered(prepared):
    create_run(resolve("BigramLM", "default", prepared.name), prepared)
    assert list_runs() == []


def test_the_best_run_whose_weights_are_whole_is_taken(drakegpt, prepared):
    for name, iters in (("good", 4), ("better", 30)):
        train(prepared, "BigramLM", name, iters=iters, max_lr=0.05, base_lr=0.01)
    for file in (home.runs() / "better" / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"")
    told = drakegpt("eval", "--json")
    assert told.code == 0, told.err
    assert told.json["run"].endswith("good")
    assert "Skipping better" in drakegpt("generate", "-n", 3).err


def test_a_list_reads_each_file_of_a_run_once(drakegpt, prepared, monkeypatch):
    """Thousands of runs are listed in a second or two."""
    for name in ("a", "b"):
        train(prepared, "BigramLM", name)
    drakegpt("runs")
    for name in ("a", "b"):  # as if another process had written them
        for file in ("run.json", "config.toml", "tokenizer.json", "metrics.jsonl"):
            os.utime(home.runs() / name / file)
    opened = []
    before = Path.open

    def counted(path, *arguments, **how):
        opened.append(path)
        return before(path, *arguments, **how)

    monkeypatch.setattr(Path, "open", counted)
    listed = drakegpt("runs")
    assert listed.code == 0
    of_runs = [path for path in opened if home.runs() in path.parents]
    assert sorted(set(of_runs)) == sorted(of_runs)
    assert {path.name for path in of_runs} == {
        "run.json", "config.toml", "tokenizer.json", "metrics.jsonl"
    }  # fmt: skip


def test_runs_are_read_anew_only_where_a_file_has_changed(drakegpt, prepared, monkeypatch):
    """A comparison asks for all runs several times."""
    for name in ("a", "b"):
        train(prepared, "BigramLM", name)
    list_runs()
    opened = []
    before = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *a, **k: opened.append(path) or before(path, *a, **k)
    )
    list_runs()[0].info["created_at"] = "not what the next one finds"
    assert list_runs()[0].info["created_at"] != "not what the next one finds"
    assert opened == []
    os.utime(home.runs() / "b" / "run.json")
    assert len(list_runs()) == 2
    assert {path.parent.name for path in opened} == {"b"}
