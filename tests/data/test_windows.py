import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from drakegpt.data import windows as windows_module
from drakegpt.data.windows import (
    ITERATIONS_PER_DRAW,
    EpochWindows,
    Stream,
    TrainingWindows,
    count_known_tokens,
    count_windows,
    random_windows,
    sequential_windows,
    spread_windows,
)


def draw(iteration=0, seed=1, stream=Stream.TRAINING, count=1000, tokens=None):
    tokens = torch.arange(50, dtype=torch.uint8) if tokens is None else tokens
    return random_windows(tokens, 8, count, seed, stream, iteration)


def test_targets_are_the_next_tokens():
    inputs, targets = draw()
    assert inputs.shape == targets.shape == (1000, 8)
    assert inputs.dtype == torch.int64
    # the tokens are their own positions
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs[:, 1:], inputs[:, :-1] + 1)


def test_spread_windows_are_at_equal_distances_from_the_start_to_the_end():
    inputs, targets = spread_windows(torch.arange(50, dtype=torch.uint8), 8, 4)
    assert inputs[:, 0].tolist() == [0, 13, 27, 41]
    assert targets[-1].tolist() == list(range(42, 50))
    assert torch.equal(targets, inputs + 1)
    for count in (1, 3, 100):  # of a split with room for one
        inputs, targets = spread_windows(torch.arange(9, dtype=torch.uint8), 8, count)
        assert inputs.tolist() == [list(range(8))] * count
        assert targets.tolist() == [list(range(1, 9))] * count


def test_every_start_is_drawn_and_none_beyond_the_end():
    starts = draw()[0][:, 0]
    assert set(starts.tolist()) == set(range(42))


def test_a_split_with_room_for_one_window_is_enough():
    inputs, targets = draw(tokens=torch.arange(9, dtype=torch.uint8), count=3)
    assert inputs.tolist() == [list(range(8))] * 3
    assert targets.tolist() == [list(range(1, 9))] * 3


def test_windows_depend_on_seed_stream_and_iteration_alone():
    base = draw()[0]
    assert torch.equal(base, draw()[0])
    for other in (draw(iteration=1), draw(seed=2), draw(stream=Stream.ESTIMATE_TRAIN)):
        assert not torch.equal(base, other[0])


def training_windows(seed=1, count=6, **kwargs):
    return TrainingWindows(torch.arange(50, dtype=torch.uint8), 8, count, seed, **kwargs)


def test_training_windows_depend_on_the_iteration_not_on_the_way_there():
    """Forwards, or picked up anywhere, within a block of iterations or across its border."""
    places = [0, 1, ITERATIONS_PER_DRAW - 1, ITERATIONS_PER_DRAW, 5 * ITERATIONS_PER_DRAW + 3]
    forwards = training_windows()
    expected = [forwards.at(place) for place in places]
    for place, (inputs, targets) in reversed(list(zip(places, expected, strict=True))):
        assert inputs.shape == targets.shape == (6, 8)
        assert torch.equal(targets, inputs + 1)
        assert torch.equal(training_windows().at(place)[0], inputs)
    starts = {tuple(inputs[:, 0].tolist()) for inputs, _ in expected}
    assert len(starts) == len(places)
    assert not torch.equal(training_windows(seed=2).at(0)[0], expected[0][0])


def test_windows_too_many_to_cut_at_once_are_the_same(monkeypatch):
    expected = [training_windows().at(place) for place in (0, 70)]
    monkeypatch.setattr(windows_module, "MAX_GATHERED_TOKENS", 0)
    for place, (inputs, targets) in zip((0, 70), expected, strict=True):
        assert torch.equal(training_windows().at(place)[0], inputs)
        assert torch.equal(training_windows().at(place)[1], targets)


def test_training_windows_start_everywhere():
    windows = training_windows()
    starts = {s for i in range(200) for s in windows.at(i)[0][:, 0].tolist()}
    assert starts == set(range(42))


def test_shares_of_training_windows_make_up_the_whole():
    for place in (3, 100):
        whole = training_windows().at(place)[0]
        parts = [training_windows(share=slice(2 * r, 2 * r + 2)).at(place)[0] for r in range(3)]
        assert torch.equal(torch.cat(parts), whole)


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 5))
def test_sequential_windows_score_each_token_once(length, context, batch):
    tokens = torch.arange(length, dtype=torch.uint8)
    seen = []
    for inputs, targets in sequential_windows(tokens, context, batch):
        assert inputs.shape == targets.shape
        assert inputs.shape[0] <= batch
        assert inputs.shape[1] <= context
        assert torch.equal(targets, inputs + 1)
        seen += targets.flatten().tolist()
    assert seen == list(range(1, length))


@given(length=st.integers(1, 60), context_length=st.integers(1, 9))
def test_known_tokens_are_those_of_sequential_windows(length, context_length):
    tokens = torch.arange(length, dtype=torch.uint8)
    known = [0]
    for _, targets in sequential_windows(tokens, context_length, 5):
        known += [t + 1 for window in targets for t in range(len(window))]
    assert count_known_tokens(np.arange(length), context_length).tolist() == known


@given(
    tokens=st.integers(10, 200),
    context_length=st.integers(1, 9),
    count=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_epoch_reads_each_window_once(tokens, context_length, count, seed):
    """Across iterations of any size; each epoch in an order of its own."""
    text = torch.arange(tokens, dtype=torch.uint8)
    windows = EpochWindows(text, context_length, count, seed)
    total = count_windows(tokens, context_length)
    assert total == (tokens - 1) // context_length
    read = []
    for iteration in range(-(-3 * total // count)):
        inputs, targets = windows.at(iteration)
        assert inputs.shape == targets.shape == (count, context_length)
        assert torch.equal(targets, inputs + 1)
        read += inputs[:, 0].tolist()
    every = [place * context_length for place in range(total)]
    epochs = [read[n * total : (n + 1) * total] for n in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == every
    if total > 20:
        assert len({tuple(epoch) for epoch in epochs}) == 3


def test_epochs_can_be_entered_anywhere_and_shared():
    text = torch.arange(100, dtype=torch.uint8)
    in_order = EpochWindows(text, 4, 6, seed=3)
    expected = [in_order.at(iteration) for iteration in range(12)]
    for iteration in (11, 0, 7):
        fresh = EpochWindows(text, 4, 6, seed=3).at(iteration)
        assert torch.equal(fresh[0], expected[iteration][0])
    halves = [EpochWindows(text, 4, 6, 3, slice(*part)) for part in ((0, 3), (3, 6))]
    both = torch.cat([half.at(5)[0] for half in halves])
    assert torch.equal(both, expected[5][0])
