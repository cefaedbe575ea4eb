"""`drakegpt sweep` as it is called: alone, together, killed, repeated."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage
from program_runs import settings

from drakegpt.data import dataset
from drakegpt.data.prepare import prepare_dataset

TEXT = "the quick brown fox jumps over the lazy dog and then it runs away\n" * 60
SHAPE = ("--num-layers", 1, "--num-heads", 2, "--batch-size", 4, "--eval-iters", 1)
TINY = ("BlocksLM", *settings(*SHAPE))
BRIEF = (*TINY, "--iters", 20)
ON_VALIDATION = ("--select-on", "validation")  # so that trials are what `train` trains
GRID = ("--param", "embedding_dim=4,8", "--param", "max_lr=1e-3,1e-2", "--sampler", "grid")
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture(autouse=True)
def _song():
    prepare_dataset(TEXT, name="song", source="", provenance="", source_sha256="")


def start(*arguments):
    command = [sys.executable, "-m", "drakegpt", "sweep", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def wait_for(condition, process):
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def end(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


def trained(home):
    """Every file of every run that training writes, with when it was written."""
    files = (home / "runs").rglob("*")
    return {path: path.stat().st_mtime_ns for path in files if path.name != ".lock"}


def weights(home, run):
    (*_, last) = sorted((home / "runs" / run / "checkpoints").iterdir())
    return (last / "weights.safetensors").read_bytes()


def finished(trials):
    return sum(trial["state"] == "complete" for trial in trials)


def points(result):
    return sorted(tuple(trial["params"].values()) for trial in result["trials"])


@pytest.mark.slow
def test_a_sweep_from_its_first_trial_to_its_best(drakegpt, home):
    done = drakegpt("sweep", *BRIEF, *GRID, *ON_VALIDATION)
    assert done.code == 0, done.err
    result = drakegpt("sweep", *BRIEF, *GRID, *ON_VALIDATION, "--json").json
    trials, best = result["trials"], result["best"]
    compared = drakegpt("compare")
    assert compared.code == 1
    assert "No model has been trained on 'song'" in compared.err
    assert points(result) == [(4, 1e-3), (4, 1e-2), (8, 1e-3), (8, 1e-2)]
    assert best["val_loss"] == min(trial["val_loss"] for trial in trials)

    assert all(trial["loss"] == trial["val_loss"] for trial in trials)
    assert result["select_on"] == "validation"
    assert "validation split, which ranks the trials" in " ".join(done.out.split())

    # the printed command makes the same run again
    assert best["command"] in done.out.splitlines()
    assert f"{best['val_loss']:.4f}" in done.out
    program, *command = shlex.split(best["command"])
    assert program == "drakegpt"
    again = drakegpt(*command, "--name", "again", "--json", "--quiet")
    assert again.code == 0, again.err
    assert again.json["val_loss"] == best["val_loss"]
    assert weights(home, "again") == weights(home, best["run"])

    # its run is one like any other, but for what speaks of all models
    assert f"Next: drakegpt generate {best['run']}" in done.err
    assert drakegpt("generate", best["run"], "--length", 20).code == 0
    score = drakegpt("eval", best["run"], "--json").json
    assert score["val"]["loss"] == best["val_loss"]
    (row,) = drakegpt("compare", "--json").json["rows"]
    assert [run["run"] for run in row["runs"]] == ["again"]

    # one line for each trial, off a terminal
    lines = [line for line in done.err.splitlines() if line.startswith("Trial ")]
    assert [line.split(":")[0] for line in lines] == [f"Trial {n} of 4" for n in range(1, 5)]
    assert all("complete in" in line for line in lines)
    assert "iteration" not in done.err

    for name in ("parallel", "scatter"):
        folder = home / "sweeps" / result["study"]
        assert str(folder / f"{name}.svg") in result["figures"]
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
        drawing = ET.fromstring((folder / f"{name}.svg").read_text(encoding="utf-8"))
        assert drawing.tag.endswith("svg")
        text = (folder / f"{name}.svg").read_text(encoding="utf-8")
        for word in ("embedding_dim", "max_lr", "validation loss", "BlocksLM on song"):
            assert f"<!-- {word}" in text, (name, word)


@pytest.mark.slow
def test_the_tail_chooses_and_validation_is_told_beside_it(drakegpt, home):
    done = drakegpt("sweep", *BRIEF, *GRID)
    assert done.code == 0, done.err
    assert "ranked on the tail of the training split" in done.err
    result = drakegpt("sweep", *BRIEF, *GRID, "--json").json
    trials, best = result["trials"], result["best"]
    assert result["select_on"] == "training-tail"
    assert best["loss"] == min(trial["loss"] for trial in trials)
    head = next(line for line in done.out.splitlines() if line.startswith("┃"))
    assert head.index("tail") < head.index("validation")
    told = " ".join(done.out.split())
    assert "validation is scored when a trial ends, and decides nothing" in told
    assert f"tail loss {best['loss']:.4f}, validation loss {best['val_loss']:.4f}" in told

    # each is what `eval` finds, and validation was scored once
    shown = drakegpt("runs", "show", best["run"], "--json").json
    assert shown["settings"]["select_on"] == "training-tail"
    assert shown["validation_scorings"] == 1
    score = drakegpt("eval", best["run"], "--json").json
    assert (score["tail"]["loss"], score["val"]["loss"]) == (best["loss"], best["val_loss"])
    data = dataset.load("song")
    assert score["tail"]["tokens"] == data.tail_tokens
    assert score["train"]["tokens"] == data.metadata.train_tokens - data.tail_tokens - 1

    # the command trains the same settings on the whole training split
    assert "To train it on the whole training split:" in told
    assert best["command"] in done.out.splitlines()
    again = drakegpt(*shlex.split(best["command"])[1:], "--name", "again", "-q")
    assert again.code == 0, again.err
    whole = drakegpt("runs", "show", "again", "--json").json["settings"]
    assert whole == shown["settings"] | {"select_on": "validation"}
    score = drakegpt("eval", "again", "--json").json
    assert score["train"]["tokens"] == data.metadata.train_tokens - 1

    for name in ("parallel", "scatter"):
        drawing = home / "sweeps" / result["study"] / f"{name}.svg"
        assert "<!-- tail loss" in drawing.read_text(encoding="utf-8")


@pytest.mark.slow
def test_validation_has_no_part_in_what_becomes_of_trials(drakegpt):
    """Two texts that differ in their validation split alone: all but its loss is the same."""
    kept, found = TEXT[: len(TEXT) * 9 // 10], []
    rest = TEXT[len(kept) :]
    for name, last in (("one", rest), ("two", rest[::-1])):
        prepare_dataset(kept + last, name=name, source="", provenance="", source_sha256="")
        rates = "1e-2,2e-2,3e-2,4e-2,5e-2,1e-7"
        asked = (*TINY, "--iters", 40, "--sampler", "grid", "--param", f"max_lr={rates}")
        found.append(drakegpt("sweep", *asked, "--data", name, "--json").json["trials"])
    assert [trial["state"] for trial in found[0]] == ["complete"] * 5 + ["pruned"]
    validation = [[trial.pop("val_loss") for trial in trials] for trials in found]
    assert all(a != b for a, b in zip(*(losses[:5] for losses in validation), strict=True))
    assert validation[0][5] is validation[1][5] is None
    for trial in [*found[0], *found[1]]:
        del trial["run"], trial["seconds"]
    assert found[0] == found[1]


def test_a_preset_for_what_a_tutorial_searches_chooses_as_that_does(drakegpt):
    asked = ("--preset", "shakespeare-sweep", "--param", "max_lr=1e-3,1e-2", "--iters", 2)
    asked += settings("--context-length", 8, "--num-layers", 1, "--eval-iters", 1)
    for flags, chooses in (((), "validation"), (("--select-on", "training-tail"), "training-tail")):
        result = drakegpt("sweep", *asked, *flags, "--trials", 1, "--json").json
        assert result["select_on"] == chooses


def test_what_chooses_is_not_searched(drakegpt):
    done = drakegpt("sweep", *BRIEF, "--param", "select_on=validation,training-tail")
    assert done.code == 2
    assert "'select_on' cannot be searched" in done.err


def test_a_text_whose_tail_is_too_short_says_what_else_may_choose(drakegpt):
    done = drakegpt("sweep", *BRIEF, "--param", "context_length=370", "--trials", 1)
    assert done.code == 1
    assert "the tail of its training split has 356 tokens" in done.err


@pytest.mark.slow
def test_repeated_it_trains_nothing_and_with_more_trials_goes_on(drakegpt, home):
    asked = ("sweep", *BRIEF, "--param", "max_lr=1e-4..1e-1:log", "--sampler", "random", "--trials")
    first = drakegpt(*asked, 2, "--json")
    assert first.code == 0, first.err
    before = trained(home)
    again = drakegpt(*asked, 2)
    assert trained(home) == before
    assert "Resuming: 2 of 2 trials done" in again.err
    assert first.json["best"]["command"] in again.out
    more = drakegpt(*asked, 4, "--json").json
    assert more["trials"][:2] == first.json["trials"]
    assert len({trial["params"]["max_lr"] for trial in more["trials"]}) == 4
    assert before.items() <= trained(home).items()
    # a study that was removed finds its runs again
    for file in (home / "sweeps").rglob("study.db"):
        file.unlink()
    before = trained(home)
    anew = drakegpt(*asked, 4, "--json").json
    assert trained(home) == before
    for loss in ("loss", "val_loss"):
        assert [t[loss] for t in anew["trials"]] == [t[loss] for t in more["trials"]]


@pytest.mark.slow
def test_what_cannot_be_trained_is_shown_and_does_not_end_the_sweep(drakegpt, home):
    rates = "1e-2,2e-2,3e-2,4e-2,5e-2,1e-7,1e30"
    searched = ("--param", f"max_lr={rates}", "--param", "embedding_dim=8,5")
    asked = ("sweep", *TINY, "--iters", 40, "--sampler", "grid", *searched)
    done = drakegpt(*asked)
    assert done.code == 0, done.err
    result = drakegpt(*asked, "--json").json
    states = {tuple(trial["params"].values()): trial["state"] for trial in result["trials"]}
    assert {states[rate, 5] for rate in (1e-2, 1e-7, 1e30)} == {"impossible"}
    assert states[1e-7, 8] == "pruned"
    assert states[1e30, 8] == "diverged"
    assert [states[rate / 100, 8] for rate in range(1, 6)] == ["complete"] * 5
    hopeless = next(t for t in result["trials"] if t["state"] == "pruned")
    assert 10 <= hopeless["iterations"] < 40
    assert f"pruned at {hopeless['iterations']}" in done.out
    assert "embedding_dim 5 cannot be split evenly over num_heads 2" in done.out
    assert "The loss became nan" in done.out
    runs = {run["run"]: run for run in drakegpt("runs", "list", "--json").json["runs"]}
    assert runs[hopeless["run"]]["state"] == "pruned"
    assert sum(run["state"] == "diverged" for run in runs.values()) == 1
    # nothing is left over that a bare --resume would take; by name it goes on
    assert drakegpt("train", "--resume").code == 1
    resumed = drakegpt("train", "--resume", hopeless["run"], "--json", "-q")
    assert resumed.json["iterations"] == 40
    assert len(resumed.json["evaluations"]) == 20
    assert drakegpt("runs", "show", hopeless["run"], "--json").json["state"] == "finished"

    unpruned = drakegpt(*asked, "--no-prune", "--json").json
    states = [trial["state"] for trial in unpruned["trials"]]
    assert (states.count("complete"), states.count("pruned")) == (6, 0)


def test_nothing_but_failures_is_an_error(drakegpt):
    asked = ("sweep", *BRIEF, "--param", "embedding_dim=5,7", "--sampler", "grid")
    for _ in range(2):
        done = drakegpt(*asked)
        assert done.code == 1
        assert "No trial of 2 could be trained: embedding_dim 5 cannot" in done.err
        assert done.out == ""
    too_long = drakegpt("sweep", *BRIEF, "--param", "context_length=5000", "--trials", 1)
    assert too_long.code == 1
    assert "too short" in too_long.err


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["default", "database"])
def test_two_processes_share_a_study(home, tmp_path, storage):
    searched = ("--param", "embedding_dim=2,4,6,8", "--param", "max_lr=1e-3,3e-3,1e-2")
    # Long enough for the second to come in time, though it may start a while after the first.
    asked = [*TINY, "--iters", 600, "--sampler", "grid", *searched, "--no-prune", "--json"]
    if storage == "database":
        asked += ["--storage", f"sqlite:///{tmp_path / 'study.db'}"]
    processes = [start(*asked) for _ in range(2)]
    ended = [end(process) for process in processes]
    lines = [err.count("complete in") for _, err in ended]
    assert sum(lines) == 12
    assert min(lines) >= 1
    last = max((json.loads(out)["trials"] for out, _ in ended), key=finished)
    assert finished(last) == 12
    drawn = [tuple(trial["params"].values()) for trial in last]
    assert sorted(drawn) == [(d, r) for d in (2, 4, 6, 8) for r in (1e-3, 3e-3, 1e-2)]
    assert len(list((home / "runs").iterdir())) == 12


@pytest.mark.slow
@posix
def test_killed_in_a_trial_it_ends_with_the_bytes_of_a_run_in_one_go(drakegpt, home):
    asked = (*TINY, *ON_VALIDATION, "--iters", 600, *settings("--save-interval", 10),
             "--sampler", "grid", "--param", "embedding_dim=8,4",
             "--param", "max_lr=1e-2")  # fmt: skip
    process = start(*asked)
    runs = home / "runs"
    wait_for(lambda: any(runs.glob("*_0001/checkpoints/00000[3-5]*")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (first,) = runs.iterdir()
    assert drakegpt("runs", "list", "--json").json["runs"][0]["state"] != "finished"
    done = drakegpt("sweep", *asked, "--json")
    assert done.code == 0, done.err
    trials = done.json["trials"]
    assert [(t["number"], t["state"], t["run"]) for t in trials] == [
        (1, "complete", first.name), (2, "complete", first.name.replace("_0001", "_0002")),
    ]  # fmt: skip
    whole = drakegpt(*shlex.split(done.json["best"]["command"])[1:], "--name", "whole", "-q")
    assert whole.code == 0, whole.err
    assert done.json["best"]["run"] == first.name
    assert weights(home, "whole") == weights(home, first.name)
    evaluations = [drakegpt("runs", "show", run, "--json").json["metrics"] for run in
                   ("whole", first.name)]  # fmt: skip
    assert [line["val_loss"] for line in evaluations[0]] == [
        line["val_loss"] for line in evaluations[1]
    ]


@pytest.mark.slow
@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_and_goes_on_when_repeated(drakegpt, home, number):
    asked = (*TINY, "--iters", 3000, "--param", "max_lr=1e-2,2e-2", "--sampler", "grid")
    process = start(*asked)
    wait_for(lambda: any(home.glob("runs/*_0001/checkpoints/*")), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    text = err.decode()
    assert process.returncode == 130, text
    assert out == b""
    assert "Traceback" not in text
    repeated = f"Next: drakegpt sweep {shlex.join(map(str, asked))}"
    assert repeated in text
    (run,) = (home / "runs").iterdir()
    stopped = max(int(folder.name) for folder in (run / "checkpoints").iterdir())
    assert 0 < stopped < 3000
    # a run under way is not for a bare --resume either
    assert drakegpt("train", "--resume").code == 1
    done = drakegpt("sweep", *asked, "--json")
    assert done.code == 0, done.err
    assert [trial["state"] for trial in done.json["trials"]] == ["complete"] * 2


def test_time_is_kept(drakegpt, home):
    # No trial of that length ends in three seconds.
    asked = ("sweep", *TINY, "--iters", 100_000, "--param", "max_lr=1e-3..1e-2", "--minutes")
    none = drakegpt(*asked, 0)
    assert none.code == 0, none.err
    assert "Time is over: 0 of 20 trials done" in none.err
    began = time.monotonic()
    some = drakegpt(*asked, 0.05, "--json")
    assert time.monotonic() - began < 30
    assert some.code == 0, some.err
    assert "Next: drakegpt sweep" in some.err
    assert [trial["state"] for trial in some.json["trials"]] == ["unfinished"]


def test_the_next_command_has_no_password(drakegpt, tmp_path, monkeypatch):
    asked = ("sweep", *BRIEF, "--param", "max_lr=1e-3,1e-2", "--minutes", 0, "--storage")
    without = drakegpt(*asked, tmp_path / "study.db")
    assert "Next: drakegpt sweep" in without.err
    monkeypatch.setattr("drakegpt.sweep.study.open_storage", lambda _: InMemoryStorage())
    done = drakegpt(*asked, "mysql://me:secret@host/x")
    assert done.code == 0, done.err
    assert "Next:" not in done.err
    assert "The same command resumes" in done.err
    assert "me:secret" not in done.err + done.out


@pytest.mark.parametrize(
    ("changed", "warned"),
    [
        ("--iters 200", True),
        ("--iters 1000", True),
        ("--iters 1001", False),  # evaluated once before its end, which is enough
        ("--iters 200 --set eval_interval=10", False),
        ("--iters 200 --no-prune", False),
        ("--iters 200 --trials 5", False),  # there are none to hold a trial against
        ("--param iters=100,200", True),
        ("--param iters=100,2000", False),
        ("--param iters=100..200", True),
        ("--set epochs=1 --set context_length=2 --param batch_size=1,500", False),
        ("--set epochs=1 --set context_length=2 --param batch_size=10,500", True),
        ("--iters 200 --param context_length=9999", False),  # there are no runs
    ],
)
def test_that_nothing_can_be_pruned_is_said(drakegpt, changed, warned):
    asked = ("sweep", "--preset", "shakespeare-sweep", "--param", "max_lr=1e-3..1e-2", "-q",
             "--minutes", 0, *changed.split())  # fmt: skip
    done = drakegpt(*asked)
    assert done.code == 0, done.err
    assert done.err.count("no trial can be pruned") == warned
    assert ("--set eval_interval=10 changes that" in done.err) == (warned and "200" in changed)


@pytest.mark.slow
def test_a_file_says_it_all_and_flags_win(drakegpt, tmp_path):
    toml = tmp_path / "sweep.toml"
    toml.write_text(
        'model = "BlocksLM"\ntrials = 3\nsampler = "random"\niters = 20\nnum_layers = 1\n'
        "eval_iters = 1\nnum_heads = 2\nbatch_size = 64\n"
        '[params]\nembedding_dim = [4, 8]\nmax_lr = "1e-3..1e-2:log"\n'
        "dropout = {low = 0.0, high = 0.5}\n"
    )
    yaml = tmp_path / "sweep.yaml"
    yaml.write_text(
        "model: BlocksLM\ntrials: 3\nsampler: random\niters: 20\nnum_layers: 1\neval_iters: 1\n"
        "num_heads: 2\nbatch_size: 64\nparams:\n  embedding_dim: [4, 8]\n"
        "  max_lr: 1e-3..1e-2:log\n  dropout: {low: 0.0, high: 0.5}\n"
    )
    of_toml = drakegpt("sweep", "--config", toml, "--json")
    assert of_toml.code == 0, of_toml.err
    result = of_toml.json
    assert len(result["trials"]) == 3
    assert result["sampler"] == "random"
    assert list(result["trials"][0]["params"]) == ["embedding_dim", "max_lr", "dropout"]
    assert drakegpt("sweep", "--config", yaml, "--json").json == result
    won = drakegpt("sweep", "bigramlm", "--config", toml, "--trials", 2, "--sampler", "grid",
                   "--set", "dropout=0.25", "--param", "max_lr=1e-3", "--param", "batch_size=2,4",
                   "--param", "embedding_dim=8", "--json")  # fmt: skip
    assert won.code == 0, won.err
    assert won.json["model"] == "BigramLM"
    assert won.json["total"] == 2
    assert points(won.json) == [(8, 1e-3, 2), (8, 1e-3, 4)]
    assert "--dropout 0.25" in won.json["best"]["command"]


MISTAKES = [
    ("", "No model is named"),
    ("BlocksLM", "Nothing is searched"),
    ("BlocksML --param max_lr=1,2", "Did you mean BlocksLM"),
    ("BlocksLM --param max_lr", "has no values"),
    ("BlocksLM --param max_rl=1,2", "Did you mean max_lr"),
    ("BlocksLM --param max_lr=1,2 --param max_lr=3", "given twice"),
    ("BlocksLM --param max_lr=1,2 --set max_lr=3", "both searched and given"),
    ("BlocksLM --param max_lr=1..2 --sampler grid", "infinitely many points"),
    ("BlocksLM --param max_lr=1..2 --sampler best", "--sampler"),
    ("BlocksLM --param max_lr=1..2 --trials 0", "--trials"),
    ("BlocksLM --param max_lr=1..2 --minutes -1", "--minutes"),
    ("BlocksLM --param max_lr=1..2 --set dropout=3", "dropout cannot be 3.0"),
    ("BlocksLM --param max_lr=1..2 --set dropuot=0", "Did you mean dropout"),
    ("BlocksLM --param max_lr=1..2 --set dropout", "has no value"),
    ("BlocksLM --param max_lr=1..2 --set iters=x", "iters cannot be 'x': it is a whole number"),
    ("BlocksLM --param max_lr=1..2 --set iters=2 --iters 3", "iters is given twice"),
    (
        "BlocksLM --param max_lr=1..2 --set minutes=2",
        "minutes cannot be set here. --minutes limits",
    ),
    ("BlocksLM --param max_lr=1..2 --dropout 0", "Write it as --set dropout="),
    ("BlocksLM --param max_lr=1..2 --no-compile", "Write it as --set compile="),
    ("BlocksLM --param max_lr=1..2 --init-from x", "Leave it out"),
    ("BlocksLM --param max_lr=1..2 --name a/b", "cannot name a sweep"),
    ("BlocksLM --param max_lr=1..2 --data none", "no dataset named 'none'"),
    ("BlocksLM --param max_lr=1..2 --device cuda", "no cuda device"),
    ("BlocksLM --param max_lr=1..2 --storage oracle7://x", "cannot be read or written"),
    ("BlocksLM --param iters=1,2 --set epochs=3", "both set the length"),
    ("--config {tmp}/none.toml", "cannot be read"),
    ("--config {tmp}/trials.toml", "trials cannot be 'many'"),
    ("--config {tmp}/minutes.toml", "minutes cannot be -1"),
    ("--config {tmp}/sampler.toml", "sampler cannot be 'best'"),
    ("--config {tmp}/params.toml", "params in the file is not a table"),
    ("--config {tmp}/unknown.toml", "no setting named 'colour'"),
    ("--config {tmp}/axis.toml", "max_lr has neither choices nor a range"),
]
FILES = {
    "trials": 'trials = "many"',
    "minutes": "minutes = -1",
    "sampler": 'sampler = "best"',
    "params": 'params = "max_lr"',
    "unknown": "colour = 1\n[params]\nmax_lr = [1, 2]",
    "axis": "[params]\nmax_lr = 3",
}


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_every_mistake_has_one_message(drakegpt, tmp_path, home, line, message):
    for name, text in FILES.items():
        (tmp_path / f"{name}.toml").write_text(f'model = "BlocksLM"\n{text}\n')
    done = drakegpt("sweep", *line.format(tmp=tmp_path).split())
    assert done.code in (1, 2)
    assert message in " ".join(re.sub("[│╭╰─╮╯]", " ", done.err).split())
    assert done.err.count("Error") == 1
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not (home / "runs").exists()


def test_another_sweep_of_the_same_name_is_refused(drakegpt):
    asked = ("sweep", *BRIEF, "--param", "max_lr=1e-3,1e-2", "--sampler", "grid", "--name", "s")
    done = drakegpt(*asked, "--json")
    assert [trial["run"] for trial in done.json["trials"]] == ["s_0001", "s_0002"]
    refused = drakegpt(*asked, "--set", "dropout=0.5")
    assert refused.code == 2
    assert "a sweep named 's' with other settings" in refused.err


def test_a_run_in_the_way_is_not_taken_for_a_trial(drakegpt):
    drakegpt("train", "BigramLM", "--iters", 2, "--eval-iters", 1, "-q", "--name", "s_0001")
    asked = ("sweep", *BRIEF, "--param", "max_lr=1e-3,1e-2", "--name", "s", "--trials", 1)
    refused = drakegpt(*asked)
    assert refused.code == 2
    assert "The run 's_0001' exists" in refused.err
    assert drakegpt("runs", "remove", "s_0001", "--yes").code == 0
    assert drakegpt(*asked).code == 0


@pytest.mark.slow
def test_on_a_narrow_screen_the_table_leaves_runs_out(drakegpt, terminal):
    wide = drakegpt("sweep", *BRIEF, *GRID).out
    row = next(line for line in wide.splitlines() if line.startswith("│"))
    assert "_000" in row
    shown = terminal("sweep", *BRIEF, *GRID, columns=60)
    assert shown.code == 0
    narrow = shown.text
    table = [line for line in narrow.splitlines() if line.startswith(("│", "┃"))]
    assert len(table) == 5
    assert max(map(len, table)) <= 60, narrow
    assert "run" not in table[0]
    assert "validation" in table[0]
    assert "Left out:" in narrow


SHAKESPEARE = (
    "--preset", "shakespeare-sweep", "--param", "embedding_dim=32,64",
    "--param", "max_lr=1e-4..1e-2:log", "--param", "batch_size=8,16", "--iters", 60, "--trials", 8,
    *settings("--context-length", 64, "--num-layers", 2, "--eval-interval", 15),
    *settings("--eval-iters", 2, "--save-interval", 5),
)  # fmt: skip


@posix
@pytest.mark.slow
@pytest.mark.skipif("TINY_SHAKESPEARE" not in os.environ, reason="TINY_SHAKESPEARE names no file")
def test_the_tutorials_sweep_by_two_processes_one_of_them_killed(drakegpt, home):
    text = os.environ["TINY_SHAKESPEARE"]
    assert drakegpt("data", "fetch", text, "--name", "shakespeare").code == 0
    killed, other = start(*SHAKESPEARE), start(*SHAKESPEARE)
    runs = home / "runs"
    wait_for(lambda: len(list(runs.glob("*/checkpoints"))) >= 2, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = start(*SHAKESPEARE)  # beside the other, which may still be at it
    end(other)
    end(again)
    done = drakegpt("sweep", *SHAKESPEARE, "--json")
    assert done.code == 0, done.err
    result = done.json
    assert result["model"] == "TransformerLM"
    assert [trial["number"] for trial in result["trials"]] == list(range(1, 9))
    assert {trial["state"] for trial in result["trials"]} <= {"complete", "pruned"}
    assert len(list(runs.iterdir())) == 8
    best = result["best"]
    assert best["val_loss"] < 3.3  # single letters alone are worth 3.35
    folder = home / "sweeps" / result["study"]
    picture = (folder / "parallel.svg").read_text(encoding="utf-8")
    for name in ("embedding_dim", "max_lr", "batch_size", "validation loss"):
        assert f"<!-- {name}" in picture
    assert (folder / "scatter.png").read_bytes().startswith(b"\x89PNG\r\n")
    written = drakegpt("generate", best["run"], "--prompt", "LEONTES:\n", "--length", 1000)
    assert written.code == 0, written.err
    # A line feed is added where the text does not end in one.
    assert len(written.out) - len("LEONTES:\n") - 1000 in (0, 1)
    whole = drakegpt(*shlex.split(best["command"])[1:], "--name", "whole", "--json", "-q")
    assert whole.json["val_loss"] == best["val_loss"]
    assert Path(whole.json["run"]).name == "whole"
