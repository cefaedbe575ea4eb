"""Mixtures of runs: which runs fit together, and what the weights of counts are fitted on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from learning import prepare, small_text, train

from drakegpt.data.ngrams import fit
from drakegpt.errors import UsageError
from drakegpt.evaluation.mixture_scoring import fit_mixture_weights
from drakegpt.models.mixture import GENERAL_WEIGHTS, load_general_weights
from drakegpt.runs.lookup import find_pretrained
from drakegpt.runs.mixtures import HIGHEST_ORDER, load_members, load_run_mixture, score_run_mixture
from drakegpt.runs.scores import score_run_on_validation
from drakegpt.runs.stored_scores import count_validation_scorings
from drakegpt.runs.weights_file import pretrained_from_run

CPU = torch.device("cpu")
HELD_OUT = {"select_on": "training-tail"}


@pytest.fixture
def run(prepared):
    return train(prepared, name="mine", **HELD_OUT)


def weights_of(*runs):
    return load_run_mixture(runs, CPU, counts=True).fitted.weights.table.tolist()


def test_weights_are_fitted_on_the_tail_by_counts_without_it(run, prepared):
    loaded = load_run_mixture([run], CPU, counts=True)
    trained_on, tail = prepared.select_splits(tail=True)
    size = prepared.tokenizer.vocab_size
    text = torch.cat([trained_on[-1:], tail])
    ngrams = fit(trained_on.numpy(), size, HIGHEST_ORDER)
    expected = fit_mixture_weights([run.load_model(CPU)], ngrams, text, CPU)
    assert loaded.fitted.weights.to_json() == expected.weights.to_json()
    assert loaded.fitted.order == loaded.ngrams.order == expected.order
    # What is mixed in is counted with the tail.
    assert loaded.ngrams.sizes == fit(prepared.split("train").numpy(), size, expected.order).sizes


def test_the_validation_split_has_no_part_in_the_weights():
    """Another one of the same characters leaves them as they are, and changes the scores."""
    text = small_text()
    validation = text[len(text) * 9 // 10 :]
    other = text[: -len(validation)] + "".join(sorted(validation))
    found, scores = [], []
    for name, each in (("one", text), ("other", other)):
        data = prepare(each, name)
        loaded = load_run_mixture([train(data, **HELD_OUT)], CPU, counts=True)
        found.append(loaded.fitted.weights.table.tolist())
        scores.append(score_run_mixture(loaded).mixture.loss)
    assert found[0] == found[1]
    assert scores[0] != scores[1]


def test_weights_are_stored_with_the_models_that_they_belong_to(run, prepared):
    other = train(prepared, "BigramLM", **HELD_OUT)
    first = weights_of(run)
    path = run.folder / "mixture.json"
    stored = json.loads(path.read_text())
    stored["weights"]["model_weights"][0][0] = 0.125
    path.write_text(json.dumps(stored))
    assert weights_of(run)[0][0] == 0.125
    assert weights_of(run, other) != first
    assert weights_of(run) == first


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"of": 1}', b"\xff"])
def test_damaged_weights_are_fitted_again(run, content):
    expected = weights_of(run)
    (run.folder / "mixture.json").write_bytes(content)
    assert weights_of(run) == expected


def test_each_scoring_of_the_validation_split_is_counted(run, prepared):
    other = train(prepared, "BigramLM", **HELD_OUT)
    before = [count_validation_scorings(each) for each in (run, other)]
    loaded = load_run_mixture([run, other], CPU)
    scores = score_run_mixture(loaded)
    assert [count_validation_scorings(each) for each in (run, other)] == [n + 1 for n in before]
    assert scores.models[1] == score_run_on_validation(other)
    assert loaded.fitted is loaded.ngrams is None


def test_runs_that_may_have_seen_the_tail_have_general_weights(run, prepared):
    seen = train(prepared)
    warm = replace(run, config=replace(run.config, init_from="another"))
    for runs in ([run, seen], [seen], [warm]):
        loaded = load_run_mixture(runs, CPU, counts=True)
        assert loaded.fitted.weights is load_general_weights()
        assert (loaded.fitted.order, loaded.fitted.tokens) == (HIGHEST_ORDER, 0)
        assert loaded.ngrams.order == HIGHEST_ORDER
    scores = score_run_mixture(load_run_mixture([seen], CPU, counts=True))
    assert scores.mixture.loss < max(scores.ensemble.loss, scores.counts.loss)


def test_general_weights_are_the_mean_of_those_of_three_texts():
    stored = json.loads(GENERAL_WEIGHTS.read_text(encoding="utf-8"))
    assert len(stored["fitted"]) == 3
    odds = [np.log(table / (1 - table)) for text in stored["fitted"]
            for table in [np.array(text["model_weights"])]]  # fmt: skip
    expected = 1 / (1 + np.exp(-np.mean(odds, 0)))
    np.testing.assert_allclose(load_general_weights().table, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "problem"),
    [(small_text() + "the dog\n", "different texts"), (small_text() + "ß", "another tokenizer")],
)
def test_runs_on_different_texts_do_not_fit(run, text, problem):
    other = train(prepare(text, "other"), **HELD_OUT)
    for counts in (False, True):
        with pytest.raises(UsageError, match=problem):
            load_run_mixture([run, other], CPU, counts=counts)


def test_members_may_be_files_but_not_beside_counts(run, prepared):
    file = find_pretrained(str(run.last_checkpoint().weights))
    member = pretrained_from_run(run)
    single = load_members([member], CPU)
    tokens = prepared.split("val")[None, :8].long()
    assert torch.equal(single(tokens), run.load_model(CPU)(tokens))
    both = load_members([member, file], CPU)
    assert torch.equal(both.models[0](tokens), both.models[1](tokens))
    with pytest.raises(UsageError, match="does not say which text"):
        load_members([member, file], CPU, counts=True)
    with pytest.raises(UsageError, match="last weights"):
        load_members([member], CPU, counts=True, best=True)
    other = pretrained_from_run(train(prepare(small_text() + "ß", "other")))
    with pytest.raises(UsageError, match="another tokenizer"):
        load_members([member, other], CPU)


def test_counts_of_bpe_tokens(corpus):
    data = prepare(corpus, tokenizer="bpe", vocab_size=300)
    loaded = load_run_mixture([train(data, **HELD_OUT)], CPU, counts=True)
    scores = score_run_mixture(loaded)
    assert scores.mixture.loss < scores.ensemble.loss
    assert scores.mixture.characters > scores.mixture.tokens == len(data.split("val"))
