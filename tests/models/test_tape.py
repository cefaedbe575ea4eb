"""A tape does again what its function does, to the last bit."""

import pytest
import torch

from drakegpt.models.tape import Tape


def test_results_follow_their_inputs():
    x = torch.arange(6.0)
    tape = Tape(lambda: (x.view(2, 3).t() * 2).sum(0))
    assert tape.result.tolist() == [6.0, 24.0]
    x.fill_(1.0)
    assert tape().tolist() == [6.0, 6.0]


def test_changes_happen_again():
    count, total = torch.zeros(()), torch.zeros(3)

    def step():
        count.add_(1)
        total.add_(count)
        return total

    tape = Tape(step)
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

    tape = Tape(step)
    assert tape().tolist() == [1.0, 2.0]
    assert tape().tolist() == [1.0, 2.0]


def test_what_does_not_change_is_not_computed_again():
    x = torch.ones(4)
    tape = Tape(lambda: x + torch.full((4,), 2.0).exp())
    assert len(tape) == 1
    assert torch.equal(tape(), x + torch.full((4,), 2.0).exp())


def test_dice_are_thrown_anew_and_in_the_same_order():
    x = torch.ones(1000)

    def step():
        return torch.nn.functional.dropout(x, 0.5) + torch.rand(1000)

    torch.manual_seed(0)
    expected = [step() for _ in range(3)]
    torch.manual_seed(0)
    tape = Tape(step)
    results = [tape.result.clone(), tape().clone(), tape().clone()]
    for one, other in zip(results, expected, strict=True):
        assert torch.equal(one, other)


def test_an_operation_that_cannot_write_into_given_memory():
    """`unique` returns as much as it finds; a tape can only hold its first size."""
    x = torch.tensor([3, 1, 3])
    tape = Tape(lambda: torch.unique(x) * 2)
    x.copy_(torch.tensor([5, 7, 5]))
    assert tape().tolist() == [10, 14]


def test_gradients():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(5, 3), torch.randn(4, 5)

    def step():
        loss = layer(x).relu().square().mean()
        (gradient,) = torch.autograd.grad(loss, [layer.weight])
        return gradient

    tape = Tape(step)
    for _ in range(3):
        x.normal_()
        assert torch.equal(tape(), step())


def test_a_number_that_is_read_cannot_be_recorded():
    x = torch.ones(3)
    with pytest.raises(ValueError, match="stay on the tape"):
        Tape(lambda: x * x.sum().item())
