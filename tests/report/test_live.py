"""What a live page holds: which models, how they are rounded, their losses, and texts to guess."""

import json
import math

import pytest
import torch
from learning import prepare, train
from report_pages import corpus_with_stanzas, page_of

from drakegpt.data.reencode import encode_as_bpe
from drakegpt.errors import UsageError
from drakegpt.evaluation.scoring import score_validation_split
from drakegpt.experiments.agreement import select_others, select_runs
from drakegpt.experiments.ladder import arrange_runs, compare
from drakegpt.models.registry import MODELS
from drakegpt.report import live as live_module
from drakegpt.report.embedded_model import round_weights_
from drakegpt.report.engine_files import read_views
from drakegpt.report.explanations import DROPPING, describe_idea
from drakegpt.report.live import MOST_CHARACTERS, make_live
from drakegpt.report.samples import generate_samples
from drakegpt.runs.packing import pack_run

CPU = torch.device("cpu")


def live_of(data, *named, **given):
    """The parts of a live page of these runs, or of all on a dataset, and what its JSON says."""
    selection = arrange_runs(named) if named else None
    runs = selection.runs if named else select_runs(data)
    others = selection.others if named else select_others(data)
    comparison = compare(data, runs, others=others)
    together = [*runs.values(), *others]
    samples = generate_samples([first for first, *_ in together])
    live = make_live(data, comparison, together, samples, **given)
    return live, json.loads(live.models)


@pytest.fixture
def data():
    return prepare(corpus_with_stanzas())


def test_small_models_are_kept_as_they_are_and_many_weights_are_rounded(data, monkeypatch):
    run = train(data, "TransformerLM")
    _, page = live_of(data)
    (model,) = page["models"]
    assert model["precision"] == "float32"
    assert {tensor["type"] for tensor in model["tensors"]} >= {"float32"}
    monkeypatch.setattr(live_module, "ROUNDED_FROM", 10_000)
    _, page = live_of(data)
    (rounded,) = page["models"]
    assert rounded["precision"] == "int8"
    assert {tensor["type"] for tensor in rounded["tensors"]} == {"int8", "float16", "float32"}
    assert len(rounded["base64"]) < 0.4 * len(model["base64"])
    assert (
        rounded["parameters"]
        == model["parameters"]
        == sum(p.numel() for p in run.load_model(CPU).parameters())
    )


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_the_loss_beside_a_model_is_that_of_the_weights_in_the_page(data, precision):
    run = train(data, "TransformerLM", iters=60, eval_interval=60)
    _, page = live_of(data, precision=precision)
    model = round_weights_(run.load_model(CPU), precision)
    expected = score_validation_split(model, data, CPU).bits_per_character
    assert page["models"][0]["bits"] == pytest.approx(expected, rel=1e-6)
    plain = score_validation_split(run.load_model(CPU), data, CPU).bits_per_character
    assert (expected == plain) == (precision == "float32")


def test_a_packed_run_stays_packed_whatever_is_asked(data):
    run = pack_run(train(data, "TransformerLM"), "1.58", None)
    _, page = live_of(data, run, precision="int8")
    assert page["models"][0]["precision"] == "ternary"


def test_rungs_are_rounded_alike_and_models_beside_them_each_for_itself(data, monkeypatch):
    monkeypatch.setattr(live_module, "ROUNDED_FROM", 20_000)
    rungs = [train(data, model) for model in ("BigramLM", "BlocksLM", "ResidualBlocksLM")]
    other = train(data, "GPT1LM", embedding_dim=8, num_heads=2)
    _, page = live_of(data, *rungs, other)
    kept = {model["name"]: model["precision"] for model in page["models"]}
    assert [kept[run.name] for run in rungs] == ["float16", "int8", "int8"]
    assert kept[other.name] == "float32"
    assert [model["rung"] for model in page["models"]] == [1, 4, 5, None]


