"""Configuration files, resuming, time budgets and recipes."""

import json
import re
import time
import tomllib
from pathlib import Path

import pytest

from drakegpt.cli.train_output import _describe_best_weights
from drakegpt.config import resolve
from drakegpt.data import dataset
from drakegpt.runs.create import create_run
from drakegpt.runs.info import FORMAT
from drakegpt.runs.run import open_run
from drakegpt.runs.session import TrainingSession
from drakegpt.runs.stored_scores import read_scores

TEXT = "one two three four five six seven eight nine ten\n" * 80
SHORT = ("--iters", 12, "--eval-iters", 2, "--eval-interval", 4)
BRIEF = (*SHORT, "-q", "--json")


@pytest.fixture
def song(drakegpt, tmp_path):
    (tmp_path / "song.txt").write_text(TEXT)
    assert drakegpt("data", "fetch", tmp_path / "song.txt").code == 0


def losses(done):
    assert done.code == 0, done.err
    return [(e["iteration"], e["train_loss"], e["val_loss"]) for e in done.json["evaluations"]]


def test_flag_before_environment_before_file_before_preset(drakegpt, song, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('model = "BlocksLM"\niters = 5\nseed = 5\nbatch_size = 5\ndropout = 0.25\n')
    shown = drakegpt(
        "train", "--config", file, "--iters", 7, "--print-config", DRAKEGPT_ITERS=6, DRAKEGPT_SEED=6
    )
    assert shown.code == 0, shown.err
    got = tomllib.loads(shown.out)
    assert got["model"] == "BlocksLM"
    assert (got["iters"], got["seed"], got["batch_size"], got["num_heads"]) == (7, 6, 5, 4)
    assert got["data"] == "song"


def test_a_printed_configuration_gives_the_same_run_when_fed_back(drakegpt, song, tmp_path):
    settings = ("--schedule", "cosine", "--grad-clip", 1, "--weight-decay", 0.1, "--dropout", 0.3)
    first = drakegpt("train", "TransformerLM", *settings, *BRIEF)
    printed = drakegpt("train", "TransformerLM", *settings, *BRIEF[:-2], "--print-config")
    assert printed.err == ""
    (tmp_path / "again.toml").write_text(printed.out)
    again = drakegpt("train", "--config", tmp_path / "again.toml", "-q", "--json")
    assert losses(again) == losses(first)


def test_what_is_printed_is_what_the_dataset_makes_of_it(drakegpt, song):
    """Few epochs need no dropout, and epochs are iterations; without the dataset, neither."""

    def printed(*options):
        wide = ("--recipe", "fast", "--embedding-dim", 128)
        return tomllib.loads(drakegpt("train", "TransformerLM", *wide, *options).out)

    assert printed("--iters", 3, "--print-config")["dropout"] == 0.0
    assert printed("--iters", 3, "--print-config", "--data", "other")["dropout"] == 0.1
    by_epochs = printed("--epochs", 2, "--print-config")
    assert (by_epochs["epochs"], by_epochs["window_order"]) == (0, "epoch")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("contxt_length = 8", ["'contxt_length'", "context_length"]),
        ('iters = "many"', ["iters", "'many'", "integer"]),
        ("iters = 1.5", ["iters", "1.5"]),
        ("dropout = 2.0", ["dropout", "2.0", "less than 1"]),
        ('schedule = "zigzag"', ["schedule", "'zigzag'", "cosine"]),
        ('model = "GPT5"', ["model", "GPT5", "TransformerLM"]),
        ('size = "huge"', ["size", "huge", "scaled"]),
        ("size = [1]", ["size"]),
        ("model = 3", ["model", "3"]),
        ("[training]\niters = 3", ["'training'"]),
        ("seed = 1\niters = =", ["not valid TOML", "line 2"]),
    ],
)
def test_mistakes_in_a_file_are_named(drakegpt, song, tmp_path, toml, words):
    file = tmp_path / "bad.toml"
    file.write_text(toml)
    model = [] if toml.startswith("model") else ["BigramLM"]
    done = drakegpt("train", *model, "--config", file, "-q")
    assert done.code == 2, done.err
    assert done.out == ""
    for word in words:
        assert word in done.err, done.err


def test_a_missing_file_or_model_is_named(drakegpt, song):
    done = drakegpt("train", "BigramLM", "--config", "nowhere.toml")
    assert (done.code, "nowhere.toml" in done.err) == (2, True)
    done = drakegpt("train")
    assert done.code == 2
    assert "No model is named" in done.err


