"""Texts written ahead in blocks are those written token by token: on a GPU, and from tapes."""

import gc
import itertools
import math
from dataclasses import replace
from itertools import islice

import pytest
import torch

from drakegpt.config import preset_model
from drakegpt.data.tokenizers.bpe import END, BPETokenizer
from drakegpt.errors import RunError
from drakegpt.generation import graph, sampling
from drakegpt.generation.sampling import Sampling, generate, generate_batch
from drakegpt.generation.text import generate_texts
from drakegpt.models.registry import build_model

VOCABULARY = 20
SAMPLINGS = [
    Sampling(temperature=0),
    Sampling(),
    Sampling(0.7),
    Sampling(top_k=5),
    Sampling(0.8, 10, 0.9),
    Sampling(top_p=0.8),
    Sampling(repetition_penalty=1.3),
    Sampling(0, None, None, 1.3),
    Sampling(0.9, 6, 0.9, 1.1),
]
each_sampling = pytest.mark.parametrize("how", SAMPLINGS, ids=str)
each_window = pytest.mark.parametrize("window", ["exact", "cached"])
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def gpu(test):
    for mark in on_gpu:
        test = mark(test)
    return test


def lively(name="TransformerLM", context_length=8, vocab_size=VOCABULARY):
    """A model whose scores depend on all that it sees."""
    torch.manual_seed(2)
    config = replace(preset_model(name, "default", vocab_size), context_length=context_length)
    model = build_model(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


class EagerStep:
    def __init__(self, device, step, eager_calls):
        self.step = step

    def __call__(self):
        self.step()


@pytest.fixture
def ahead(monkeypatch):
    """Texts are written token by token until it is called."""
    monkeypatch.setattr(sampling, "_can_record", lambda model: False)
    return lambda: monkeypatch.setattr(sampling, "_can_record", lambda model: True)


@each_sampling
@each_window
def test_texts_are_those_written_token_by_token(window, how, ahead):
    """Over more tokens than noise is sent for at once, and past the context many times."""
    what = (lively(), [3, 1, 4], 300, how, [5, 6, 7], window)
    expected = list(generate_batch(*what))
    ahead()
    assert list(generate_batch(*what)) == expected


@each_window
@pytest.mark.parametrize("context_length", [1, 2, 3, 33])
def test_every_context(window, context_length, ahead):
    model = lively(context_length=context_length)
    what = (model, [3, 1, 4], 550, Sampling(0.9, 6, 0.9, 1.1), [5, 6], window)
    expected = list(generate_batch(*what))
    ahead()
    assert list(generate_batch(*what)) == expected


@pytest.mark.parametrize("name", ["SingleHeadAttentionLM", "BlocksLM", "GPT1LM"])
@pytest.mark.parametrize("prompt", [[], [7], list(range(20))])
def test_every_model_and_prompt(name, prompt, ahead):
    what = (lively(name), prompt, 100, Sampling(0.9, None, 0.95, 1.2), [1], "cached")
    expected = list(generate_batch(*what))
    ahead()
    assert list(generate_batch(*what)) == expected


@pytest.mark.parametrize("length", [0, 1, 2, 9, 10, 256, 257])
@pytest.mark.parametrize("at_once", [1, 3, 256])
def test_every_length(length, at_once, ahead, monkeypatch):
    """Blocks end where the text does, and where the noise does."""
    monkeypatch.setattr(sampling, "TOKENS_PER_DRAW", at_once)
    expected = list(generate(lively(), [3], length, Sampling(), 1))
    assert len(expected) == length
    ahead()
    assert list(generate(lively(), [3], length, Sampling(), 1)) == expected


def test_generation_ahead_may_be_abandoned(ahead):
    what = (lively(), [3], 500, Sampling(), 1)
    expected = list(generate(*what))
    ahead()
    for count in (1, 5, 100):
        assert list(islice(generate(*what), count)) == expected[:count]


def test_texts_end_with_their_documents(ahead):
    tokenizer = BPETokenizer.train(["la la land " * 5], 262)
    model = lively(vocab_size=tokenizer.vocab_size)
    with torch.no_grad():
        model.head.bias[END] += 5
    what = (model, tokenizer, "la", 300, Sampling(), [1, 2, 3])
    expected = ["".join(pieces) for pieces in zip(*generate_texts(*what, stop=True), strict=True)]
    assert len({len(text) for text in expected}) > 1
    ahead()
    found = ["".join(pieces) for pieces in zip(*generate_texts(*what, stop=True), strict=True)]
    assert found == expected


def test_the_host_waits_for_blocks(ahead, monkeypatch):
    """Of 1, 1, 2, 4, 8 ... tokens; each is asked for before the one before it is waited for."""
    events = []
    fetch, wait = graph._Steps.fetch, graph._Block.wait

    def asked(steps, first, end):
        events.append(end - first)
        return fetch(steps, first, end)

    def waited(block):
        result = wait(block)
        events.append(-len(result))
        return result

    monkeypatch.setattr(graph, "BLOCK_SECONDS", math.inf)
    monkeypatch.setattr(graph._Steps, "fetch", asked)
    monkeypatch.setattr(graph._Block, "wait", waited)
    ahead()
    assert len(list(generate(lively(), [3], 600, Sampling(), 1))) == 600
    sizes = [1, *(2**i for i in range(9)), 88]
    steps = zip(sizes[1:], sizes, strict=False)
    expected = [1, *itertools.chain.from_iterable((next_, -size) for next_, size in steps), -88]
    assert events == expected


def test_blocks_stay_small_where_tokens_take_long(ahead, monkeypatch):
    sizes = []
    fetch = graph._Steps.fetch
    monkeypatch.setattr(graph, "BLOCK_SECONDS", 0)
    monkeypatch.setattr(
        graph._Steps,
        "fetch",
        lambda steps, first, end: sizes.append(end - first) or fetch(steps, first, end),
    )
    ahead()
    assert len(list(generate(lively(), [3], 30, Sampling(), 1))) == 30
    assert sizes == [1] * 30


def test_scores_that_are_not_numbers_are_an_error(ahead):
    model = lively()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    ahead()
    with pytest.raises(RunError, match="NaN"):
        list(generate(model, [1], 3, Sampling(), 0))


# --- On a GPU -----------------------------------------------------------------------------------


@gpu
@each_sampling
@each_window
@pytest.mark.parametrize("context_length", [1, 8, 33])
def test_a_graph_writes_what_its_step_writes(window, how, context_length, monkeypatch):
    model = lively(context_length=context_length).cuda()
    what = (model, [3, 1, 4], 600, how, [5, 6, 7], window)
    found = list(generate_batch(*what))
    monkeypatch.setattr(graph, "CapturedStep", EagerStep)
    assert found == list(generate_batch(*what))


@gpu
@each_sampling
@each_window
def test_a_gpu_writes_what_a_cpu_writes(window, how):
    """A text may part where two scores are equal but for rounding: once in 100,000 tokens."""
    model = lively()
    what = ([3, 1, 4], 200, how, [5, 6], window)
    expected = list(generate_batch(model, *what))
    assert list(generate_batch(model.cuda(), *what)) == expected


@gpu
def test_a_graph_goes_with_its_text():
    """Without the help of Python's collector, which knows nothing of a GPU's memory."""
    model = lively().cuda()
    list(generate(model, [3], 100, Sampling(), 1))  # what stays for good is there
    gc.collect()
    gc.disable()
    try:
        before = torch.cuda.memory_allocated()
        for count in (2, 50, 100):
            text = generate(model, [3], 100, Sampling(), 1)
            assert len(list(islice(text, count))) == count
            del text
            assert torch.cuda.memory_allocated() == before
    finally:
        gc.enable()


@gpu
def test_a_step_that_cannot_be_recorded_runs_eagerly(monkeypatch, caplog):
    model, draw = lively().cuda(), sampling.sample_tokens
    expected = list(generate(model, [3], 100, Sampling(), 1))
    graph._warn.cache_clear()

    def waits(logits, how, noise):
        logits.sum().item()
        return draw(logits, how, noise)

    monkeypatch.setattr(sampling, "sample_tokens", waits)
    for _ in range(2):
        assert list(generate(model, [3], 100, Sampling(), 1)) == expected
    assert [record.name for record in caplog.records] == ["drakegpt.generation.graph"]
    monkeypatch.undo()
    assert list(generate(model, [3], 100, Sampling(), 1)) == expected
    torch.nn.functional.dropout(torch.ones(8, device="cuda"), 0.5)  # the generator is in order
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
