"""Models trained on texts whose best possible loss is known."""

import itertools
import math
from collections import Counter

import pytest
from learning import train
from markov import known_loss, markov_dataset

from drakegpt.runs.scores import score_run

FEW = {"eval_interval": 500, "eval_iters": 2}


def test_bigram_reaches_the_loss_of_the_counted_bigram(prepared):
    """The optimum in closed form: the entropy of the next character given the current one."""
    text = prepared.text("train", 10**6)
    pairs = Counter(itertools.pairwise(text))
    firsts = Counter(text[:-1])
    counted = -sum(n * math.log(n / firsts[a]) for (a, _), n in pairs.items()) / sum(pairs.values())
    scores = score_run(
        train(prepared, "BigramLM", iters=3000, batch_size=128, base_lr=0.01, max_lr=0.1, **FEW)
    )
    assert scores.train.tokens == sum(pairs.values())
    # Never below: no bigram model can beat the counts on the text they were counted on.
    assert counted - 1e-6 <= scores.train.loss < counted + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("model", ["TransformerLM", "ResidualBlocksLM"])
def test_a_markov_source_is_learnt_to_its_entropy(model):
    scores = score_run(
        train(markov_dataset(300_000), model, iters=2500, batch_size=64, dropout=0.0, **FEW)
    )
    assert scores.val.tokens == 30_000
    assert scores.val.loss == pytest.approx(known_loss(8), abs=0.02)


def test_a_bigram_cannot_learn_it():
    data = markov_dataset(50_000)
    scores = score_run(
        train(data, "BigramLM", iters=1000, batch_size=128, base_lr=0.01, max_lr=0.05, **FEW)
    )
    assert scores.val.loss == pytest.approx(math.log(4), abs=0.02)
