"""Whose turn it is: several studies open at once stand for several processes."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from itertools import chain

import optuna
import pytest

from drakegpt.errors import RunError, UsageError
from drakegpt.sweep import study as studies
from drakegpt.sweep.definition import define
from drakegpt.sweep.space import Choices, Range
from drakegpt.sweep.storage import hide_password
from drakegpt.sweep.study import Study

SPACE = {"embedding_dim": Choices((8, 16, 32)), "batch_size": Choices((4, 8))}
DRAWN = {"max_lr": Range(1e-4, 1e-1, log=True), "num_layers": Range(1, 9)}


@pytest.fixture
def defined(prepared):
    def new(space=SPACE, name=None, sampler="grid", prune=True, **given):
        return define(
            name, "TransformerLM", "default", prepared, given, space, sampler=sampler, prune=prune
        )

    return new


def finish(trial, loss=1.0):
    with trial:
        trial.note_length(10)
        trial.complete(loss)


def points(study):
    return [tuple(row.params.values()) for row in study.rows()]


def test_a_grid_holds_each_combination_once_for_several_processes(defined):
    workers = [Study(defined()) for _ in range(3)]
    at_work = [[], [], []]
    for turn in range(20):
        number = turn % 3
        if trial := workers[number].next():
            at_work[number].append(trial)
        if len(at_work[number]) > 1:
            finish(at_work[number].pop(0))
    for trial in chain(*at_work):
        finish(trial)
    assert [worker.next() for worker in workers] == [None] * 3
    assert sorted(points(workers[0])) == [(d, b) for d in (8, 16, 32) for b in (4, 8)]
    assert [row.number for row in workers[1].rows()] == list(range(1, 7))
    assert {row.state for row in workers[2].rows()} == {"complete"}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_same_points_are_drawn_by_one_process_or_two(defined, sampler):
    alone = Study(defined(DRAWN, "alone", sampler), 8)
    while trial := alone.next():
        finish(trial)
    both = [Study(defined(DRAWN, "both", sampler), 8) for _ in range(2)]
    while pair := [trial for worker in both if (trial := worker.next())]:
        for trial in reversed(pair):
            finish(trial)
    assert points(alone) == points(both[0])
    assert len(set(points(alone))) == 8
    other = Study(defined(DRAWN, "other", sampler, seed=3), 8)
    while trial := other.next():
        finish(trial)
    assert not set(points(other)) & set(points(alone))


@pytest.mark.slow
def test_tpe_learns_where_losses_are_low(defined):
    space = {"max_lr": Range(1e-4, 1.0, log=True)}
    study = Study(defined(space, sampler="tpe"), 60)
    while trial := study.next():
        finish(trial, abs(trial.params["max_lr"] - 0.01))
    rates = [rate for (rate,) in points(study)]
    near = [sum(3e-3 < rate < 3e-2 for rate in part) for part in (rates[:10], rates[-30:])]
    assert near[1] / 30 > near[0] / 10 + 0.3


def test_repeated_it_has_nothing_to_do_and_with_more_trials_goes_on(defined):
    first = Study(defined(DRAWN, sampler="random"), 3)
    while trial := first.next():
        finish(trial)
    again = Study(defined(DRAWN, sampler="random"), 3)
    assert again.next() is None
    more = Study(defined(DRAWN, sampler="random"), 5)
    while trial := more.next():
        finish(trial)
    assert points(more)[:3] == points(first)[:3]
    assert len(set(points(more))) == 5


def test_the_name_stands_for_the_definition(defined):
    assert defined().name == defined(device="cpu", wandb="offline").name
    names = {
        defined(**different).name
        for different in ({}, {"seed": 1}, {"prune": False}, {"sampler": "tpe"},
                          {"space": {"batch_size": Choices((4, 8))}}, {"iters": 5})
    }  # fmt: skip
    assert len(names) == 6
    Study(defined(name="mine"))
    Study(defined(name="mine", device="cpu"))
    with pytest.raises(UsageError, match="with other settings") as refused:
        Study(defined(name="mine", iters=5))
    assert "Take another --name" in refused.value.fix
    with pytest.raises(UsageError, match="with other sampler, prune"):
        Study(defined(name="mine", sampler="random", prune=False))


def test_a_trial_whose_process_is_gone_is_taken_up_as_it_was(defined):
    first, second = Study(defined(DRAWN, sampler="random"), 1), None
    lost = first.next()
    lost.report(5, 2.5)
    second = Study(defined(DRAWN, sampler="random"), 1)
    assert second.next() is None  # its process still holds it
    lost.__exit__(None, None, None)
    taken = second.next()
    assert (taken.number, taken.params, taken.run_name) == (1, lost.params, lost.run_name)
    assert first.next() is None
    taken.report(5, 2.5)  # known already
    taken.report(10, 2.0)
    finish(taken, 1.5)
    assert first.next() is None
    (row,) = first.rows()
    assert (row.loss, row.state, row.iterations) == (1.5, "complete", 10)


def test_a_trial_of_another_machine_is_left_alone(defined, tmp_path, monkeypatch):
    database = f"sqlite:///{tmp_path / 's.db'}"
    with Study(defined(), 1, database).next():
        pass
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("DRAKEGPT_HOME", str(tmp_path / "elsewhere"))
        assert Study(defined(), 1, database).next() is None
    assert Study(defined(), 1, database).next().number == 1


def test_a_trial_is_ours_whatever_the_machine_and_the_folder_are_called(
    defined, home, tmp_path, monkeypatch
):
    with Study(defined(), 1).next():
        pass
    monkeypatch.setattr("platform.node", lambda: "renamed")
    home.rename(tmp_path / "moved")
    monkeypatch.setenv("DRAKEGPT_HOME", str(tmp_path / "moved"))
    assert Study(defined(), 1).next().number == 1


def test_a_trial_lost_before_it_had_an_owner_is_taken_up_after_a_while(defined, monkeypatch):
    study = Study(defined(), 1)
    study._study.ask()
    assert study.next() is None

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(seconds=studies.OWNER_SECONDS + 1)

    monkeypatch.setattr(studies, "datetime", Later)
    trial = study.next()
    assert trial.number == 1
    assert trial.params == {"embedding_dim": 8, "batch_size": 4}


def test_one_too_many_taken_by_another_machine_does_not_count(defined, monkeypatch):
    study = Study(defined(), 2)
    for _ in range(2):
        finish(study.next())
    before = study._numbered()
    views = [before[:1]]  # it asks before it can see the second
    numbered = study._numbered
    with monkeypatch.context() as patch:
        patch.setattr(study, "_numbered", lambda: views.pop() if views else numbered())
        patch.setattr(study, "_take_abandoned", lambda: None)
        assert study.next() is None
    assert len(study.rows()) == 2
    more = Study(defined(), 3)
    third = more.next()
    assert third.number == 3
    assert third.params == more.definition.grid[2]


@pytest.mark.parametrize("file", ["s.db", "a folder/50% #1 of é?.db"])
@pytest.mark.parametrize("scheme", ["", "sqlite:///"])
def test_storage_of_ones_own(defined, tmp_path, scheme, file):
    if scheme:
        file = file.replace("%", "%25").replace("#", "%23").replace("?", "%3F")
    (tmp_path / "a folder").mkdir()
    place = f"{scheme}{tmp_path}/{file}"
    workers = [Study(defined(), None, place) for _ in range(2)]
    for worker in workers * 3:
        finish(worker.next(), 1.0)
    assert len(set(points(workers[0]))) == 6
    assert not (workers[0].folder / "study.db").exists()
    (made,) = tmp_path.rglob("*.db")
    assert "%2" not in made.name


@pytest.mark.parametrize("what", ["no folder", "folder", "pipe", "link"])
def test_storage_where_no_file_can_be_is_refused_before_anything_is_done(defined, tmp_path, what):
    place = tmp_path / "study.db"
    if what == "no folder":
        place = tmp_path / "none" / "study.db"
    elif what == "folder":
        place.mkdir()
    elif what == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("nowhere")
    with pytest.raises(UsageError) as refused:
        Study(defined(), None, str(place))
    assert "--storage" in refused.value.fix
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "place",
    ["nonsense://x", "sqlite:////no/such/folder/s.db", "mysql://me:secret@nowhere/x", "://"],
)
def test_storage_that_cannot_be_reached_is_an_error(defined, place):
    with pytest.raises(RunError) as failed:
        Study(defined(), None, place)
    assert "cannot be read or written" in failed.value.problem
    assert "secret" not in str(failed.value)
    assert "--storage" in failed.value.fix


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("mysql://me:secret@host/x", "mysql://me:***@host/x"),
        ("postgresql://host/x?user=me&password=secret&a=b", "postgresql://host/x"),
        ("mysql://me@host/x", "mysql://me@host/x"),
        ("://secret", "a database"),
        ("mysql://me:secret@host:port/x", "a database"),
        ("a/study.db", "a/study.db"),
    ],
)
def test_passwords_are_not_shown(place, shown):
    assert hide_password(place) == shown


def test_a_file_that_is_no_study_is_refused_and_left_as_it_is(defined, tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE songs (title)")
    (tmp_path / "text").write_text("hello\nworld\n")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    before = contents(tmp_path)
    for name in ("other.db", "text", "empty", "folder", "link"):
        with pytest.raises(UsageError, match="not an SQLite file with an Optuna study"):
            Study(defined(), None, str(tmp_path / name))
    assert contents(tmp_path) == before


def test_a_study_that_a_killed_process_left_half_written_goes_on(defined, tmp_path):
    """A journal of SQLite's beside the file, which a reader without write access refuses."""
    place = tmp_path / "s.db"
    finish(Study(defined(), None, str(place)).next(), 3.0)
    code = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "database.execute('CREATE TABLE half (x)')\n"
        "database.executemany('INSERT INTO half VALUES (?)', [('x' * 999,)] * 999)\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, place], check=False)
    assert place.with_name("s.db-journal").stat().st_size > 0
    again = Study(defined(), None, str(place))
    assert [row.loss for row in again.rows()] == [3.0]
    finish(again.next(), 2.0)


