"""The runs of an experiment: found, resumed, trained, passed over when damaged."""

import pytest
from program_runs import settings

from drakegpt.experiments.experiment import Experiment, collect
from drakegpt.experiments.launcher import Observer, TrainingStoppedError, train_runs
from drakegpt.runs.create import create_run
from drakegpt.runs.session import TrainingSession
from drakegpt.runs.start import resolve_run

SHORT = {"iters": 4, "eval_interval": 2, "eval_iters": 1}


@pytest.fixture
def experiment(prepared):
    def variant(**changes):
        return resolve_run("BigramLM", "default", prepared, SHORT, changes)

    variants = {"later": variant(max_lr=0.004), "plain": variant(), "low": variant(max_lr=0.002)}
    return Experiment(variants, [1, 2], origins={"later": "plain"})


class Listener(Observer):
    """Notes what is told, and asks to stop after so many reports."""

    def __init__(self, stop_after=10**6):
        self.titles, self.resumed, self.reports, self.stop_after = [], [], [], stop_after

    def start(self, job, number, jobs):
        self.titles.append(f"{number}/{jobs} {job.title}")

    def resume(self, run):
        self.resumed.append(run.name)

    def train(self, run):
        from contextlib import nullcontext

        return nullcontext(self.reports.append)

    def stop(self):
        return len(self.reports) >= self.stop_after


def trainer(data, listener):
    return lambda jobs: train_runs(jobs, data, resume=True, observer=listener)


def damage(run):
    for checkpoint in run.checkpoints:
        checkpoint.weights.write_bytes(b"")


def test_a_variant_is_trained_after_the_one_that_it_starts_from(prepared, experiment):
    heard = Listener()
    found = collect(experiment, prepared, trainer(prepared, heard))
    assert heard.titles == [
        "1/4 BigramLM on 'small', seed 1, plain",
        "2/4 BigramLM on 'small', seed 1, low",
        "3/4 BigramLM on 'small', seed 2, plain",
        "4/4 BigramLM on 'small', seed 2, low",
        "1/2 BigramLM on 'small', seed 1, later",
        "2/2 BigramLM on 'small', seed 2, later",
    ]
    assert (found.missing, found.damaged) == ((), {})
    for seed in (1, 2):
        of_seed = found.with_seed(seed)
        assert list(of_seed) == ["later", "plain", "low"]
        assert of_seed["later"].config.init_from == of_seed["plain"].name
    assert collect(experiment, prepared, pytest.fail) == found


def test_only_what_is_there_is_found_where_nothing_is_trained(prepared, experiment):
    found = collect(experiment, prepared)
    assert not any(found.runs.values())
    assert len(found.missing) == 6


def test_what_was_interrupted_is_resumed(prepared, experiment):
    stopping = Listener(stop_after=9)  # of six reports for each run
    with pytest.raises(TrainingStoppedError) as stopped:
        collect(experiment, prepared, trainer(prepared, stopping))
    (saved,) = stopped.value.saved
    assert saved.last_checkpoint().iteration == 2
    assert [job.title for job in stopped.value.rest] == [
        "BigramLM on 'small', seed 2, plain",
        "BigramLM on 'small', seed 2, low",
    ]
    heard = Listener()
    found = collect(experiment, prepared, trainer(prepared, heard))
    assert heard.resumed == [saved.name] == [found.runs["low"][1].name]
    assert len(heard.titles) == 5


def test_a_damaged_run_is_trained_again_or_left_out(prepared, experiment):
    first = collect(experiment, prepared, trainer(prepared, Listener()))
    damage(first.runs["low"][2])
    damage(first.runs["plain"][1])
    found = collect(experiment, prepared)
    assert list(found.damaged) == [first.runs["plain"][1].name, first.runs["low"][2].name]
    assert found.missing == ()
    assert list(found.with_seed(1)) == ["later", "low"]
    heard = Listener()
    again = collect(experiment, prepared, trainer(prepared, heard))
    assert len(heard.titles) == 2
    assert again.runs["later"] == first.runs["later"]  # which keeps what it started from
    assert [len(runs) for runs in again.runs.values()] == [2, 2, 2]
    damage(again.runs["low"][2])
    assert collect(experiment, prepared).runs["low"].keys() == {1}


def test_a_damaged_run_is_not_resumed(prepared, experiment):
    config = resolve_run("BigramLM", "default", prepared, SHORT, {"seed": 1})
    run = create_run(config, prepared, "cut")
    with TrainingSession(run) as recorder:
        next(recorder.reports())
        recorder.save()
    damage(run)
    heard = Listener()
    collect(experiment, prepared, trainer(prepared, heard))
    assert heard.resumed == []


TINY = settings("--iters", 4, "--eval-iters", 1)


def test_the_table_of_remedies_leaves_a_damaged_run_out(drakegpt, prepared):
    tiny = (*TINY, *settings("--embedding-dim", 8, "--num-layers", 1))
    trained = drakegpt("compare", "--regularization", "--train", *tiny, "--json", "-q")
    assert trained.code == 0, trained.err
    rows = {row["regularizer"]: row["runs"][0]["run"] for row in trained.json["rows"]}
    damage_named(rows["dropout 0.2"])
    shown = drakegpt("compare", "--regularization", *tiny, "--json")
    assert shown.code == 0, shown.err
    assert f"{rows['dropout 0.2']} is damaged and left out. " in shown.err
    assert [row["regularizer"] for row in shown.json["rows"]] == [
        r for r in rows if r != "dropout 0.2"
    ]
    assert [entry["run"] for entry in shown.json["damaged"]] == [rows["dropout 0.2"]]
    damage_named(rows["none"])
    refused = drakegpt("compare", "--regularization", *tiny)
    assert refused.code == 1
    assert "damaged" in refused.err
    again = drakegpt("compare", "--regularization", "--train", *tiny, "--json", "-q")
    assert again.code == 0, again.err
    assert len(again.json["rows"]) == len(rows)


def test_the_table_of_few_bits_leaves_a_damaged_run_out(drakegpt, prepared, monkeypatch):
    from drakegpt.experiments import low_bit_costs

    monkeypatch.setattr(low_bit_costs, "ROUNDS", 1)
    monkeypatch.setattr(low_bit_costs, "REPETITION", 0.01)
    monkeypatch.setattr(low_bit_costs, "peak_memory", lambda *_: None)
    asked = ("compare", "--low-bit", "--seeds", 1, *TINY, "--json", "-q")
    trained = drakegpt(*asked, "--train")
    assert trained.code == 0, trained.err
    (run,) = next(row["runs"] for row in trained.json["rows"] if row["name"] == "1 bit")
    damage_named(run)
    shown = drakegpt(*asked)
    assert shown.code == 0, shown.err
    assert f"{run} is damaged and left out. " in shown.err
    names = [row["name"] for row in shown.json["rows"]]
    assert "1 bit" not in names
    assert len(names) == len(trained.json["rows"]) - 1


def damage_named(name):
    from drakegpt.runs.lookup import find_run

    damage(find_run(name))
