import math

import pytest
from drakegpt.models import textbook
import torch

from drakegpt.config import MODEL_NAMES, preset_model
from drakegpt.generation.sampling import Sampling, choose, generate, probabilities
from drakegpt.models.build import build_model
from drakegpt.models.original import convert

LOGITS = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()


def model_of(name="TransformerLM"):
    torch.manual_seed(1)
    return build_model(preset_model(name, "default", 20)).eval()


def test_temperature_one_leaves_the_probabilities_alone():
    assert probabilities(LOGITS, Sampling()).tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_temperature_divides_the_scores():
    squared = [p * p for p in (0.4, 0.3, 0.2, 0.1)]
    expected = [p / sum(squared) for p in squared]
    assert probabilities(LOGITS, Sampling(temperature=0.5)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1e-8, 1e-40, 1e8])
def test_extreme_temperatures_stay_probabilities(temperature):
    result = probabilities(LOGITS, Sampling(temperature=temperature))
    assert result.sum().item() == pytest.approx(1)
    assert result.argmax() == 0


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(top_k=1), [1, 0, 0, 0]),
        (Sampling(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(top_k=99), [0.4, 0.3, 0.2, 0.1]),
        (Sampling(top_p=0.0), [1, 0, 0, 0]),
        (Sampling(top_p=0.39), [1, 0, 0, 0]),
        (Sampling(top_p=0.5), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(top_p=0.75), [4 / 9, 3 / 9, 2 / 9, 0]),
        (Sampling(top_p=1.0), [0.4, 0.3, 0.2, 0.1]),
        (Sampling(top_k=3, top_p=0.5), [4 / 7, 3 / 7, 0, 0]),
    ],
)
def test_top_k_and_top_p_by_hand(sampling, expected):
    assert probabilities(LOGITS, sampling).tolist() == pytest.approx(expected)


def test_draws_follow_the_distribution():
    chance = torch.Generator().manual_seed(0)
    draws = [choose(LOGITS, Sampling(), chance) for _ in range(4000)]
    for token, p in enumerate((0.4, 0.3, 0.2, 0.1)):
        spread = math.sqrt(p * (1 - p) / 4000)
        assert draws.count(token) / 4000 == pytest.approx(p, abs=4 * spread)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_greedy_text_equals_the_textbook_loop(name):
    """Past the context too, where the window slides one token at a time."""
    torch.manual_seed(2)
    config = preset_model(name, "default", 20)
    reference = textbook.TextbookLM(config).eval()
    model = build_model(config).eval()
    model.load_state_dict(convert(reference.state_dict(), config), strict=False)
    window = torch.tensor([[3, 1]])
    with torch.no_grad():
        while window.shape[1] < 32:
            logits = reference(window[:, -config.context_length :])[:, -1]
            window = torch.cat([window, logits.argmax(-1, keepdim=True)], dim=1)
    written = list(generate(model, [3, 1], 30, Sampling(temperature=0), seed=0))
    assert written == window[0, 2:].tolist()


def test_seeds_decide():
    model = model_of()
    first = list(generate(model, [], 50, Sampling(), seed=1))
    assert first == list(generate(model, [], 50, Sampling(), seed=1))
    assert first != list(generate(model, [], 50, Sampling(), seed=2))


def test_an_empty_prompt_starts_from_token_zero():
    model = model_of()
    assert list(generate(model, [], 20, Sampling(), 3)) == list(
        generate(model, [0], 20, Sampling(), 3)
    )


def test_a_long_prompt_counts_by_its_end():
    model = model_of()
    tail = [5, 4, 3, 2, 1, 0, 7, 8]
    assert list(generate(model, [9] * 50 + tail, 10, Sampling(), 3)) == list(
        generate(model, tail, 10, Sampling(), 3)
    )


def test_length_zero_writes_nothing():
    assert list(generate(model_of(), [1], 0, Sampling(), 3)) == []
