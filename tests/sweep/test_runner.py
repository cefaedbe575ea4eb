"""A trial is a run: made once, gone on with, found by those who should find it."""

import dataclasses
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from learning import record
from program_runs import settings

from drakegpt import home
from drakegpt.config import resolve
from drakegpt.errors import NotEnoughMemoryError, RunError, UsageError
from drakegpt.runs.create import create_run
from drakegpt.runs.lookup import find_run, find_unfinished, list_runs
from drakegpt.runs.run import open_run
from drakegpt.runs.session import TrainingSession
from drakegpt.sweep import runner
from drakegpt.sweep.definition import define
from drakegpt.sweep.runner import run_trial
from drakegpt.sweep.space import Choices, Range
from drakegpt.sweep.study import Study

SETTINGS = {"iters": 20, "eval_iters": 1, "batch_size": 2, "embedding_dim": 8}


@pytest.fixture
def sweep(prepared):
    """Work on a study to its end, or until `stop` says so; returns it."""

    def work(space, sampler="grid", number=None, stop=lambda: False, **given):
        definition = define(
            "s", "BigramLM", "default", prepared, SETTINGS | given, space,
            sampler=sampler, prune=True,
        )  # fmt: skip
        study = Study(definition, number)
        while not stop() and (trial := study.next()):
            with trial:
                run_trial(definition, trial, unseen, stop)
        return study

    return work


@contextmanager
def unseen(_config):
    yield lambda _report: None


def test_a_combination_drawn_again_is_not_trained_again(sweep):
    study = sweep({"max_lr": Choices((1e-3, 1e-2))}, "random", 6)
    rows = study.rows()
    assert len(rows) == 6
    assert len(list_runs()) == len({row.run for row in rows}) == 2
    for row in rows:
        first = next(other for other in rows if other.params == row.params)
        assert (row.loss, row.run, row.state) == (first.loss, first.run, "complete")
        assert row is first or row.why == f"The same as trial {first.number}."


@pytest.mark.parametrize("state", ["pruned", "complete"])
def test_a_trial_that_repeats_another_shows_how_far_that_went(sweep, state):
    study = sweep({"max_lr": Choices((1e-2,))}, "random", 2, stop=lambda: True)
    with study.next() as first:
        first.report(10, 3.5)
        first.complete(3.25) if state == "complete" else first.end_early("pruned", "")
    with study.next() as second:
        second.copy_result(second.find_duplicate())
    one, other = study.rows()
    assert (other.state, other.iterations, other.loss) == ((one.state, one.iterations, one.loss))
    assert (one.state, one.iterations) == (state, 10)
    assert one.loss == (3.25 if state == "complete" else 3.5)


@pytest.mark.parametrize("checkpoint", ["none", "damaged"])
def test_a_run_without_a_whole_checkpoint_begins_anew_and_a_whole_one_is_only_scored(
    sweep, monkeypatch, checkpoint
):
    space = {"max_lr": Choices((1e-3, 1e-2))}
    first = sweep(space)
    losses = [row.loss for row in first.rows()]
    shutil.rmtree(first.folder)
    half = home.runs() / "s_0001"  # as if it was killed before its first checkpoint was whole
    evaluated = open_run(half).evaluations
    if checkpoint == "none":
        shutil.rmtree(half / "checkpoints")
    for state in half.rglob("state.pt"):
        state.write_bytes(b"")
    (half / "scores.json").unlink(missing_ok=True)
    metrics = half / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:-1]) + lines[0][:9])
    (half / ".state.pt.12.unfinished").write_bytes(b"half")
    trained = []
    session = runner.TrainingSession
    monkeypatch.setattr(
        runner,
        "TrainingSession",
        lambda run, **how: trained.append(run.name) or session(run, **how),
    )
    assert [row.loss for row in sweep(space).rows()] == losses
    assert trained == ["s_0001"]
    again = open_run(half)
    assert [e["iteration"] for e in again.evaluations] == [e["iteration"] for e in evaluated]
    assert again.finished
    assert not list(half.glob(".*.unfinished"))


