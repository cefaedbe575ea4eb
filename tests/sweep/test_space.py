"""What can be searched, and how it is written."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakegpt.errors import UsageError
from drakegpt.sweep.space import (
    SEARCHABLE,
    Choices,
    Range,
    count_combinations,
    list_combinations,
    parse_axis,
    parse_param,
)

TEXTS = {
    "embedding_dim=32, 64,128": Choices((32, 64, 128)),
    "embedding-dim=32": Choices((32,)),
    "max_lr=1e-4..1e-2:log": Range(1e-4, 1e-2, log=True),
    "dropout=0..0.3": Range(0.0, 0.3),
    "num_layers=1..6": Range(1, 6),
    "batch_size=8..64:log": Range(8, 64, log=True),
    "max_lr=1,2": Choices((1.0, 2.0)),
    "bits=full,1.58,1": Choices(("full", "1.58", "1")),
    "tie_embeddings=true,False": Choices((True, False)),
    "schedule=cosine,hold": Choices(("cosine", "hold")),
}


@pytest.mark.parametrize(("text", "axis"), TEXTS.items())
def test_texts_say_what_is_searched(text, axis):
    name, found = parse_param(text)
    assert name in SEARCHABLE
    assert found == axis
    values = found.values if isinstance(found, Choices) else (found.low, found.high)
    expected = axis.values if isinstance(axis, Choices) else (axis.low, axis.high)
    assert list(map(type, values)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("name", "written", "axis"),
    [
        ("embedding_dim", [32, 64], Choices((32, 64))),
        ("bits", [1.58, 1, "full"], Choices(("1.58", "1", "full"))),
        ("max_lr", [1, 0.5], Choices((1.0, 0.5))),
        ("max_lr", "1e-4..1e-2:log", Range(1e-4, 1e-2, log=True)),
        ("max_lr", {"low": 1, "high": 2}, Range(1.0, 2.0)),
        ("num_layers", {"low": 1, "high": 8, "log": True}, Range(1, 8, log=True)),
        ("tie_embeddings", [True, False], Choices((True, False))),
    ],
)
def test_files_say_it_in_their_own_types(name, written, axis):
    assert parse_axis(name, written) == axis


WRONG = {
    "embedding_dim": "has no values",
    "embeding_dim=3": "Did you mean embedding_dim",
    "model=BigramLM": "cannot be searched",
    "device=cpu,cuda": "cannot be searched",
    "eval_iters=1,2": "cannot be searched",
    "embedding_dim=": "whole number",
    "embedding_dim=3.5": "whole number",
    "embedding_dim=0,1": "greater than or equal to 1",
    "embedding_dim=4,8,4": "twice",
    "dropout=0..1": "less than 1",
    "max_lr=nan": "cannot be nan",
    "max_lr=1..inf": "cannot be inf",
    "max_lr=2..1": "not below",
    "max_lr=1..1": "not below",
    "max_lr=..1": "is a number",
    "max_lr=1..2..3": "is a number",
    "max_lr=1e-4...1e-2": "three dots",
    "dropout=0..0.5:log": "above 0",
    "max_lr=1..2:linear": "':linear'",
    "bits=0..2": "not a number",
    "bits=2": "'full', '1.58' or '1'",
    "tie_embeddings=maybe": "true or false",
    "tie_embeddings=false..true": "not a number",
}


@pytest.mark.parametrize("name", [1, True, None])
def test_a_file_may_name_what_is_no_name(name):
    with pytest.raises(UsageError, match="cannot be searched"):
        parse_axis(name, [1, 2])


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_what_cannot_be_searched_is_refused_by_name(text, message):
    with pytest.raises(UsageError) as refused:
        parse_param(text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "written", [[], {}, 3, None, [[1]], {"low": 1}, {"low": 1, "high": 2, "step": 1}, [None],
                {"low": 1, "high": 2, "log": "yes"}, [True], {"low": [], "high": {}}]
)  # fmt: skip
def test_other_values_in_files_are_refused(written):
    with pytest.raises(UsageError):
        parse_axis("embedding_dim", written)


@given(st.text())
def test_any_text_is_understood_or_refused(text):
    for attempt in (text, f"max_lr={text}", f"embedding_dim={text}", f"bits={text}"):
        with suppress(UsageError):
            parse_param(attempt)


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3), st.floats(0, 1))
def test_numbers_drawn_are_shortened_within_their_range(one, other, share):
    low, high = sorted((one, other))
    axis = Range(low, high)
    drawn = min(high, max(low, low + share * (high - low)))
    settled = axis.shorten(drawn)
    assert low <= settled <= high
    assert settled == pytest.approx(drawn, rel=1e-3)


def test_combinations_are_all_there_once():
    space = {"embedding_dim": Choices((8, 16)), "batch_size": Choices((1, 2, 3))}
    found = list_combinations(space)
    assert count_combinations(space) == len(found) == 6
    assert {tuple(point.values()) for point in found} == {
        (d, b) for d in (8, 16) for b in (1, 2, 3)
    }
    assert count_combinations(space | {"max_lr": Range(0.1, 0.2)}) is None
