"""Where a loss stands, against the scores that the parts have elsewhere."""

import pytest
import torch
from learning import CPU, prepare, small_text

from drakegpt.config import resolve
from drakegpt.data.ngrams import fit
from drakegpt.evaluation.baseline import score_ngram_baselines
from drakegpt.evaluation.mixture_scoring import FittedWeights, score_mixture
from drakegpt.evaluation.scoring import get_validation_tokens, score_tokens
from drakegpt.evaluation.standing import LONG_CONTEXT, measure_standing
from drakegpt.models.mixture import Mixture, WeightedCounts, load_general_weights
from drakegpt.models.registry import build_model


@pytest.fixture
def data():
    return prepare(small_text())


def new_model(data, **settings):
    config = resolve("TransformerLM", "default", data.name, settings)
    torch.manual_seed(3)
    return build_model(config.model_settings(data.tokenizer.vocab_size))


@pytest.mark.parametrize(("context_length", "order"), [(8, 8), (2, 8), (8, 4)])
def test_each_figure_is_that_of_its_own_score(data, context_length, order):
    model, tokens = new_model(data, context_length=context_length), get_validation_tokens(data)
    counts = fit(data.split("train").numpy(), data.tokenizer.vocab_size, 8)
    weights = load_general_weights()
    found = measure_standing(model, tokens, CPU, counts, FittedWeights(order, weights))
    assert found.tokens == len(tokens) - 1
    assert found.loss == pytest.approx(score_tokens(model, tokens, data.tokenizer, CPU).loss)
    baselines = score_ngram_baselines(data, context_length, 8)
    assert [each.order for each in found.countings] == [each.order for each in baselines]
    for counting, baseline in zip(found.countings, baselines, strict=True):
        assert counting.loss == pytest.approx(baseline.score.loss)
        assert counting.ngrams == baseline.ngrams
    weighted = WeightedCounts(fit(data.split("train").numpy(), counts.vocab_size, order), weights)
    mixture = score_mixture(Mixture((model,), weighted), tokens, data.tokenizer, CPU).mixture
    assert found.mixture == pytest.approx(mixture.loss)
    long = score_ngram_baselines(data, LONG_CONTEXT, 8)
    assert found.long_counting == pytest.approx(min(each.score.loss for each in long))


def test_the_share_of_right_guesses_is_counted_token_by_token(data):
    model, tokens = new_model(data), get_validation_tokens(data)[:201].long()
    right = 0
    with torch.no_grad():
        model.eval()
        for start in range(0, 200, 8):
            window = tokens[start : start + 8]
            guesses = model(window[None])[0].argmax(-1)
            right += int((guesses == tokens[start + 1 : start + 1 + len(window)]).sum())
    assert measure_standing(model, tokens, CPU).right == right / 200


def test_without_counts_nothing_is_counted(data):
    found = measure_standing(new_model(data, context_length=80), get_validation_tokens(data), CPU)
    assert (found.countings, found.lowest_counting) == ((), None)
    assert (found.mixture, found.long_counting) == (None, None)


def test_a_model_with_a_long_context_is_compared_in_its_own_windows_only(data):
    counts = fit(data.split("train").numpy(), data.tokenizer.vocab_size, 3)
    model = new_model(data, context_length=LONG_CONTEXT)
    assert measure_standing(model, get_validation_tokens(data), CPU, counts).long_counting is None