def test_a_study_from_elsewhere_names_no_folder(sweep, tmp_path, prepared):
    """Nor is a run that lost its settings removed."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "letter.txt").write_text("dear")
    study = sweep({"max_lr": Choices((1e-3,))}, stop=lambda: True)
    trial = study._study.ask()
    trial.set_user_attr("run", str(victim))
    trial.set_user_attr("home", study._home)
    (row,) = sweep({"max_lr": Choices((1e-3,))}).rows()
    assert (row.run, row.state) == ("s_0001", "complete")
    assert (victim / "letter.txt").read_text() == "dear"


def test_a_run_that_lost_its_settings_is_not_removed(sweep):
    searched = {"max_lr": Choices((1e-2,))}
    shutil.rmtree(sweep(searched).folder)
    run = home.runs() / "s_0001"
    (run / "config.toml").unlink()
    before = contents(run)
    with pytest.raises(RunError, match="not a whole run"):
        sweep(searched)
    assert contents(run) == before


@pytest.mark.parametrize(("sweep_name", "changed"), [("s", {"seed": 1}), ("other", {})])
def test_a_run_in_the_way_stays_as_it_is(sweep, prepared, sweep_name, changed):
    """Neither one of other settings nor one of another sweep is taken for a trial."""
    searched = {"max_lr": Choices((1e-2,))}
    (row,) = sweep(searched).rows()
    (own,) = list_runs()
    shutil.rmtree(own.folder)
    shutil.rmtree(home.sweeps())
    config = dataclasses.replace(own.config, **changed)
    run = create_run(config, prepared, row.run, facts={"sweep": sweep_name, "trial": 1})
    before = contents(run.folder)
    with pytest.raises(UsageError, match="not a trial of this sweep"):
        sweep(searched)
    assert contents(run.folder) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_trials_are_found_by_name_and_by_loss_but_do_not_stand_for_their_model(sweep, prepared):
    study = sweep({"max_lr": Choices((1e-2, 1e-5))})
    best = min(study.rows(), key=lambda row: row.loss)
    assert find_run("s_0002").name == "s_0002"
    assert find_run(None).name == best.run == "s_0001"
    assert find_run("BigramLM").name == "s_0001"  # there are no others
    run = create_run(resolve("BigramLM", "default", prepared.name, SETTINGS), prepared, "own")
    record(run)
    assert find_run("BigramLM").name == "own"


def test_a_trial_that_is_stopped_goes_on_with_its_sweep_only(sweep):
    calls = []
    sweep({"max_lr": Choices((1e-2,))}, stop=lambda: calls.append(1) or len(calls) > 5)
    (run,) = list_runs()
    assert not run.finished
    with pytest.raises(RunError, match="no unfinished run"):
        find_unfinished(None)
    assert find_unfinished("s_0001").name == "s_0001"
    (row,) = sweep({"max_lr": Choices((1e-2,))}).rows()
    assert row.state == "complete"


@pytest.fixture
def failing(monkeypatch):
    """Let the runs with a `max_lr` of 1e-2 fail when they begin to train, by calling something."""
    session = runner.TrainingSession

    def set_to(fail):
        def new(run, **how):
            if run.config.max_lr == 1e-2:
                fail()
            return session(run, **how)

        monkeypatch.setattr(runner, "TrainingSession", new)

    return set_to


def raising(error):
    def fail():
        raise error

    return fail


@pytest.mark.parametrize(
    "fail",
    [
        raising(torch.OutOfMemoryError("CUDA out of memory")),
        raising(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)")),
        raising(MemoryError("std::bad_alloc")),
        raising(NotEnoughMemoryError("There is not enough memory.", "Take less.")),
        lambda: torch.empty(2**60, dtype=torch.uint8),
    ],
    ids=["cuda", "mps", "python", "session", "cpu"],
)
def test_memory_that_runs_out_ends_the_trial_not_the_sweep(sweep, failing, fail):
    failing(fail)
    rows = sweep({"max_lr": Choices((1e-2, 1e-3))}).rows()
    assert [row.state for row in rows] == ["out of memory", "complete"]


def test_a_trial_that_ends_its_process_each_time_is_given_up(sweep, failing):
    failing(raising(RuntimeError("killed")))
    space = {"max_lr": Choices((1e-2, 1e-3))}
    for _ in range(3):
        with pytest.raises(RuntimeError, match="killed"):
            sweep(space)
    study = sweep(space)
    first, second = study.rows()
    assert (first.state, second.state) == ("failed", "complete")
    assert "Started 3 times from the same iteration" in first.why
    assert study.next() is None


def test_an_attempt_that_came_further_is_not_counted(sweep, monkeypatch):
    """Each time the process is lost after one checkpoint more."""
    space, save = {"max_lr": Choices((1e-2,))}, TrainingSession.save
    for _ in range(5):
        saves = []

        def save_once(session, saves=saves):
            if saves:
                raise RuntimeError("killed")
            saves.append(save(session))

        with monkeypatch.context() as patch:
            patch.setattr(TrainingSession, "save", save_once)
            with pytest.raises(RuntimeError, match="killed"):
                sweep(space, save_interval=2)
    (row,) = sweep(space, save_interval=2).rows()
    assert row.state == "complete"


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RunError("The disk is full.", "Make room.")], ids=["^C", "told"]
)
def test_what_the_user_does_or_is_told_is_not_counted(sweep, failing, error):
    failing(raising(error))
    space = {"max_lr": Choices((1e-2,))}
    for _ in range(5):
        with pytest.raises(type(error)):
            sweep(space)
    failing(lambda: None)
    assert sweep(space).rows()[0].state == "complete"


def test_epochs_are_counted_for_each_batch_size(sweep, prepared):
    space = {"batch_size": Choices((64, 128))}
    given = {key: value for key, value in SETTINGS.items() if key not in ("iters", "batch_size")}
    definition = define("s", "BigramLM", "default", prepared, given | {"epochs": 1}, space,
                        sampler="grid", prune=True)  # fmt: skip
    whole = prepared.metadata.train_tokens
    for size in (64, 128):
        # of what the trial trains on; and of all where its settings are trained again
        for config, tokens in (
            (definition.config({"batch_size": size}), whole - prepared.tail_tokens),
            (definition.config_without_tail({"batch_size": size}), whole),
        ):
            windows = (tokens - 1) // 8
            assert (config.iters, config.window_order) == (-(-windows // size), "epoch")


def test_numbers_from_ranges_are_short_and_the_same_in_run_and_study(sweep):
    study = sweep({"max_lr": Range(1e-4, 1e-2, log=True)}, "random", 2)
    for row in study.rows():
        (run,) = [run for run in list_runs() if run.name == row.run]
        assert run.config.max_lr == row.params["max_lr"] == float(f"{row.params['max_lr']:.4g}")
        assert run.config.base_lr == pytest.approx(run.config.max_lr / 5, rel=1e-3)
        assert (run.sweep, run.info["trial"]) == ("s", row.number)


@pytest.mark.slow
def test_runs_of_a_sweep_are_one_group_in_the_mirror(prepared, home):
    program = Path(sys.executable).parent
    asked = "sweep BigramLM --param max_lr=1e-3,1e-2 --sampler grid --iters 4"
    asked = [*asked.split(), *settings("--eval-iters", 1, "--wandb", "offline")]
    asked += ["--name", "mine", "--json", "-q"]
    done = subprocess.run([program / "drakegpt", *asked], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert "wandb" not in json.loads(done.stdout)["best"]["command"]
    shown = []
    for folder in (home / "wandb").glob("offline-run-*"):
        inspect = [program / "wandb", "leet", "inspect", "--json", folder]
        parts = subprocess.run(inspect, capture_output=True, check=True, cwd=home).stdout.decode()
        (run,) = [part["run"] for line in parts.splitlines() if "run" in (part := json.loads(line))]
        shown.append((run["display_name"], run["run_group"]))
    assert sorted(shown) == [("mine_0001", "mine"), ("mine_0002", "mine")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run", "../../elsewhere"),
        ("run", 7),
        ("state", "glad"),
        ("iterations", "many"),
        ("why", []),
        ("val_loss", "low"),
    ],
)
def test_a_study_with_an_odd_row_is_told_in_a_sentence(sweep, name, value):
    study = sweep({"max_lr": Choices((1e-3, 1e-2))})
    storage, frozen = study._study._storage, study._study.get_trials()[0]
    with sqlite3.connect(study.place) as database:
        database.execute(
            "UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = ? AND key = ?",
            (json.dumps(value), frozen._trial_id, name),
        )
        assert database.total_changes or database.execute(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
            (frozen._trial_id, name, json.dumps(value)),
        )
    storage.remove_session()
    with pytest.raises(RunError, match="cannot be read or written"):
        sweep({"max_lr": Choices((1e-3, 1e-2))}).rows()


def test_a_study_whose_parameters_are_not_its_own_is_told_in_a_sentence(sweep):
    study = sweep({"max_lr": Choices((1e-3, 1e-2))})
    with sqlite3.connect(study.place) as database:
        database.execute("UPDATE trial_params SET distribution_json = '[]'")
    study._study._storage.remove_session()
    with pytest.raises(RunError, match="cannot be read or written"):
        sweep({"max_lr": Choices((1e-3, 1e-2))}).rows()


CONTRADICTIONS = {
    "no study, but what belongs to it": "DELETE FROM studies",
    "two versions of its tables": "INSERT INTO alembic_version VALUES ('v0.9.0.a')",
    "no direction": "DELETE FROM study_directions",
    "the highest loss is best": "UPDATE study_directions SET direction = 'MAXIMIZE'",
    "a state of no trial": "UPDATE trials SET state = 'GLAD'",
    "a loss of no kind": "UPDATE trial_values SET value_type = 'GLAD'",
    "an estimate of no kind": "UPDATE trial_intermediate_values SET intermediate_value_type = '?'",
    "a loss that is no number": "UPDATE trial_values SET value_type = 'INF_POS', value = NULL",
    "a loss that is a word": "UPDATE trial_values SET value = 'low'",
    "a hyperparameter that is a word": "UPDATE trial_params SET param_value = 'high'",
    "an estimate of nothing": "UPDATE trial_intermediate_values SET intermediate_value = NULL",
    "a number as large as none": "UPDATE trial_params SET param_value = 9e999",
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_study_whose_tables_contradict_each_other_is_told_in_a_sentence(sweep, what):
    space = {"max_lr": Range(1e-3, 1e-2)}
    study = sweep(space, "random", 2)
    with sqlite3.connect(study.place) as database:
        assert database.execute(CONTRADICTIONS[what]).rowcount > 0
    study._study._storage.remove_session()
    with pytest.raises(RunError, match="cannot be read or written"):
        sweep(space, "random", 3).rows()
