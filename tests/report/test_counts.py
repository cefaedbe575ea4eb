"""N-gram counts that travel in a page: packed in Python, unpacked and used in node."""

import base64
from collections import Counter

import numpy as np
import pytest
from kneser_ney import KneserNey
from markov import markov_dataset, markov_text
from node_engine import needs_node, run_engine

from drakegpt.data.ngrams import fit
from drakegpt.data.sources import fetch
from drakegpt.data.tokenizers.bpe import BPETokenizer
from drakegpt.evaluation.baseline import score_ngram_baselines
from drakegpt.report.counts import pack_counts, pack_tokens

PREDICT = """
return given.map(({ json, contexts }) => {
  const counts = unpackCounts(json);
  return contexts.map((context) => Array.from(predictByCounts(counts, context)));
});
"""
EXPLAIN = PREDICT.replace(
    "Array.from(predictByCounts(counts, context))", "explainCounts(counts, context)"
)


def predict(*cases):
    """The distributions after each context, of several packed counts, in one run of node."""
    given = [{"json": packed.to_json(), "contexts": contexts} for packed, contexts in cases]
    return run_engine(PREDICT, given)


def explain(packed, contexts):
    return run_engine(EXPLAIN, [{"json": packed.to_json(), "contexts": contexts}])[0]