def test_several_may_make_the_same_new_file_at_once(defined, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        names = [f"n{number}" for number in range(4)]
        (tmp_path / "new").mkdir()
        place = str(tmp_path / "new" / "s.db")
        made = list(pool.map(lambda name: Study(defined(name=name), None, place), names))
    assert [study.next().number for study in made] == [1, 1, 1, 1]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["s.db"]


def contents(folder):
    files = (file for file in folder.iterdir() if file.name != "home")
    return {file: file.read_bytes() if file.is_file() else None for file in files}


def test_worse_than_most_is_hopeless_from_a_quarter_on(defined):
    study = Study(defined(DRAWN, sampler="random"), 20)
    for loss in (1.0, 2.0, 3.0, 4.0, 5.0):
        with study.next() as trial:
            trial.note_length(100)
            trial.report(20, loss)
            trial.report(40, loss)
            assert not trial.should_prune()
            trial.complete(loss)
    for loss, hopeless in ((2.9, False), (3.1, True)):
        with study.next() as trial:
            trial.note_length(100)
            trial.report(20, loss)
            assert not trial.should_prune()  # too soon
            trial.report(40, loss)
            assert trial.should_prune() == hopeless
            trial.end_early("pruned", "")
    with study.next() as trial:  # of another length
        trial.note_length(120)
        trial.report(40, 9.0)
        assert not trial.should_prune()
        trial.complete(9.0)
    unpruned = Study(defined(DRAWN, sampler="random", prune=False), 20)
    for loss in (1.0, 1.0, 1.0, 1.0, 1.0, 9.0):
        with unpruned.next() as trial:
            trial.note_length(100)
            trial.report(40, loss)
            assert not trial.should_prune()
            trial.complete(loss)


def test_one_that_ended_as_another_takes_no_part_in_pruning(defined):
    study = Study(defined({"num_layers": Range(1, 9)}, sampler="random"), 30)

    def train(loss):
        """Train the next trial that is new; those that are not end as others did."""
        while True:
            with study.next() as trial:
                if same := trial.find_duplicate():
                    trial.copy_result(same)
                    continue
                trial.note_length(100)
                trial.report(40, loss)
                hopeless = trial.should_prune()
                trial.complete(loss)
                return hopeless

    assert not any(train(loss) for loss in (1.0, 2.0, 3.0, 4.0, 5.0))
    assert train(9.0)
    before = [row.loss for row in study.rows()].index(5.0)
    assert before > 4  # others had ended as one of the four, and did not count as a fifth


def test_ended_elsewhere_it_is_shown_as_failed(defined):
    study = Study(defined(), 2)
    trial = study._study.ask()
    study._study.tell(trial, state=optuna.trial.TrialState.FAIL)
    (row,) = study.rows()
    assert (row.state, row.params, row.loss) == ("failed", {}, None)


def test_base_lr_keeps_its_share_of_max_lr(defined):
    assert defined(sampler="tpe").config({"max_lr": 1e-4}).base_lr == 2e-5
    constant = defined({"max_lr": Range(1e-5, 1)}, sampler="tpe", preset="shakespeare-sweep")
    assert constant.config({"max_lr": 1e-4}).base_lr == 1e-4
    given = defined(base_lr=1e-3, sampler="tpe").config({"max_lr": 2e-3})
    assert given.base_lr == 1e-3
    fast = defined(recipe="fast", sampler="tpe").config({"max_lr": 2e-3})
    assert fast.base_lr == pytest.approx(2e-6)


def test_what_cannot_be_defined(defined):
    for wrong, message in (
        ({"space": {}}, "Nothing is searched"),
        ({"space": DRAWN}, "infinitely many points"),
        ({"dropout": 2.0}, "dropout cannot be 2.0"),
        ({"colour": 1}, "no setting named 'colour'"),
        ({"epochs": 2, "iters": 5}, "both set the length"),
        ({"name": "../x"}, "cannot name a sweep"),
        ({"name": "transformerlm"}, "cannot name a sweep"),
    ):
        with pytest.raises(UsageError, match=message):
            defined(**wrong)