def test_of_the_models_beside_the_ladder_the_best_is_in_the_page(data):
    train(data, "BigramLM")
    train(data, "GPT1LM", preset="gpt1-small", embedding_dim=8, num_heads=2)
    best = train(data, "GPT1LM", embedding_dim=16, num_heads=2, iters=80, eval_interval=80)
    _, page = live_of(data)
    assert [model["name"] for model in page["models"]][1:] == [best.name]


def test_an_idea_names_dropping_where_something_was_dropped(data):
    idea = MODELS["TransformerLM"].idea
    assert idea.endswith(DROPPING)
    without = train(data, "TransformerLM", dropout=0.0)
    assert describe_idea(without) == idea.removesuffix(DROPPING)
    assert describe_idea(train(data, "TransformerLM", dropout=0.1)) == idea
    other = train(data, "GPT1LM", dropout=0.0, embedding_dropout=0.0)
    assert describe_idea(other) == f"{MODELS['GPT1LM'].idea} (here nothing is dropped)"


def test_what_does_not_fit_is_left_out_or_refused_if_it_was_named(data, monkeypatch, caplog):
    small, large = train(data, "BigramLM"), train(data, "TransformerLM")
    monkeypatch.setattr(live_module, "LARGEST", 50_000)
    live, page = live_of(data)
    assert [model["name"] for model in page["models"]] == [small.name]
    assert live.count == 1
    assert caplog.messages == [f"1 model not in the page: {large.name}, which is too large"]
    with pytest.raises(UsageError, match="are the most") as refused:
        live_of(data, small, large, all_of_them=True)
    assert "--precision int8" in refused.value.fix


def test_one_model_of_several_rows_has_no_view_of_one_step(data, monkeypatch, tmp_path):
    train(data, "BigramLM")
    train(data, "TransformerLM")
    monkeypatch.setattr(live_module, "LARGEST", 50_000)
    live, _ = live_of(data)
    text = page_of(data, tmp_path / "page.html", live=live).text
    assert 'id="ladder"' in text
    assert 'data-view="ladder"' not in text


def test_a_model_of_ones_own_is_not_in_the_page_and_refused_if_named(data, monkeypatch, caplog):
    own, known = train(data, "SingleHeadAttentionLM"), train(data, "TransformerLM")
    monkeypatch.setattr(live_module, "is_built_in", lambda name: name == "TransformerLM")
    _, page = live_of(data)
    assert [model["name"] for model in page["models"]] == [known.name]
    told = f"1 model not in the page: {own.name}, which is one of your own"
    assert caplog.messages == [told]
    with pytest.raises(UsageError, match="a model of your own") as refused:
        live_of(data, own, known, all_of_them=True)
    assert "--static" in refused.value.fix


def test_without_a_model_that_can_be_in_it_a_page_is_static(data, monkeypatch):
    train(data, "BigramLM")
    monkeypatch.setattr(live_module, "is_built_in", lambda _: False)
    comparison = compare(data, select_runs(data))
    together = list(select_runs(data).values())
    samples = generate_samples([first for first, *_ in together])
    assert make_live(data, comparison, together, samples) is None


@pytest.mark.parametrize("named", [False, True])
def test_a_model_that_diverged_is_not_in_the_page(data, monkeypatch, caplog, named):
    train(data, "BigramLM")
    diverged = train(data, "TransformerLM")
    found = compare(data, select_runs(data))
    rows = [row if diverged.name not in row.runs else make_infinite(row) for row in found.rows]
    monkeypatch.setattr("drakegpt.experiments.ladder.add_gains", tuple)
    comparison = type(found)(**{**vars(found), "rows": tuple(rows)})
    together = list(select_runs(data).values())
    samples = generate_samples([first for first, *_ in together])
    live = make_live(data, comparison, together, samples, all_of_them=named)
    assert diverged.name not in [model["name"] for model in json.loads(live.models)["models"]]
    told = f"1 model not in the page: {diverged.name}, which has diverged"
    assert caplog.messages == [told]