def test_resume_takes_the_latest_unfinished_run_of_the_model(drakegpt, song, home):
    from drakegpt.runs.run import open_run
    from drakegpt.runs.session import TrainingSession

    whole = drakegpt("train", "BlocksLM", *BRIEF, "--name", "whole")
    assert drakegpt("train", "BlocksLM", "--resume").code == 1
    begun = drakegpt("train", "BlocksLM", *BRIEF, "--name", "begun", "--save-interval", 1)
    assert begun.code == 0
    # as if it had been killed after its last checkpoint
    run = open_run(home / "runs" / "begun")
    lines = (run.folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.folder / "metrics.jsonl").write_text("".join(lines[:-1]))
    with TrainingSession(run, resume=True):
        pass
    for arguments in (["BlocksLM", "--resume"], ["--resume", "BlocksLM"], ["--resume"]):
        refused = drakegpt("train", *arguments, "--batch-size", 7)
        assert refused.code == 2, arguments
        assert "batch_size (32 → 7)" in refused.err
    done = drakegpt("train", "BlocksLM", "--resume", "-q", "--json")
    assert done.json["run"].endswith("begun")
    assert losses(done) == losses(whole)
    none = drakegpt("train", "TransformerLM", "--resume")
    assert none.code == 1
    assert "no unfinished run of TransformerLM" in none.err


def test_a_finished_run_goes_on_with_more_iterations(drakegpt, song):
    longer = ("--iters", 24, "--eval-iters", 2, "--eval-interval", 4, "-q", "--json")
    whole = drakegpt("train", "MultiHeadAttentionLM", *longer)
    drakegpt("train", "MultiHeadAttentionLM", *BRIEF, "--name", "r")
    done = drakegpt("train", "--resume", "r", "--iters", 24, "-q", "--json")
    assert losses(done) == losses(whole)


@pytest.mark.slow
def test_a_time_budget_is_kept(drakegpt, song, home):
    started = time.monotonic()
    done = drakegpt("train", "MultiHeadAttentionLM", "--minutes", 0.15, "--eval-iters", 2,
                    "--name", "r", "--json", "--schedule", "cosine")  # fmt: skip
    took = time.monotonic() - started
    assert done.code == 0, done.err
    assert "0.15 minutes: about" in done.err
    assert 3 < done.json["seconds"] < 18
    assert took < 40
    settings = tomllib.loads((home / "runs" / "r" / "config.toml").read_text())
    assert settings["minutes"] == 0.15
    assert done.json["iterations"] > 100
    # the schedule fits the time: the last rate is near the floor
    assert done.json["evaluations"][-1]["learning_rate"] < 1.1e-3


def test_a_budget_too_small_is_refused(drakegpt, song, home):
    done = drakegpt("train", "TransformerLM", "--minutes", 0.0001)
    assert done.code == 2
    assert "too short" in done.err
    assert not list((home / "runs").glob("*"))


def test_early_stopping_says_where_overfitting_began(drakegpt, tmp_path):
    import random

    chance = random.Random(1)
    (tmp_path / "noise.txt").write_text("".join(chance.choice("abcdefgh ") for _ in range(600)))
    drakegpt("data", "fetch", tmp_path / "noise.txt")
    done = drakegpt("train", "TransformerLM", "--dropout", 0, "--eval-interval", 20, "--patience",
                    3, "--eval-iters", 5, "--schedule", "constant", "-q")  # fmt: skip
    assert done.code == 0
    assert "Stopped early: validation loss did not fall for 3 evaluations" in told(done)
    assert "Overfits from iteration" in done.out  # by exact losses
    assert "stopped early" in drakegpt("runs").out
    texts = [
        drakegpt("generate", *which, "-n", 80, "--seed", 1, "--json").json["samples"][0]["text"]
        for which in ((), ("--best",), ("--best",))
    ]
    assert texts[0] != texts[1] == texts[2]


def test_early_stopping_by_the_noise_of_an_estimate_is_not_called_overfitting(drakegpt, song):
    """Two windows an estimate: it ends by chance, while the exact loss still falls."""
    done = drakegpt("train", "TransformerLM", "--iters", 300, "--eval-interval", 1, "--patience", 1,
                    "--eval-iters", 1, "--batch-size", 2, "-q")  # fmt: skip
    assert done.code == 0
    assert "Stopped early: validation loss did not fall for 1 evaluation;" in told(done)
    assert "verfit" not in done.out
    assert "--best" not in done.out  # the last weights are better


def told(done):
    return " ".join(done.out.split())


