"""`drakegpt export page`: one file with the models of a text."""

import json
import re

import pytest
from learning import prepare, record, train
from report_pages import corpus_with_stanzas

import drakegpt as dg
from drakegpt.config import resolve
from drakegpt.data.reencode import encode_as_bpe
from drakegpt.errors import UsageError
from drakegpt.report import live
from drakegpt.runs.create import create_run


@pytest.fixture
def data(home):
    return prepare(corpus_with_stanzas())


def models_in(path):
    """What the page says of its models, by the names of their runs; empty if it is static."""
    page = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="models">(.*?)</script>', page)
    return {model["name"]: model for model in json.loads(found[1])["models"]} if found else {}


def test_without_runs_the_page_holds_the_ladder_and_the_best_run(drakegpt, data, tmp_path):
    rungs = [train(data, model) for model in ("BigramLM", "SingleHeadAttentionLM")]
    best = train(data, "TransformerLM", bits="1.58", iters=150, eval_interval=150)
    path = tmp_path / "page.html"
    shown = drakegpt("export", "page", "--output", path)
    assert shown.code == 0, shown.err
    assert shown.out.startswith(f"{path}: 0.")
    assert [*models_in(path)] == [*(run.name for run in rungs), best.name]
    assert models_in(path)[best.name]["precision"] == "ternary"


def test_named_runs_are_the_page(drakegpt, data, tmp_path):
    for model in ("BigramLM", "TransformerLM"):
        train(data, model)
    named = train(data, "GPT1LM", name="mine")
    path = tmp_path / "page.html"
    shown = drakegpt(
        "export", "page", "mine", "--output", path, "--title", "Our <songs>", "--licence", "CC0",
        "--text", "the lazy fox", "--precision", "float16", "--json",
    )  # fmt: skip
    assert shown.code == 0, shown.err
    size = path.stat().st_size
    assert shown.json == {"page": str(path), "bytes": size, "runs": ["mine"]}
    page = path.read_text(encoding="utf-8")
    assert "Our &lt;songs&gt;" in page
    assert "CC0" in page
    assert "TransformerLM" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    (model,) = models_in(path).values()
    assert (model["name"], model["precision"]) == (named.name, "float16")


def test_a_static_page_has_no_script(drakegpt, data, tmp_path):
    train(data, "BigramLM")
    for command in (("export", "page", "--output"), ("compare", "--html")):
        path = tmp_path / f"{command[0]}.html"
        assert drakegpt(*command, path, "--static").code == 0
        assert "<script" not in path.read_text(encoding="utf-8")
        assert models_in(path) == {}


def test_compare_writes_the_same_page(drakegpt, data, tmp_path):
    train(data, "BigramLM")
    pages = [tmp_path / name for name in ("compare.html", "export.html")]
    assert drakegpt("compare", "--html", pages[0]).code == 0
    assert drakegpt("export", "page", "--output", pages[1]).code == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_the_library_writes_the_same_page(drakegpt, data, tmp_path):
    runs = [train(data, model) for model in ("BigramLM", "TransformerLM")]
    ours, theirs = tmp_path / "ours.html", tmp_path / "theirs.html"
    for names, given, options in (
        ((), {}, ()),
        ([run.name for run in runs], {"title": "Two", "prompt": "the "}, ("--title", "Two")),
    ):
        size = dg.export_page(ours, names or None, **given)
        prompt = ("--prompt", given["prompt"]) if "prompt" in given else ()
        assert drakegpt("export", "page", *names, "--output", theirs, *options, *prompt).code == 0
        assert ours.read_bytes() == theirs.read_bytes()
        assert ours.stat().st_size == size
    assert dg.export_page(ours, runs[0], static=True) < size
    ours.write_text("mine")
    with pytest.raises(UsageError, match="is not a page of drakegpt") as refused:
        dg.export_page(ours)
    assert "replace=True" in refused.value.fix
    assert ours.read_text() == "mine"
    assert dg.export_page(ours, replace=True) > 1000