def contexts_of(tokens, vocab_size, chooser, each=8):
    """Contexts from the text, the start and the end of it, of chance, and half of each."""
    found = [[], tokens[:3].tolist(), tokens[-9:].tolist()]
    for size in range(10):
        for _ in range(each):
            start = chooser.integers(max(1, len(tokens) - size))
            known = tokens[start : start + size].tolist()
            chance = chooser.integers(vocab_size, size=size).tolist()
            found += [known, chance, [*chance[: size // 2], *known[size // 2 :]]]
    return found


def bpe_tokens():
    text = "".join(fetch("sample").dataset.iter_text("train"))
    tokenizer = BPETokenizer.train([text], 1000)
    return tokenizer.encode(text), tokenizer.vocab_size, 7


def letters(text):
    return np.array(["abcd".index(letter) for letter in text], np.uint8), 4, 7


TEXTS = {
    "sample": lambda: (fetch("sample").dataset.map_split("train"), 48, 7),
    "markov": lambda: letters(markov_text(20_000)),
    "three characters": lambda: (np.array([1, 0, 1]), 2, 7),
    "one character": lambda: (np.array([2]), 3, 7),
    "one token": lambda: (np.zeros(50, np.uint8), 1, 7),
    "two tokens": lambda: (np.random.default_rng(2).integers(2, size=500), 2, 7),
    "the last of many tokens": lambda: (
        8190 - np.random.default_rng(2).integers(2, size=500),
        8191,
        7,
    ),
    "bpe": bpe_tokens,
}


@needs_node
@pytest.mark.parametrize("name", TEXTS)
def test_the_page_predicts_what_counting_predicts(name):
    tokens, vocab_size, order = TEXTS[name]()
    packed = pack_tokens(tokens, vocab_size, order, 10**7)
    counted = fit(tokens, vocab_size, packed.order)
    few = 1 if vocab_size > 5000 else 8
    contexts = contexts_of(tokens, vocab_size, np.random.default_rng(1), few)
    (found,) = predict((packed, contexts))
    for context, probabilities in zip(contexts, found, strict=True):
        expected = counted.distribution(context)
        assert np.abs(np.array(probabilities) - expected).max() < 1e-12
    known = [counted.predict_next(context).followers > 0 for context in contexts]
    assert any(known)


@needs_node
def test_the_page_predicts_what_dictionaries_do_on_any_small_text():
    """By fractions, and with orders up to the length of the text."""
    chooser = np.random.default_rng(7)
    cases, expected = [], []
    for _ in range(150):
        vocab_size, length = chooser.integers(1, 5), chooser.integers(1, 80)
        tokens = chooser.integers(vocab_size, size=length)
        packed = pack_tokens(tokens, int(vocab_size), int(chooser.integers(1, 6)))
        slow = KneserNey(tokens.tolist(), vocab_size, packed.order)
        contexts = contexts_of(tokens, vocab_size, chooser, 1)[::4]
        cases.append((packed, contexts))
        expected.append(
            [[float(slow.probability(c, w)) for w in range(vocab_size)] for c in contexts]
        )
    for found, right in zip(predict(*cases), expected, strict=True):
        assert np.abs(np.array(found) - np.array(right)).max() < 1e-12


@needs_node
def test_what_is_explained_is_what_a_slow_count_finds():
    tokens, vocab_size, order = letters(markov_text(3000))
    text = tokens.tolist()
    packed = pack_tokens(tokens, vocab_size, order)
    contexts = [text[100:120], text[-6:], text[-1:], [], [3, 3, 3, 3, 3, 3]]
    for context, found in zip(contexts, explain(packed, contexts), strict=True):
        expected = []
        for length in range(min(order, len(context) + 1)):
            last = context[len(context) - length :]
            after = Counter(
                text[at + length]
                for at in range(len(text) - length)
                if text[at : at + length] == last
            )
            if after:
                followers = sorted(after.items(), key=lambda item: (-item[1], item[0]))[:5]
                expected.append(
                    {
                        "order": length + 1,
                        "context": last,
                        "occurrences": after.total(),
                        "different": len(after),
                        "followers": [{"token": w, "count": n} for w, n in followers],
                    }
                )
        assert found == expected


@needs_node
def test_at_most_five_followers_are_named_and_an_unknown_context_has_none():
    packed = pack_tokens(np.array([*range(9), 8, 8, 3, 0, 3]), 12, 3)
    after_nothing, unknown = explain(packed, [[], [8, 11]])
    assert after_nothing == unknown
    (entry,) = unknown
    assert entry["followers"] == [
        {"token": token, "count": count}
        for token, count in [(3, 3), (8, 3), (0, 2), (1, 1), (2, 1)]
    ]
    assert (entry["occurrences"], entry["different"]) == (14, 9)


def test_the_counts_are_those_of_the_baseline_that_models_see():
    data = markov_dataset(2000)
    for context_length, order in [(1, 2), (4, 5), (8, 7)]:
        packed = pack_counts(data, context_length)
        baseline = score_ngram_baselines(data, context_length)[-1]
        assert packed.order == baseline.order == order
        sizes = fit(data.map_split("train"), data.tokenizer.vocab_size, order).sizes
        assert packed.ngrams == sizes[-1]
        assert packed.tail == tuple(data.map_split("train")[1 - order :].tolist())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_limit_decides_the_order(order):
    tokens, vocab_size, _ = letters(markov_text(500))
    size = len(pack_tokens(tokens, vocab_size, order).grams)
    assert pack_tokens(tokens, vocab_size, 7, size).order == order
    below = pack_tokens(tokens, vocab_size, 7, size - 1)
    assert below is None if order == 1 else below.order == order - 1


@pytest.mark.parametrize(("vocab_size", "order"), [(65, 7), (2048, 4), (8191, 4), (2**26, 1)])
def test_no_number_is_too_large_for_javascript(vocab_size, order):
    tokens = vocab_size - 1 - np.zeros(100, np.int64)
    assert pack_tokens(tokens, vocab_size, 7).order == order
    assert 2 * vocab_size**order < 2**53


def test_a_text_of_nothing_has_no_counts():
    assert pack_tokens(np.zeros(0, np.uint8), 3, 7) is None


def test_the_format_is_that_of_the_docstring():
    """The bigrams of a b a b c, in base 3: ab = 1 twice, ba = 3 once, bc = 5 once."""
    packed = pack_tokens(np.array([0, 1, 0, 1, 2]), 3, 2)
    assert base64.b64decode(packed.grams) == bytes([2 * 1 + 1, 2 - 2, 2 * 2, 2 * 2])
    assert packed.to_json() == {
        "vocab_size": 3, "order": 2, "ngrams": 3, "grams": packed.grams, "tail": [2],
    }  # fmt: skip
    large = pack_tokens(np.array([300]), 1000, 1)
    assert base64.b64decode(large.grams) == bytes([600 % 128 + 128, 600 // 128])
