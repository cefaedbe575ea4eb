"""A tape does again what its function does, to the last bit; and who records one in time."""

import pytest
import torch

from drakegpt.compute.replay import KernelTrace, Replayed


def test_results_follow_their_inputs():
    x = torch.arange(6.0)
    tape = KernelTrace(lambda: (x.view(2, 3).t() * 2).sum(0))
    assert tape.result.tolist() == [6.0, 24.0]
    x.fill_(1.0)
    assert tape().tolist() == [6.0, 6.0]


def test_changes_happen_again():
    count, total = torch.zeros(()), torch.zeros(3)

    def step():
        count.add_(1)
        total.add_(count)
        return total

    tape = KernelTrace(step)
    for _ in range(3):
        tape()
    assert count == 4
    assert total.tolist() == [10.0] * 3


def test_memory_made_on_the_way_is_made_anew():
    x = torch.tensor([1.0, 2.0])

    def step():
        zeros = torch.zeros(2)
        zeros += x
        return zeros * torch.ones_like(x)

    tape = KernelTrace(step)
    assert tape().tolist() == [1.0, 2.0]
    assert tape().tolist() == [1.0, 2.0]


def test_what_does_not_change_is_not_computed_again():
    x = torch.ones(4)
    tape = KernelTrace(lambda: x + torch.full((4,), 2.0).exp())
    assert len(tape) == 1
    assert torch.equal(tape(), x + torch.full((4,), 2.0).exp())


def test_dice_are_thrown_anew_and_in_the_same_order():
    x = torch.ones(1000)

    def step():
        return torch.nn.functional.dropout(x, 0.5) + torch.rand(1000)

    torch.manual_seed(0)
    expected = [step() for _ in range(3)]
    torch.manual_seed(0)
    tape = KernelTrace(step)
    results = [tape.result.clone(), tape().clone(), tape().clone()]
    for one, other in zip(results, expected, strict=True):
        assert torch.equal(one, other)


def test_an_operation_that_cannot_write_into_given_memory():
    """`unique` returns as much as it finds; a tape can only hold its first size."""
    x = torch.tensor([3, 1, 3])
    tape = KernelTrace(lambda: torch.unique(x) * 2)
    x.copy_(torch.tensor([5, 7, 5]))
    assert tape().tolist() == [10, 14]


def test_gradients():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(5, 3), torch.randn(4, 5)

    def step():
        loss = layer(x).relu().square().mean()
        (gradient,) = torch.autograd.grad(loss, [layer.weight])
        return gradient

    tape = KernelTrace(step)
    for _ in range(3):
        x.normal_()
        assert torch.equal(tape(), step())


def test_a_number_that_is_read_cannot_be_recorded():
    x = torch.ones(3)
    with pytest.raises(ValueError, match="be replayed unchanged"):
        KernelTrace(lambda: x * x.sum().item())


# --- Again and again ----------------------------------------------------------------------------


def test_repeating_records_once_and_gives_the_same_numbers():
    """The function itself is called twice: as written, and to be recorded."""
    torch.manual_seed(0)
    layer, calls = torch.nn.Linear(5, 3), []

    def function(x, y):
        calls.append(x)
        return layer(x).relu() * y

    repeating = Replayed(function)
    for _ in range(4):
        x, y = torch.randn(4, 5), torch.randn(4, 1)
        assert torch.equal(repeating(x, y), layer(x).relu() * y)
    assert len(calls) == 2


def test_repeating_leaves_what_it_is_given_alone():
    """It reads from memory of its own, so nobody's tensor changes at a later call."""
    repeating = Replayed(lambda x: x + 1)
    given = [torch.full((2,), float(i)) for i in range(5)]
    assert [repeating(x)[0].item() for x in given] == [1, 2, 3, 4, 5]
    assert [x[0].item() for x in given] == [0, 1, 2, 3, 4]


def test_repeating_makes_what_is_kept_in_the_first_call():
    """What is made once and then kept must not be on the tape, or it would be made anew."""
    kept = []

    def step():
        if not kept:
            kept.append(torch.zeros(2))
        return kept[0].add_(1).clone()

    repeating = Replayed(step)
    assert [repeating().tolist() for _ in range(4)] == [[1, 1], [2, 2], [3, 3], [4, 4]]


def test_repeating_what_is_only_handed_on():
    """A tape without a single call is a tape too."""
    calls, constant = [], torch.ones(2)
    repeating = Replayed(lambda: calls.append(1) or constant.view(2))
    for _ in range(4):
        assert repeating().tolist() == [1, 1]
    assert len(calls) == 2


def test_repeating_what_cannot_be_recorded_says_so_at_each_call():
    repeating = Replayed(lambda x: x * x.sum().item())
    assert repeating(torch.ones(2)).tolist() == [2, 2]
    for _ in range(2):
        with pytest.raises(ValueError, match="be replayed unchanged"):
            repeating(torch.ones(2))


def test_repeating_takes_as_many_tensors_each_time():
    repeating = Replayed(lambda *tensors: sum(tensors))
    for _ in range(2):
        repeating(torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match="zip"):
        repeating(torch.ones(2))
