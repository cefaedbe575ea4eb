"""`eval` and `generate` with several runs, and with n-gram counts."""

import pytest
from learning import prepare, small_text


def train_two(drakegpt):
    prepare(small_text(), "song")
    brief = ("--iters", 20, "--eval-iters", 2, "--quiet", "--select-on", "training-tail")
    for name, model in (("big", "TransformerLM"), ("little", "BigramLM")):
        done = drakegpt("train", model, *brief, "--name", name)
        assert done.code == 0, done.err


@pytest.fixture
def runs(home_as):
    home_as(train_two)


def test_an_ensemble_has_a_row_for_each_run_and_one_for_all(drakegpt, runs):
    single = drakegpt("eval", "big", "--json").json
    found = drakegpt("eval", "big", "little", "--json").json
    assert set(found) == {"data", "runs", "ensemble"}
    assert found["runs"][0]["val"] == single["val"]
    assert [run["model"] for run in found["runs"]] == ["TransformerLM", "BigramLM"]
    shown = drakegpt("eval", "big", "little").out
    for name, score in [
        ("big", found["runs"][0]["val"]),
        ("little", found["runs"][1]["val"]),
        ("ensemble", found["ensemble"]),
    ]:
        assert any(name in line and f"{score['loss']:.4f}" in line for line in shown.splitlines())
    assert "counts" not in shown


def test_counts_are_a_row_of_their_own(drakegpt, runs):
    found = drakegpt("eval", "big", "little", "--counts", "--json").json
    assert set(found) == {"data", "runs", "ensemble", "counts", "mixture", "weights"}
    assert found["mixture"]["loss"] < found["ensemble"]["loss"]
    assert found["weights"]["fitted_on"] == "training-tail"
    assert found["counts"]["ngrams"] > found["counts"]["order"] > 1
    shown = drakegpt("eval", "big", "little", "--counts").out
    for name in ("counts", "mixture"):
        assert f"{found[name]['loss']:.4f}" in shown
    assert "which no run was trained on" in " ".join(shown.split())


def test_texts_of_several_runs(drakegpt, runs):
    ask = ("--prompt", "the ", "-n", 40, "--seed", 3)
    found = drakegpt("generate", "big", "little", *ask, "--json")
    assert [path.rsplit("/")[-1] for path in found.json["runs"]] == ["big", "little"]
    assert "Ensemble: TransformerLM of run big, BigramLM of run little" in found.err
    text = found.json["samples"][0]["text"]
    assert text == drakegpt("generate", "big", "little", *ask).out.rstrip("\n")
    assert text != drakegpt("generate", "big", *ask).out.rstrip("\n")
    mixed = drakegpt("generate", "big", "--counts", *ask, "--json")
    assert mixed.json["run"].endswith("big")
    assert mixed.json["counts"] is True
    assert "mixed with n-gram counts of its text" in mixed.err
    again = drakegpt("generate", "big", "--counts", *ask)
    assert mixed.json["samples"][0]["text"] == again.out.rstrip("\n") != text


def test_runs_that_do_not_fit(drakegpt, runs):
    drakegpt("train", "BigramLM", "--iters", 2, "--name", "seen", "--quiet")
    assert "fitted on other texts" in drakegpt("eval", "seen", "--counts").out
    found = drakegpt("eval", "seen", "--counts", "--json").json
    assert found["weights"]["fitted_on"] == "other texts"
    assert drakegpt("generate", "seen", "--counts", "-n", 9).code == 0
    done = drakegpt("generate", "big", "--run", "little")
    assert done.code == 2
    assert "both name a run" in done.err
