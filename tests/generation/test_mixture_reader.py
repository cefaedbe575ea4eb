"""Texts of mixtures: the tokens that averaged probabilities give, one at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from drakegpt.config import preset_model
from drakegpt.data.ngrams import fit
from drakegpt.generation.sampling import Sampling, generate, generate_batch
from drakegpt.models.mixture import FOLLOWERS, OCCURRENCES, Mixture, MixtureWeights, WeightedCounts
from drakegpt.models.registry import build_model

PROMPT = [3, 1, 4, 1, 5]
GREEDY = Sampling(temperature=0)


def model_of(context_length, seed=1, name="TransformerLM"):
    torch.manual_seed(seed)
    config = replace(preset_model(name, "default", 9), context_length=context_length)
    model = build_model(config).eval()
    with torch.no_grad():  # be sure of something else after each text
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


MODELS = model_of(4), model_of(6, seed=2), model_of(8, name="BigramLM")


def counts_of(order):
    random = np.random.default_rng(order)
    table = random.random((len(FOLLOWERS), len(OCCURRENCES)))
    return WeightedCounts(fit(random.integers(9, size=500), 9, order), MixtureWeights(table))


@torch.no_grad()
def continue_greedily(mixture, length):
    """Without readers: each model reads the end of the text again for each token."""
    text = list(PROMPT)
    for _ in range(length):
        each = [
            model(torch.tensor([text[-model.config.context_length :]]))[0, -1].double().softmax(-1)
            for model in mixture.models
        ]
        p = sum(each) / len(each)
        if mixture.counts:
            distribution, *known = mixture.counts.counts.predict_next(text)
            weight = mixture.counts.weights.look_up(*known)
            p = weight * p + (1 - weight) * torch.from_numpy(distribution)
        text.append(int(p.argmax()))
    return text[len(PROMPT) :]


@pytest.mark.parametrize("order", [None, 1, 4])
@pytest.mark.parametrize("models", [MODELS, MODELS[:1], MODELS[2:]], ids=["all", "one", "bigram"])
def test_greedy_texts_are_those_of_a_plain_loop(models, order):
    mixture = Mixture(models, order and counts_of(order))
    found = list(generate(mixture, PROMPT, 30, GREEDY, seed=1, window="exact"))
    assert found == continue_greedily(mixture, 30)
    assert len(set(found)) > 1


@pytest.mark.parametrize("models", [(m,) * 3 for m in MODELS], ids=["short", "long", "bigram"])
def test_an_ensemble_of_equals_writes_what_one_writes(models):
    ask = (PROMPT, 40, Sampling(repetition_penalty=1.0), 7)
    one = Mixture(models[:1])
    assert list(generate(Mixture(models), *ask)) == list(generate(one, *ask))
    if models[0] is not MODELS[2]:  # a single bigram model draws other random numbers
        assert list(generate(models[0], *ask)) == list(generate(one, *ask))


@pytest.mark.parametrize("prompt", [PROMPT, []])
def test_texts_of_a_batch_are_those_of_their_seeds(prompt):
    mixture = Mixture(MODELS, counts_of(3))
    ask = (mixture, prompt, 25, Sampling(0.9, top_k=5, repetition_penalty=1.1))
    together = list(zip(*generate_batch(*ask, [5, 6, 7]), strict=True))
    alone = [tuple(generate(*ask, seed)) for seed in (5, 6, 7)]
    assert together == alone
    assert len(set(alone)) == 3
    assert together == list(zip(*generate_batch(*ask, [5, 6, 7]), strict=True))
