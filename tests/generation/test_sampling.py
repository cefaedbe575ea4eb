import itertools
import math
from dataclasses import replace

import pytest
import torch

from drakegpt.config import LADDER, MODEL_NAMES, preset_model
from drakegpt.errors import RunError
from drakegpt.generation.sampling import (
    Sampling,
    _draw_gumbel_noise,
    compute_probabilities,
    generate,
    generate_batch,
    sample_tokens,
)
from drakegpt.models import reference as textbook
from drakegpt.models.registry import build_model
from drakegpt.runs.upstream import convert_state_dict

LOGITS = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()


def model_of(name="TransformerLM"):
    torch.manual_seed(1)
    return build_model(preset_model(name, "default", 20)).eval()


def test_temperature_one_leaves_the_probabilities_alone():
    assert compute_probabilities(LOGITS, Sampling()).tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_temperature_divides_the_scores():
    squared = [p * p for p in (0.4, 0.3, 0.2, 0.1)]
    expected = [p / sum(squared) for p in squared]
    assert compute_probabilities(LOGITS, Sampling(temperature=0.5)).tolist() == pytest.approx(
        expected
    )


@pytest.mark.parametrize("temperature", [1e-8, 1e-40, 1e8])
def test_extreme_temperatures_stay_probabilities(temperature):
    result = compute_probabilities(LOGITS, Sampling(temperature=temperature))
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
    assert compute_probabilities(LOGITS, sampling).tolist() == pytest.approx(expected)


def test_top_p_of_one_cuts_nothing():
    """Not even what is lost beside 1 in float32."""
    logits = torch.tensor([[0.0, -20, -30]])
    assert 1 + logits.exp()[0, 1] == 1
    sampling = Sampling(top_p=1.0)
    assert torch.equal(compute_probabilities(logits, sampling), logits.softmax(-1))
    noise = torch.tensor([[0.0, 0, 40]])
    assert sample_tokens(logits, sampling, noise).item() == 2


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.999])
def test_small_probabilities_add_up(top_p):
    """As many tokens of a large vocabulary stay as exact sums say."""
    logits = torch.randn(1, 100_000, generator=torch.Generator().manual_seed(1))
    # Ranked first: the softmax of another order rounds differently on some processors.
    chances = logits[0].sort(descending=True).values.softmax(-1).tolist()
    before = [0.0, *itertools.accumulate(chances[:-1])]
    expected = sum(sum_ < top_p for sum_ in before)
    assert (compute_probabilities(logits, Sampling(top_p=top_p)) > 0).sum().item() == expected


def test_rows_are_distributions_of_their_own():
    rows = torch.stack([LOGITS, LOGITS.flip(0)])
    for sampling in (Sampling(), Sampling(0.5), Sampling(top_k=2), Sampling(0.7, 3, 0.5)):
        single = [compute_probabilities(row, sampling).tolist() for row in rows]
        assert compute_probabilities(rows, sampling).tolist() == [pytest.approx(p) for p in single]


def test_temperature_zero_is_certain():
    assert compute_probabilities(LOGITS, Sampling(temperature=0)).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.4, 0.3, 0.2, 0.1]),
        (Sampling(temperature=0.5), [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        (Sampling(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (Sampling(top_p=0.75), [4 / 9, 3 / 9, 2 / 9, 0]),
    ],
)
def test_draws_follow_the_distribution(sampling, expected):
    noise = next(_draw_gumbel_noise(range(4000), 4))
    draws = sample_tokens(LOGITS.expand(4000, -1), sampling, noise).flatten().tolist()
    for token, p in enumerate(expected):
        spread = math.sqrt(p * (1 - p) / 4000)
        assert draws.count(token) / 4000 == pytest.approx(p, abs=4 * spread)


def test_a_model_that_sees_one_token_draws_by_its_table():
    model = model_of("BigramLM")
    with torch.no_grad():
        model.table.weight[:, :4] = LOGITS
        model.table.weight[:, 4:] = -torch.inf
    draws = list(generate(model, [3], 4000, Sampling(), seed=0))
    for token, p in enumerate((0.4, 0.3, 0.2, 0.1)):
        spread = math.sqrt(p * (1 - p) / 4000)
        assert draws.count(token) / 4000 == pytest.approx(p, abs=4 * spread)


def test_what_is_impossible_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0]]).expand(500, -1)
    noise = next(_draw_gumbel_noise(range(500), 4))
    assert noise.isfinite().all()
    assert set(sample_tokens(logits, Sampling(), noise).flatten().tolist()) == {1, 3}
    for sampling in (Sampling(top_k=1), Sampling(temperature=1e-30), Sampling(top_p=0.1)):
        assert set(sample_tokens(LOGITS.expand(500, -1), sampling, noise).flatten().tolist()) == {0}


