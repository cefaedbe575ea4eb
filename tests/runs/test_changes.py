"""A run that goes on with other settings tells what happened, and changes nothing before it may."""

import json

import pytest
from learning import record

from drakegpt.config import resolve
from drakegpt.errors import RunError, UsageError
from drakegpt.experiments.agreement import select_runs
from drakegpt.runs import session as session_module
from drakegpt.runs.changes import change_settings, record_changes
from drakegpt.runs.create import create_run
from drakegpt.runs.info import Part
from drakegpt.runs.lookup import find_finished, find_interrupted
from drakegpt.runs.run import open_run
from drakegpt.runs.session import TrainingSession

SETTINGS = {"iters": 6, "eval_interval": 2, "eval_iters": 1, "recipe": "fast", "warmup_iters": 2}


def configured(prepared, **changes):
    return resolve("BigramLM", "default", prepared.name, SETTINGS | changes)


def train(run, *, resume=False, until=None):
    record(run, resume=resume, until=until, save=True)
    return open_run(run.folder)


def longer(prepared):
    run = train(create_run(configured(prepared), prepared, "r"))
    return train(change_settings(run, {"iters": 12}), resume=True)


def files(folder):
    return {f: f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != ".lock"}


def test_a_run_made_longer_remembers_both_parts(prepared):
    run = longer(prepared)
    assert run.config.iters == 12
    assert run.parts == (Part(0, 6, 6), Part(6, 12, 12))
    assert not run.has_single_part
    assert run.history == (
        "trained in 2 parts: iterations to 6 on the schedule of 6, then to 12 on the schedule of 12"
    )
    assert open_run(run.folder).finished


def test_its_learning_rates_are_those_of_the_old_schedule_first(prepared):
    """Which is why it is another run than one that had its length from the beginning."""
    run = longer(prepared)
    plain = train(create_run(configured(prepared, iters=12), prepared, "plain"))
    rates = [[e["learning_rate"] for e in each.evaluations] for each in (run, plain)]
    assert rates[0][:3] != rates[1][:3]
    weights = [each.last_checkpoint().weights.read_bytes() for each in (run, plain)]
    assert weights[0] != weights[1]
    assert plain.has_single_part
    assert plain.history == ""


def test_it_does_not_count_as_a_run_of_its_present_settings(prepared):
    run = longer(prepared)
    assert find_finished([run], run.config) == []
    assert select_runs(prepared, settings={"iters": 12}) == {}
    resumed = train(change_settings(run, {"iters": 20}), resume=True, until=14)
    assert resumed.parts[-1] == Part(12, 14, 20)
    assert find_interrupted([resumed], resumed.config) is None


def test_it_is_no_seed_of_a_plain_run(prepared):
    run = longer(prepared)
    other = train(create_run(configured(prepared, iters=12, seed=7), prepared, "other"))
    (found,) = select_runs(prepared).values()
    assert found == [other] or found == [run]


def test_a_run_interrupted_and_made_longer_has_two_parts_too(prepared):
    run = train(create_run(configured(prepared), prepared, "r"), until=3)
    assert run.has_single_part
    run = train(change_settings(run, {"iters": 12}), resume=True)
    assert run.parts == (Part(0, 3, 6), Part(3, 12, 12))


def test_a_run_that_has_not_started_has_only_the_new_length(prepared):
    run = create_run(configured(prepared), prepared, "r")
    run = train(change_settings(run, {"iters": 12}), resume=True)
    assert run.has_single_part
    assert run.config.iters == 12


@pytest.mark.parametrize("change", [{"device": "cpu"}, {"save_interval": 3}, {"patience": 50}])
def test_what_does_not_concern_the_schedule_makes_no_part(prepared, change):
    run = train(create_run(configured(prepared), prepared, "r"), until=3)
    run = train(change_settings(run, change), resume=True)
    assert run.has_single_part
    assert all(getattr(run.config, name) == value for name, value in change.items())


