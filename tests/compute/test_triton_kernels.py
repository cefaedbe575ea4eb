"""Layer norm and the gradients of biases on a GPU are PyTorch's, in double precision, rounded."""

import pytest
import torch
from torch.nn import functional as F

from drakegpt.compute import kernels

pytestmark = pytest.mark.gpu
SHAPES = [(64, 256, 384), (5, 7, 32), (3, 100), (1, 40), (2, 9, 1600)]


def apart(some, exact):
    return ((some.double() - exact).norm() / exact.norm().clamp_min(1e-12)).item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.bfloat16, 6e-3)])
def test_layer_norm(shape, dtype, within):
    assert kernels.triton_works()
    from drakegpt.compute.triton_kernels import LayerNorm

    torch.manual_seed(0)
    C = shape[-1]
    given = [torch.randn(*s, device="cuda").to(dtype) for s in (shape, (C,), (C,), shape)]
    given[0] = given[0] * 3 + 1
    inputs = [tensor.clone().requires_grad_() for tensor in given[:3]]
    exact = [tensor.double().requires_grad_() for tensor in given[:3]]
    result, expected = (
        LayerNorm.apply(*inputs, 1e-5),
        F.layer_norm(exact[0], (C,), *exact[1:], 1e-5),
    )
    assert result.dtype == dtype
    gradients = torch.autograd.grad(result, inputs, given[3])
    assert [gradient.dtype for gradient in gradients] == [dtype] * 3
    wanted = torch.autograd.grad(expected, exact, given[3].double())
    assert apart(result, expected) < within
    assert max(apart(*pair) for pair in zip(gradients, wanted, strict=True)) < within


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.bfloat16, 6e-3)])
def test_linear(shape, dtype, within, monkeypatch):
    monkeypatch.setattr(kernels, "TRITON_FROM", 0)
    torch.manual_seed(0)
    N, K = 48, shape[-1]
    given = [torch.randn(*s, device="cuda").to(dtype) for s in (shape, (N, K), (N,))]
    inputs = [tensor.clone().requires_grad_() for tensor in given]
    exact = [tensor.double().requires_grad_() for tensor in given]
    result, expected = kernels.linear(*inputs), F.linear(*exact)
    gradients = torch.autograd.grad(result.square().mean(), inputs)
    wanted = torch.autograd.grad(expected.square().mean(), exact)
    assert result.grad_fn.name().startswith("_GPULinear")
    assert max(apart(*pair) for pair in zip(gradients, wanted, strict=True)) < 10 * within