def pair_of(name):
    """The textbook's model and ours, with the same weights: large matrices, for lively texts."""
    torch.manual_seed(2)
    config = preset_model(name, "default", 20)
    reference = textbook.ReferenceLM(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter *= 3 if parameter.dim() > 1 else 1
    model = build_model(config).eval()
    model.load_state_dict(convert_state_dict(reference.state_dict(), config), strict=False)
    return reference, model


def lively(name):
    """A model whose scores depend on all that it sees."""
    torch.manual_seed(2)
    model = build_model(preset_model(name, "default", 20)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("name", LADDER)
@pytest.mark.parametrize("prompt", [[3, 1], [7, 4, 3, 3, 9, 0, 11, 12, 2, 5, 19]])
def test_greedy_text_equals_the_textbook_loop(name, prompt):
    """Past the context too, where the window slides one token at a time."""
    reference, model = pair_of(name)
    window = torch.tensor([prompt])
    with torch.no_grad():
        for _ in range(60):
            logits = reference(window[:, -reference.context_length :])[:, -1]
            window = torch.cat([window, logits.argmax(-1, keepdim=True)], dim=1)
    expected = window[0, len(prompt) :].tolist()
    assert list(generate(model, prompt, 60, Sampling(temperature=0), seed=0)) == expected
    assert len(set(expected)) > 1 or name == "BigramLM"


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.parametrize("prompt", [[3, 1], list(range(11))])
def test_cached_text_equals_dropping_half_and_starting_anew(name, prompt):
    model = pair_of(name)[1] if name in LADDER else lively(name)
    T = model.config.context_length
    window, expected = prompt[-T:], []
    with torch.no_grad():
        for _ in range(60):
            if len(window) > T:
                window = window[-(T // 2) :]
            expected.append(int(model(torch.tensor([window]))[0, -1].argmax()))
            window = [*window, expected[-1]]
    greedy = Sampling(temperature=0)
    assert list(generate(model, prompt, 60, greedy, 0, "cached")) == expected


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.parametrize("window", ["exact", "cached"])
@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(), Sampling(0.8, 10, 0.9)])
def test_a_batch_writes_what_each_seed_writes_alone(name, window, sampling):
    model = model_of(name)
    seeds = [5, 6, 7]
    together = zip(*generate_batch(model, [3, 1], 40, sampling, seeds, window), strict=True)
    alone = [tuple(generate(model, [3, 1], 40, sampling, seed, window)) for seed in seeds]
    assert list(together) == alone
    assert len(set(alone)) == (1 if sampling.temperature == 0 else 3)


def test_the_window_is_cached_where_the_context_is_long():
    torch.manual_seed(3)
    for context_length, window in ((31, "exact"), (32, "cached")):
        config = replace(
            preset_model("TransformerLM", "default", 20), context_length=context_length
        )
        model = build_model(config).eval()
        texts = {
            which: list(generate(model, [1], 100, Sampling(), 0, which))
            for which in ("auto", "exact", "cached")
        }
        assert texts["auto"] == texts[window]
        assert texts["exact"][:context_length] == texts["cached"][:context_length]
        assert texts["exact"] != texts["cached"]


@pytest.mark.parametrize("name", ["BigramLM", "TransformerLM"])
def test_scores_that_are_not_numbers_are_an_error(name):
    model = model_of(name)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(RunError, match="NaN"):
        list(generate(model, [1], 3, Sampling(), 0))


@pytest.mark.parametrize("name", ["BigramLM", "TransformerLM"])
def test_writing_leaves_gradients_on_for_who_listens(name):
    for _ in generate(model_of(name), [1], 12, Sampling(), 0):
        assert torch.is_grad_enabled()


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


@pytest.mark.parametrize("name", ["BigramLM", "TransformerLM"])
@pytest.mark.parametrize("start", [0, 5])
def test_what_an_empty_prompt_stands_for_has_not_occurred(name, start):
    """So it is not penalised, as a prompt of the same token is."""
    model = model_of(name)
    head = model.table if name == "BigramLM" else model.head
    with torch.no_grad():
        head.weight.zero_()
        (head.weight if name == "BigramLM" else head.bias)[..., start] = 2.0
        if name != "BigramLM":
            head.bias[6] = 1.0
        else:
            head.weight[:, 6] = 1.0
    greedy = Sampling(temperature=0, repetition_penalty=10.0)
    assert list(generate(model, [], 2, greedy, 0, start=start)) == [start, 6]
    assert list(generate(model, [start], 1, greedy, 0)) == [6]


def test_a_long_prompt_counts_by_its_end():
    model = model_of()
    tail = [5, 4, 3, 2, 1, 0, 7, 8]
    assert list(generate(model, [9] * 50 + tail, 10, Sampling(), 3)) == list(
        generate(model, tail, 10, Sampling(), 3)
    )


@pytest.mark.parametrize("name", ["BigramLM", "TransformerLM"])
def test_length_zero_writes_nothing(name):
    assert list(generate(model_of(name), [1], 0, Sampling(), 3)) == []
    assert list(generate_batch(model_of(name), [1], 0, Sampling(), [3, 4])) == []