def test_going_back_to_an_older_checkpoint_takes_the_change_back_to_there(prepared):
    run = train(create_run(configured(prepared, save_interval=2), prepared, "r"))
    last = run.last_checkpoint()
    with (
        pytest.raises(KeyboardInterrupt),
        TrainingSession(change_settings(run, {"iters": 12}), resume=True),
    ):
        raise KeyboardInterrupt
    last.weights.write_bytes(b"")
    run = train(open_run(run.folder), resume=True)
    assert run.parts == (Part(0, 4, 6), Part(4, 12, 12))


def test_changes_are_written_once(prepared):
    run = train(create_run(configured(prepared), prepared, "r"))
    changed = change_settings(run, {"iters": 12})
    for _ in range(2):
        record_changes(changed, 6)
    assert len(open_run(run.folder).info["changes"]) == 1


def taken(run, monkeypatch, prepared):
    other = TrainingSession(run)
    other._lock.acquire()
    monkeypatch.setattr(session_module, "held", other, raising=False)


def without_checkpoint(run, monkeypatch, prepared):
    for checkpoint in run.checkpoints:
        checkpoint.weights.write_bytes(b"")


def with_other_data(run, monkeypatch, prepared):
    (prepared.folder / "train.npy").write_bytes(b"")


@pytest.mark.parametrize("obstacle", [taken, without_checkpoint, with_other_data])
def test_a_run_that_cannot_be_resumed_stays_as_it_is(prepared, monkeypatch, obstacle):
    run = train(create_run(configured(prepared), prepared, "r"))
    obstacle(run, monkeypatch, prepared)
    before = files(run.folder)
    with pytest.raises(Exception, match=r"Another process|damaged") as refused:
        train(change_settings(run, {"iters": 12}), resume=True)
    assert isinstance(refused.value, RunError | UsageError) or "damaged" in str(refused.value)
    assert files(run.folder) == before


def test_a_device_that_is_not_here_changes_nothing(drakegpt, prepared):
    run = train(create_run(configured(prepared), prepared, "r"))
    before = files(run.folder)
    refused = drakegpt("train", "--resume", "r", "--iters", 12, "--device", "mps")
    assert refused.code == 2
    assert files(run.folder) == before


@pytest.mark.parametrize(
    "changes",
    [
        7, [7], [{}], [{"iteration": -1, "settings": {}}], [{"iteration": "3", "settings": {}}],
        [{"iteration": 3, "settings": {"seed": [1, 2]}}],
        [{"iteration": 3, "settings": {"iters": [6, "many"]}}],
        [{"iteration": 3, "settings": {"iters": ["6", 12]}}],
        [{"iteration": 3, "settings": {"iters": 12}}],
    ],
)  # fmt: skip
def test_invalid_changes_in_run_json_are_damage(prepared, changes):
    run = create_run(configured(prepared), prepared, "r")
    info = json.loads((run.folder / "run.json").read_text()) | {"changes": changes}
    (run.folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunError, match="not a whole run"):
        open_run(run.folder)


def test_every_command_tells_of_the_parts(drakegpt, prepared, tmp_path):
    longer(prepared)
    told = "trained in 2 parts: iterations to 6 on the schedule of 6"
    parts = [{"after": 0, "to": 6, "iters": 6}, {"after": 6, "to": 12, "iters": 12}]
    assert "finished, in 2 parts" in drakegpt("runs").out
    assert drakegpt("runs", "list", "--json").json["runs"][0]["parts"] == parts
    assert told in drakegpt("runs", "show", "r").out
    assert drakegpt("runs", "show", "r", "--json").json["parts"] == parts
    assert told in drakegpt("eval", "r").out
    evaluated = drakegpt("eval", "r", "--json").json
    assert (evaluated["parts"], evaluated["iteration"]) == (parts, 12)
    compared = drakegpt("compare", "--html", tmp_path / "r.html")
    assert compared.code == 0, compared.err
    assert "BigramLM (extended)" in compared.out
    assert told in compared.err
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert told in page
    assert "drakegpt train --resume RUN --iters 12" in page
    shown = drakegpt("compare", "--json").json["rows"][0]["runs"][0]
    assert told in shown["history"]
    more = drakegpt("train", "--resume", "r", "--iters", 14, "--json", "-q")
    assert len(more.json["parts"]) == 3