def test_the_library_takes_the_runs_of_the_text_that_is_named_and_each_once(data, tmp_path):
    """The same text as BPE tokens has a newer run of the same model."""
    own = train(data, "TransformerLM")
    other = encode_as_bpe(data, 300)
    train(other, "TransformerLM")
    path = tmp_path / "page.html"
    for given in (data, data.name):
        dg.export_page(path, ["TransformerLM", own.folder], data=given)
        assert [*models_in(path)] == [own.name]


@pytest.mark.parametrize(
    ("given", "said"),
    [({"precision": "int4"}, "no precision 'int4'"), ({"text": "x" * 2001}, "2,001 characters")],
)
def test_the_library_refuses_what_the_command_refuses(data, tmp_path, given, said):
    train(data, "BigramLM")
    with pytest.raises(UsageError, match=said):
        dg.export_page(tmp_path / "page.html", **given)
    assert list(tmp_path.glob("*.html")) == []


def test_other_commands_name_it_as_a_next_step(drakegpt, data, tmp_path):
    train(data, "BigramLM")
    assert "Next: drakegpt export page --data small" in drakegpt("compare").err


def test_a_run_that_is_not_finished_is_refused_with_what_finishes_it(drakegpt, data, tmp_path):
    run = create_run(resolve("BigramLM", "default", data.name, {"iters": 10}), data, "half")
    record(run, until=3, save=True)
    refused = drakegpt("export", "page", "half", "--output", tmp_path / "page.html")
    assert refused.code == 1
    assert "half is not finished." in refused.err
    assert "drakegpt train --resume half" in refused.err
    assert not (tmp_path / "page.html").exists()


def test_runs_of_two_texts_are_two_pages(drakegpt, data, tmp_path):
    other = prepare(corpus_with_stanzas().upper(), "other")
    for each in (data, other):
        train(each, "BigramLM", name=f"on-{each.name}")
    refused = drakegpt("export", "page", "on-small", "on-other", "--output", tmp_path / "p.html")
    assert refused.code == 2
    assert "on-other was trained on 'other', another text than 'small'." in refused.err


def test_a_page_that_is_too_large_is_refused(drakegpt, data, tmp_path, monkeypatch):
    train(data, "TransformerLM", name="large")
    monkeypatch.setattr(live, "LARGEST", 1000)
    refused = drakegpt("export", "page", "large", "--output", tmp_path / "p.html")
    assert refused.code == 2
    assert "--precision int8" in refused.err
    assert not (tmp_path / "p.html").exists()


def test_a_file_of_ones_own_is_not_replaced_but_an_old_page_is(drakegpt, data, tmp_path):
    train(data, "BigramLM")
    path = tmp_path / "mine.html"
    path.write_text("mine")
    refused = drakegpt("export", "page", "--output", path)
    assert refused.code == 2
    assert "--output" in refused.err
    assert path.read_text() == "mine"
    for force in (["--force"], []):
        assert drakegpt("export", "page", "--output", path, *force).code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--text", "a", "--text-file", "b"], "the same"),
        (["--text-file", "missing.txt"], "cannot be read"),
        (["--text", "a" * 3000], "2,000"),
    ],
)
def test_a_text_that_cannot_be_is_refused_before_anything_is_done(
    drakegpt, data, tmp_path, options, said
):
    train(data, "BigramLM")
    refused = drakegpt("export", "page", *options, "--output", tmp_path / "p.html")
    assert refused.code == 2
    assert said in refused.err
    assert list(tmp_path.glob("*.html")) == []


def test_a_text_of_a_file_is_what_the_views_begin_with(drakegpt, data, tmp_path):
    train(data, "BigramLM")
    (tmp_path / "t.txt").write_text("the fox\nruns", encoding="utf-8")
    path = tmp_path / "p.html"
    shown = drakegpt("export", "page", "--text-file", tmp_path / "t.txt", "--output", path)
    assert shown.code == 0, shown.err
    assert r'"text":"the fox\nruns"' in path.read_text(encoding="utf-8")