def make_infinite(row):
    results = tuple(
        type(each)(**{**vars(each), "val_loss": math.nan, "bits_per_character": math.nan})
        for each in row.results
    )
    return type(row)(**{**vars(row), "results": results})


def test_runs_with_other_tokenizers_keep_their_own(data):
    tokens = encode_as_bpe(data, 300)
    runs = [train(data, "TransformerLM"), train(tokens, "TransformerLM")]
    _, page = live_of(data, *runs, all_of_them=True)
    kinds = [page["tokenizers"][model["tokenizer"]]["kind"] for model in page["models"]]
    assert sorted(kinds) == ["bpe", "char"]
    assert page["tokenizers"][0]["kind"] == "char"  # of the dataset, whose n-grams are counted


def test_the_text_to_guess_is_held_out_and_stands_nowhere_else(data):
    train(data, "BigramLM")
    _, page = live_of(data)
    hidden = page["heldOut"]["text"]
    val = data.text("val", 10**6)
    assert hidden in val
    assert (page["heldOut"]["before"] + hidden) in val
    assert len(hidden) >= live_module.LEAST_TO_GUESS
    assert hidden[:60] not in page["text"]


def test_of_a_held_out_text_that_is_too_short_nothing_is_to_be_guessed(tmp_path):
    data = prepare("abc def\n" * 30)
    train(data, "BigramLM")
    live, page = live_of(data)
    assert page["heldOut"] is None
    assert not live.can_guess
    text = page_of(data, tmp_path / "page.html", live=live).text
    assert 'id="attention"' in text
    assert 'id="guess"' not in text


def test_a_model_of_tokens_takes_no_part_in_guessing_characters(data):
    run = train(encode_as_bpe(data, 300), "TransformerLM")
    live, page = live_of(data, run)
    assert page["heldOut"]
    assert not live.can_guess


def test_a_text_of_ones_own_is_what_the_views_begin_with(data):
    train(data, "BigramLM")
    _, page = live_of(data, text="the lazy fox")
    assert (page["text"], page["before"]) == ("the lazy fox", "")


def test_counts_are_a_baseline_of_the_report(data):
    train(data, "BigramLM")
    comparison = compare(data, select_runs(data))
    _, page = live_of(data)
    scored = {b.order: b.score.bits_per_character for b in comparison.baselines}
    assert page["counts"]["bits"] == scored[page["counts"]["order"]]
    best = page["counts"]["full"]
    assert best["bits"] == min(scored.values()) == scored[best["order"]]


def test_a_text_is_entered_up_to_the_same_length_in_the_page():
    assert f"const MOST_TEXT = {MOST_CHARACTERS};" in read_views()


def test_a_page_of_one_model_has_no_ladder(drakegpt, data, tmp_path):
    """That of `compare` names the others and how they are trained, but has no view of one step."""
    run = train(data, "TransformerLM")
    path = tmp_path / "one.html"
    assert drakegpt("export", "page", run.name, "--output", path).code == 0
    alone = path.read_text(encoding="utf-8")
    assert "<h1>TransformerLM on “<bdi>small</bdi>”</h1>" in alone
    assert 'id="ladder"' not in alone
    assert 'id="write"' in alone
    assert "Look for what it gets right and what it does not" in alone
    assert "under another" not in alone
    live, _ = live_of(data)
    told = page_of(data, tmp_path / "compared.html", live=live).text
    assert told.count("Train it with <code>") == 5
    assert 'data-view="ladder"' not in told
    train(data, "BigramLM")
    live, _ = live_of(data)
    assert 'data-view="ladder"' in page_of(data, tmp_path / "two.html", live=live).text


def test_the_same_runs_give_the_same_bytes(data, tmp_path):
    train(data, "TransformerLM")
    pages = []
    for name in ("a.html", "b.html"):
        live, _ = live_of(data)
        pages.append(page_of(data, tmp_path / name, live=live).path.read_bytes())
    assert pages[0] == pages[1]
    assert live.models.encode()[:100] in pages[0]
