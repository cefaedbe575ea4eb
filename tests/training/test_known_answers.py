"""Models trained on texts whose best possible loss is known."""

import itertools
import math
import random
from collections import Counter

import pytest

from drakegpt.config import resolve
from drakegpt.data import dataset
from drakegpt.evaluation.scoring import score
from drakegpt.training.recorder import Recorder
from drakegpt.training.run import create_run


def trained(model, data, **settings):
    run = create_run(resolve(model, "default", data.name, {"eval_iters": 2, **settings}), data)
    with Recorder(run) as recorder:
        list(recorder.reports())
    return score(run)


def test_bigram_reaches_the_loss_of_the_counted_bigram(prepared):
    """The optimum in closed form: the entropy of the next character given the current one."""
    text = prepared.text("train", 10**6)
    pairs = Counter(itertools.pairwise(text))
    firsts = Counter(text[:-1])
    counted = -sum(n * math.log(n / firsts[a]) for (a, _), n in pairs.items()) / sum(pairs.values())
    scores = trained("BigramLM", prepared, iters=3000, batch_size=128, base_lr=0.01, max_lr=0.1)
    assert scores.train.tokens == sum(pairs.values())
    # Never below: no bigram model can beat the counts on the text they were counted on.
    assert counted - 1e-6 <= scores.train.loss < counted + 0.01


# Four letters; the next one is the sum of the last two (mod 4) with probability SURE plus its
# share of the rest, which is uniform.
SURE = 0.8


def markov_text(length):
    chance = random.Random(5)
    text = [0, 1]
    while len(text) < length:
        known = chance.random() < SURE
        text.append((text[-1] + text[-2]) % 4 if known else chance.randrange(4))
    return "".join("abcd"[letter] for letter in text)


def known_loss(context_length):
    """Mean over a window: with one letter known the next is uniform, with two it is H2."""
    right, wrong = SURE + (1 - SURE) / 4, (1 - SURE) / 4
    h2 = -right * math.log(right) - 3 * wrong * math.log(wrong)
    return (math.log(4) + (context_length - 1) * h2) / context_length


@pytest.mark.parametrize("model", ["TransformerLM", "ResidualBlocksLM"])
def test_a_markov_source_is_learnt_to_its_entropy(model):
    data = dataset.prepare(
        markov_text(300_000), name="markov", source="", provenance="", source_sha256=""
    )
    scores = trained(model, data, iters=2500, batch_size=64, dropout=0.0)
    assert scores.val.tokens == 30_000
    assert scores.val.loss == pytest.approx(known_loss(8), abs=0.02)


def test_a_bigram_cannot_learn_it():
    data = dataset.prepare(
        markov_text(50_000), name="markov", source="", provenance="", source_sha256=""
    )
    scores = trained("BigramLM", data, iters=1000, batch_size=128, base_lr=0.01, max_lr=0.05)
    assert scores.val.loss == pytest.approx(math.log(4), abs=0.02)
