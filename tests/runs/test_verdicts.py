"""Verdicts on real runs: their facts, what is kept of them, and where they are shown."""

import json
import random
from dataclasses import replace

import pytest
import torch
from learning import prepare, small_text, train

from drakegpt.config import resolve
from drakegpt.errors import RunError
from drakegpt.runs import references, verdicts
from drakegpt.runs.mixtures import load_run_mixture, score_run_mixture
from drakegpt.runs.references import find_reference
from drakegpt.runs.scores import score_run
from drakegpt.runs.stored_scores import count_validation_scorings
from drakegpt.runs.verdicts import collect_facts, judge_run

CPU = torch.device("cpu")
LONG = {"iters": 60, "eval_interval": 5, "eval_iters": 2}


@pytest.fixture
def run(prepared):
    return train(prepared, name="r", **LONG)


@pytest.mark.parametrize("select_on", ["validation", "training-tail"])
def test_both_together_is_the_mixture_that_eval_scores(prepared, select_on):
    run = train(prepared, select_on=select_on, **LONG)
    standing = collect_facts(run).standing
    scores = score_run_mixture(load_run_mixture([run], CPU, counts=True))
    assert standing.mixture == pytest.approx(scores.mixture.loss)
    assert standing.loss == pytest.approx(score_run(run).val.loss)


def test_a_run_is_read_once_and_again_when_it_went_on(run, monkeypatch):
    first = judge_run(run)
    before = count_validation_scorings(run)
    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "measure_standing", None)
        assert judge_run(run).lines == first.lines
        assert count_validation_scorings(run) == before
    stored = run.folder / verdicts.FILE
    values = json.loads(stored.read_text())
    for damage in ({"of": {}}, {"loss": "2"}, {"countings": [{}]}, {"more": 1}):
        stored.write_text(json.dumps(values | damage))
        assert judge_run(run).lines == first.lines
        assert json.loads(stored.read_text()) == values
    stored.write_text("no json")
    assert judge_run(run).lines == first.lines


def test_where_the_best_weights_stand_is_told_of_a_run_that_overfits():
    chance = random.Random(1)
    data = prepare("".join(chance.choices("abcdefgh\n", k=500)), "noise")
    learning = {"iters": 200, "eval_interval": 10, "eval_iters": 20, "max_lr": 0.03}
    run = train(data, "TransformerLM", schedule="constant", base_lr=0.03, **learning)
    scores = score_run(run)
    assert scores.best_val.loss < scores.val.loss - 0.05
    assert collect_facts(run).standing.loss == pytest.approx(scores.val.loss)
    for _ in range(2):  # measured, and read again
        best = collect_facts(run, best=True).standing
        assert best.loss == pytest.approx(scores.best_val.loss)


def test_weights_that_were_scored_are_not_counted_again(run):
    score_run(run)
    before = count_validation_scorings(run)
    judge_run(run)
    assert count_validation_scorings(run) == before


def test_long_texts_are_counted_less(run, monkeypatch):
    monkeypatch.setattr(verdicts, "COUNTED_TOKENS", 1000)
    standing = collect_facts(run).standing
    assert [each.order for each in standing.countings] == [1, 2, 3]
    assert standing.mixture is None
    (run.folder / verdicts.FILE).unlink()
    monkeypatch.setattr(verdicts, "SHORT_COUNTED_TOKENS", 1000)
    monkeypatch.setattr(verdicts, "MAX_TOKENS", 100)
    standing = collect_facts(run).standing
    assert (standing.countings, standing.tokens) == ((), 100)


def test_verdicts_are_shown_by_train_and_eval(drakegpt, run):
    score_run(run)  # exact losses decide what estimates leave open
    lines = judge_run(run).lines
    shown = drakegpt("eval", "r")
    assert " ".join(lines) in " ".join(shown.out.split())
    verdict = drakegpt("eval", "r", "--json").json["verdict"]
    assert verdict["lines"] == list(lines)
    assert 0 <= verdict["standing"]["right"] <= 1
    settings = [f"--{key.replace('_', '-')}={value}" for key, value in LONG.items()]
    trained = drakegpt("train", "TransformerLM", *settings, "-q", "--name", "s")
    assert " ".join(lines) in " ".join(trained.out.split())
    again = drakegpt("train", "--resume", "s", "--json")
    assert again.json["verdict"]["lines"] == list(lines)


def test_weights_without_a_curve_have_a_verdict_too(prepared, run):
    from drakegpt.runs.packing import pack_run

    packed = pack_run(run, "8")
    lines = judge_run(packed).lines
    assert len(lines) == 2
    assert "both together" in lines[0]


def test_a_missing_checkpoint_is_an_error(run):
    for checkpoint in run.checkpoints:
        checkpoint.weights.unlink()
    with pytest.raises(RunError):
        judge_run(run)


def test_every_reference_is_of_settings_that_exist():
    for record in references._read_records():
        given = {"recipe": record["recipe"]}
        config = resolve(record["model"], "default", record["data"], given)
        assert config.iters == record["iterations"]


def test_a_run_finds_its_reference_by_text_and_settings(prepared, run, monkeypatch):
    record = {
        "version": run.info["dataset_version"], "model": "TransformerLM", "recipe": "original",
        "iterations": 10_000, "mean": 2.0, "spread": 0.01, "seeds": 3,
    }  # fmt: skip
    monkeypatch.setattr(references, "_read_records", lambda: [record])
    assert find_reference(run).mean == 2.0
    assert find_reference(replace(run, config=replace(run.config, seed=1))).mean == 2.0
    for name, value in (("dropout", 0.0), ("context_length", 16), ("recipe", "fast")):
        assert not find_reference(replace(run, config=replace(run.config, **{name: value})))
    other = train(prepare(small_text() + "another line\n", "other"), **LONG)
    assert not find_reference(other)


def test_the_bundled_songs_have_references(drakegpt):
    assert drakegpt("data", "fetch", "sample").code == 0
    from drakegpt.data import dataset

    run = train(dataset.load("sample"), iters=2, eval_interval=2, eval_iters=1)
    assert find_reference(run).iterations == 10_000
