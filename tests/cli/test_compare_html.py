"""`drakegpt compare --html`: the program writes the report, or says early that it cannot."""

import os
import sys

import pytest
from learning import prepare, train
from program_runs import settings
from report_pages import corpus_with_stanzas

from drakegpt.data import dataset

BRIEF = ("--iters", 3, "--eval-iters", 1)


@pytest.fixture
def trained(home):
    data = prepare(corpus_with_stanzas())
    train(data, "BigramLM")
    return train(data, "SingleHeadAttentionLM")


def test_the_report_is_written_beside_the_usual_output(drakegpt, trained, tmp_path):
    path = tmp_path / "new folder" / "report.html"
    path.parent.mkdir()
    shown = drakegpt("compare", "--prompt", "the fox", "--html", path)
    assert shown.code == 0, shown.err
    assert f"Page: {path}" in shown.err
    assert "The ladder on small" in shown.out
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert trained.name in page
    assert '<span class="prompt">the fox</span>' in page
    for row in drakegpt("compare", "--json").json["rows"]:
        assert f"<td>{row['val_loss']:.4f}</td>" in page
        assert f"{row['val_loss']:.4f}" in shown.out
    assert not list(path.parent.glob(".*"))


def test_a_prompt_that_only_the_ladder_knows_is_fitted_to_the_others(drakegpt, home, tmp_path):
    text, path = corpus_with_stanzas(), tmp_path / "report.html"
    other = train(prepare(text), "TransformerLM")
    tokens = prepare(text, "small-bpe", tokenizer="bpe", vocab_size=290)
    ladder = train(tokens, "BigramLM")
    ask = ("compare", "--data", "small-bpe", "--json", "--html", path, "--prompt")
    shown = drakegpt(*ask, "日 the <b> dog")
    assert shown.code == 0, shown.err
    samples = shown.json["samples"]
    assert samples["prompt"] == "日 the <b> dog"
    assert samples["fitted"] == {other.name: " the b dog"}
    assert samples["texts"][ladder.name].startswith("日 the <b> dog")
    assert samples["texts"][other.name].startswith(" the b dog")
    page = path.read_text(encoding="utf-8")
    assert '<span class="prompt">日 the &lt;b&gt; dog</span>' in page
    assert '<span class="prompt"> the b dog</span>' in page
    assert (
        page.count("Prompt: <q><bdi> the b dog</bdi></q>; the rest is not in its vocabulary") == 1
    )
    assert "&#39;日 the &lt;b&gt; dog&#39; --unknown skip" in page

    shown = drakegpt(*ask, "日本")
    assert shown.json["samples"]["fitted"] == {other.name: ""}
    page = path.read_text(encoding="utf-8")
    assert page.count("None of the prompt is in its vocabulary.") == 1
    assert page.count('<span class="prompt">') == 1


def test_with_json_the_object_names_the_report(drakegpt, trained, tmp_path):
    path = tmp_path / "report.html"
    path.write_text('<meta name="generator" content="drakegpt 0">')
    shown = drakegpt("compare", "--json", "--html", path)
    assert shown.code == 0, shown.err
    assert shown.json["report"] == str(path)
    assert shown.err == ""
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert "report" not in drakegpt("compare", "--json").json


@pytest.mark.parametrize("json", [False, True])
def test_a_folder_is_refused_before_anything_is_done(drakegpt, home, tmp_path, json):
    shown = drakegpt(
        "compare", "--train", *settings(*BRIEF), "--html", tmp_path, *["--json"] * json
    )
    assert shown.code == 2
    assert shown.out == ""
    assert f"{tmp_path} is a folder." in shown.err
    assert f"--html {tmp_path / 'page.html'}" in shown.err
    assert not (home / "runs").exists()
    assert dataset.list_names() == []


def test_a_place_without_access_is_refused_before_anything_is_done(drakegpt, home, tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("mine")
    places = [file / "report.html"]
    if sys.platform == "linux" and os.access("/proc", os.F_OK):
        places.append("/proc/report.html")
    for place in places:
        shown = drakegpt("compare", "--train", *settings(*BRIEF), "--html", place)
        assert shown.code == 2
        assert f"No page can be written to {place}" in shown.err
    assert file.read_text() == "mine"
    assert not (home / "runs").exists()


def test_a_comparison_that_fails_leaves_the_old_report(drakegpt, home, tmp_path):
    prepare(corpus_with_stanzas())
    path = tmp_path / "report.html"
    path.write_text("before")
    refused = drakegpt("compare", "--html", path)
    assert refused.code == 2
    assert "not a page of drakegpt" in refused.err
    shown = drakegpt("compare", "--html", path, "--force")
    assert shown.code == 1
    assert "No model has been trained" in shown.err
    assert path.read_text() == "before"


@pytest.mark.parametrize("instead", ["--low-bit", "--regularization"])
def test_what_stands_instead_of_the_ladder_has_no_report(drakegpt, home, tmp_path, instead):
    shown = drakegpt("compare", instead, "--html", tmp_path / "report.html")
    assert shown.code == 2
    assert "Only the table of the ladder has --html." in shown.err
