"""Kernels run in TorchScript's interpreter are those run from Python, to the last bit."""

import pytest
import torch

from drakegpt.compute import kernel_list
from drakegpt.compute.kernel_list import Kernel, compile_kernels
from drakegpt.compute.replay import KernelTrace

aten = torch.ops.aten


@pytest.fixture(params=["graph", "eager"])
def compile_(request, monkeypatch):
    if request.param == "graph":
        return kernel_list._compile_graph
    return lambda kernels: lambda: kernel_list._run_eagerly(kernels)


def test_calls_run_in_their_order(compile_):
    x, result = torch.tensor([1.0, 2.0]), torch.zeros(2)
    run = compile_(
        [
            Kernel(aten.add_.Tensor, (x, 1, 1)),  # a number in place of a tensor
            Kernel(aten.mul.out, (x, x, result)),
            Kernel(aten.add_.Tensor, (x, x, 1)),
        ]
    )
    run()
    assert x.tolist() == [4, 6]
    assert result.tolist() == [4, 9]
    run()
    assert x.tolist() == [10, 14]
    assert result.tolist() == [25, 49]


def test_tensors_with_equal_numbers_stay_apart(compile_):
    """And a call whose result nothing reads is not dropped: someone outside may."""
    x, *results = torch.ones(2), *torch.zeros(3, 2)
    run = compile_([Kernel(aten.add.out, (x, x, 1, result)) for result in results])
    run()
    assert [result.tolist() for result in results] == [[2, 2]] * 3


def test_results_in_new_memory_are_copied(compile_):
    x, values = torch.tensor([[3.0, 1.0, 3.0]]), torch.zeros(2)
    run = compile_([Kernel(aten._unique2.default, (x, True, False, False), (values, None, None))])
    run()
    assert values.tolist() == [1, 3]


def test_lists_of_tensors_and_of_nothing(compile_):
    x, place = torch.zeros(2, 3), torch.tensor([1])
    joined = torch.zeros(4, 3)
    run = compile_(
        [
            Kernel(aten.index_put_.default, (x, [None, place], torch.ones(2, 1), False)),
            Kernel(aten.cat.out, ([x, x], 0, joined)),
            Kernel(aten.sum.IntList_out, (joined, [0], False, None, x[0])),
        ]
    )
    run()
    assert joined.tolist() == [[0, 1, 0]] * 4
    assert x.tolist() == [[0, 4, 0], [0, 1, 0]]


def test_an_argument_that_torchscript_does_not_know():
    """A random generator: the calls are made from Python."""
    x, generator = torch.zeros(4), torch.Generator().manual_seed(1)
    kernels = [Kernel(aten.normal_.default, (x, 0.0, 1.0, generator))]
    run = compile_kernels(kernels)
    run()
    assert torch.equal(x, torch.randn(4, generator=torch.Generator().manual_seed(1)))


def test_torchscript_optimizes_other_graphs_as_before():
    x = torch.ones(2)
    run = compile_kernels([Kernel(aten.add_.Tensor, (x, x, 1))])
    for optimize in (True, False):
        with torch.jit.optimized_execution(optimize):
            run()
            assert torch._C._get_graph_executor_optimize() == optimize


def test_a_kernel_that_fails_says_why():
    x = torch.ones(2, 3)
    run = compile_kernels([Kernel(aten.mm.out, (x, x, torch.zeros(2, 3)))])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            run()


@pytest.mark.parametrize("order", ["C", "F"])
def test_embeddings_copies_and_relu_in_one_kernel(order):
    table = torch.randn(5, 4)
    tokens = torch.tensor([[1, 2], [3, 4]])
    tokens = tokens.t().contiguous().t() if order == "F" else tokens

    def step():
        x = torch.embedding(table, tokens).transpose(1, 2).reshape(2, 8)
        return torch.relu(x.double())

    trace = KernelTrace(step)
    table[3] = torch.tensor([torch.nan, -0.0, -1, 1])
    assert torch.equal(trace().nan_to_num(7), step().nan_to_num(7))
    assert len(trace) == 4