@pytest.mark.parametrize(
    ("last", "best", "advised"), [(2.0, 1.994, True), (2.0, 1.996, False), (2.0, 2.1, False)]
)
def test_the_best_weights_are_advised_only_where_they_are_better_beyond_noise(
    drakegpt, song, last, best, advised
):
    """By scores that are made up: 0.005 nats within a run are noise."""
    done = drakegpt("train", "BigramLM", *BRIEF, "--name", "r")
    folder = Path(done.json["run"])
    scores = json.loads((folder / "scores.json").read_text())
    scores["val"]["loss"], scores["best_val"]["loss"] = last, best
    (folder / "scores.json").write_text(json.dumps(scores))
    run = open_run(folder)
    assert ("--best" in " ".join(_describe_best_weights(run, read_scores(run)))) == advised


def test_train_says_by_what_its_best_weights_were_chosen(drakegpt, song):
    for chooses, words in (
        (
            "validation",
            "chosen by estimates on the validation split, the same that is scored above",
        ),
        ("training-tail", "chosen by estimates on the tail of the training split; validation"),
    ):
        done = drakegpt("train", "BigramLM", *SHORT, "--select-on", chooses, "--name", chooses)
        assert words in told(done)
        shown = drakegpt("runs", "show", chooses, "--json").json
        evaluations = [e for e in shown["metrics"] if e["event"] == "evaluation"]
        assert {e["scored_on"] for e in evaluations} == {chooses}
        whole = shown["validation_scorings"]
        assert whole == (2 if chooses == "training-tail" else 2 + len(evaluations))
        drakegpt("eval", chooses)  # known by now
        assert f"validation split scored {whole} times" in drakegpt("runs", "show", chooses).out
    head = "tail" if chooses == "training-tail" else "val"
    assert f"{head} " in done.err


def test_a_run_that_holds_out_the_tail_goes_on_to_the_same_bytes(drakegpt, song, home):
    asked = ("train", "BigramLM", *SHORT, "--select-on", "training-tail", "-q", "--name")
    assert drakegpt(*asked, "whole").code == 0
    assert drakegpt(*asked, "half", "--iters", 8).code == 0
    assert drakegpt("train", "--resume", "half", "--iters", 12, "-q").code == 0
    runs = [open_run(home / "runs" / name) for name in ("whole", "half")]
    assert len({run.last_checkpoint().weights.read_bytes() for run in runs}) == 1


def test_a_failing_loss_names_the_iteration_and_the_remedy(drakegpt, song):
    done = drakegpt("train", "TransformerLM", *BRIEF, "--max-lr", 1e30, "--schedule", "constant")
    assert done.code == 1
    assert "at iteration" in done.err
    assert "--lr" in done.err
    assert "Traceback" not in done.err


def test_runs_are_listed_shown_and_removed(drakegpt, song, home):
    assert "No runs yet" in drakegpt("runs").err
    drakegpt("train", "BigramLM", *BRIEF, "--name", "one")
    drakegpt("train", "BlocksLM", *BRIEF, "--name", "two")
    listed = drakegpt("runs").out
    assert listed.index("one") < listed.index("two")
    assert [r["run"] for r in drakegpt("runs", "list", "--json").json["runs"]] == ["one", "two"]
    shown = drakegpt("runs", "show", "two", "--json").json
    assert shown["settings"]["model"] == "BlocksLM"
    assert [m["event"] for m in shown["metrics"]] == ["evaluation"] * 3 + ["finished"]
    assert 'model = "BlocksLM"' in drakegpt("runs", "show", "two").out
    refused = drakegpt("runs", "remove", "two", stdin="n\n")
    assert refused.code == 1
    assert (home / "runs" / "two").exists()
    assert drakegpt("runs", "remove", "two", "--yes").code == 0
    assert not (home / "runs" / "two").exists()
    assert (home / "runs" / "one").exists()
    assert drakegpt("runs", "remove", "two", "--yes").code == 1
    outside = drakegpt("runs", "remove", home.parent, "--yes")
    assert outside.code == 2
    assert home.parent.exists()


def test_older_and_damaged_runs_are_listed_as_what_they_are_and_can_be_removed(
    drakegpt, song, home
):
    for name in ("whole", "older", "damaged"):
        drakegpt("train", "BigramLM", *BRIEF, "--name", name)
    runs = home / "runs"
    info = json.loads((runs / "older" / "run.json").read_text())
    assert info["format"] == FORMAT
    (runs / "older" / "run.json").write_text(json.dumps(info | {"format": FORMAT - 1}))
    (runs / "damaged" / "config.toml").write_text("bits = [")
    (runs / "begun").mkdir()
    drakegpt("train", "BigramLM", *BRIEF, "--name", "newer")
    info = json.loads((runs / "newer" / "run.json").read_text())
    (runs / "newer" / "run.json").write_text(json.dumps(info | {"format": FORMAT + 1}))
    drakegpt("train", "BigramLM", *BRIEF, "--name", "cut")
    (runs / "cut" / "metrics.jsonl").write_text("{}\n")
    states = {r["run"]: r["state"] for r in drakegpt("runs", "list", "--json").json["runs"]}
    assert states == {
        "whole": "finished", "older": "from an older drakegpt",
        "damaged": "damaged", "begun": "damaged", "newer": "damaged", "cut": "damaged",
    }  # fmt: skip
    listed = drakegpt("runs").out
    assert listed.count("damaged") == 5
    assert drakegpt("compare").code == 0
    assert "a newer drakegpt may know it" in drakegpt("runs", "show", "newer").err
    assert "from an older drakegpt" in listed
    asked = drakegpt("eval", "older")
    assert asked.code == 1
    assert "older is a run from an older drakegpt." in asked.err
    assert drakegpt("eval").code == 0  # of the whole one
    (runs / "link").symlink_to(runs / "whole")
    for name in ("older", "damaged", "begun", "link"):
        assert drakegpt("runs", "remove", name, "-y").code == 0
    assert drakegpt("eval", "whole").code == 0


@pytest.mark.parametrize("name", ["", ".", "..", "BigramLM", "on", "nothing", "./one"])
def test_only_an_exact_name_or_folder_is_removed(drakegpt, song, home, name):
    """An unset variable of a shell is an empty name; it does not stand for the best run."""
    drakegpt("train", "BigramLM", *BRIEF, "--name", "one")
    refused = drakegpt("runs", "remove", name, "-y")
    assert refused.code in (1, 2)
    assert "Error" in refused.err
    assert (home / "runs" / "one" / "config.toml").exists()


def test_a_run_is_never_made_shorter_than_it_is(drakegpt, song, home):
    """What is refused changes nothing in the run's folder."""
    drakegpt("train", "BigramLM", *BRIEF, "--name", "whole")
    config = resolve("BigramLM", "default", "song", {"iters": 50, "eval_iters": 1})
    run = create_run(config, dataset.load("song"), "cut")
    with TrainingSession(run) as recorder:
        for report in recorder.reports():
            if report.iteration == 7:
                recorder.save()
                break
    for name, done in (("whole", BRIEF[1]), ("cut", 7)):
        before = (home / "runs" / name / "config.toml").read_bytes()
        for iters in (1, done - 1, done if name == "cut" else 2):
            refused = drakegpt("train", "--resume", name, "--iters", iters)
            assert refused.code == 2
            assert f"{name} has been trained for {done} iterations already" in refused.err
        assert (home / "runs" / name / "config.toml").read_bytes() == before
    assert drakegpt("train", "--resume", "cut", "--iters", 9, "-q").code == 0


def test_a_finished_run_says_so(drakegpt, song, home):
    drakegpt("train", "BigramLM", *BRIEF, "--name", "it is", "-q")
    before = (home / "runs" / "it is" / "metrics.jsonl").read_bytes()
    again = drakegpt("train", "--resume", "it is")
    assert again.code == 0
    assert again.out == ""
    assert "it is is finished after 12 iterations." in again.err
    assert "Next: drakegpt generate 'it is'" in again.err
    assert "Next: drakegpt train --resume 'it is' --iters 24" in again.err
    assert drakegpt("train", "--resume", "it is", "--json").json["iterations"] == 12
    assert (home / "runs" / "it is" / "metrics.jsonl").read_bytes() == before


def test_a_run_that_stopped_early_is_finished_until_it_gets_more_patience(drakegpt, song):
    asked = ("--iters", 400, "--eval-iters", 1, "--eval-interval", 1, "--patience", 1)
    early = drakegpt("train", "BigramLM", *asked, "--name", "r", "-q", "--json").json["iterations"]
    assert early < 400
    again = drakegpt("train", "--resume", "r")
    assert f"r is finished after {early} iterations, stopped early." in again.err
    more = drakegpt("train", "--resume", "r", "--patience", 3, "-q", "--json")
    assert more.json["iterations"] >= early


def test_a_long_training_on_a_cpu_says_first_how_long_it_takes(drakegpt, monkeypatch):
    brief = ("train", "TransformerLM", "--recipe", "best", "--iters", 2, "--eval-iters", 1)
    assert "on this machine's CPU" not in drakegpt(*brief).err
    monkeypatch.setattr("drakegpt.cli.train.LONG_OPERATIONS", 1)
    said = drakegpt(*brief)
    assert said.code == 0
    assert re.search(r"This takes about \d+ s on this machine's CPU.*\n(.*\n)*On cpu", said.err)
