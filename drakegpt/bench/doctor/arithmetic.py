"""Checks of a device's arithmetic: matrix products, layer norm and attention.

Each is compared with float64 on the CPU. The bounds are those of rounding; what is wrong by
one part in a thousand is beyond them.

Not here: dropout (`dropout`), whole training steps (`steps`), and texts (`texts`).
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn import functional as F

from drakegpt.bench.doctor.checks import Finding, format_error, is_worse
from drakegpt.compute import kernels
from drakegpt.compute.device import choose_dtype

# Rows, inputs and outputs of products: drakegpt's at its default size, that of a lesson, a
# laptop's and the large size, both of a batch and of one token; and sizes that divide nothing.
SHAPES = (
    (256, 32, 96), (256, 32, 128), (256, 128, 32), (256, 32, 65),
    (512, 96, 288), (512, 96, 384), (512, 384, 96),
    (512, 128, 384), (512, 128, 512), (512, 512, 128), (512, 128, 65),
    (128, 384, 1152), (128, 384, 1536), (128, 1536, 384), (128, 384, 65),
    (1, 384, 1152), (1, 384, 1536), (1, 1536, 384),
    (7, 13, 5), (31, 33, 129), (257, 255, 513), (8192, 128, 32),
)  # fmt: skip
# Rows and width of layer norms. These, and the last product, have enough numbers for a GPU
# to use Triton's kernels.
NORMED = ((256, 32), (8192, 128))
# Fewer in bfloat16, which a CPU without instructions for it multiplies slowly.
BFLOAT16_SHAPES = (
    (256, 32, 96), (256, 128, 32), (512, 96, 288), (512, 128, 384), (128, 384, 1152),
    (1, 1536, 384), (31, 33, 129),
)  # fmt: skip
# Windows, tokens, heads and width of attention: short windows side by side, one whole, and in
# blocks of queries.
ATTENDED = ((32, 8, 4, 32), (16, 64, 4, 128), (8, 256, 4, 64))
# float32 has 24 bits. An element of a product, of K terms, is off by about sqrt(K) * 2**-24 of
# the typical element, at the most by some times that: by 1e-5 for K = 1500. TF32, which PyTorch
# does not use unless it is told to, would be off by 1e-3.
BOUND = 1e-4
# bfloat16 has 8 bits: rounding the exact result is off by 2**-9 of it. GPUs may add a few partial
# sums that are rounded too.
BFLOAT16_BOUND = 2.0**-8
# A rate of dropout that is rounded to nothing: attention in blocks is used with dropout only.
NEXT_TO_NOTHING = 1e-9
CPU = torch.device("cpu")


Tensors = Iterable[Tensor]


class _Worst:
    """The largest error so far, and what had it."""

    def __init__(self) -> None:
        self.error, self.place = 0.0, ""

    def add(self, results: Tensors, exact: Tensors, places: Iterable[str]) -> None:
        """Compare results with what is exact: the largest error over the typical element."""
        for result, right, place in zip(results, exact, places, strict=True):
            expected = right.detach()
            error = result.detach().cpu().double() - expected
            largest = float(error.abs().max() / expected.square().mean().sqrt())
            if is_worse(largest, self.error):
                self.error, self.place = largest, place

    def judge(self, sizes: int, device: torch.device) -> Finding:
        """Return what was found in products of that many sizes."""
        figure = f"off by {format_error(self.error)} at most, {sizes} sizes"
        measured = {"error": self.error, "bound": BOUND}
        if self.error <= BOUND:
            return Finding(figure, measured)
        problem = (
            f"{self.place} is off by {format_error(self.error)} of a typical element, where "
            f"rounding explains {format_error(BOUND)}."
        )
        return Finding(figure, measured, "failed", problem, advise(device))


def check_products(device: torch.device) -> Finding:
    """Compare products in float32, and all their gradients, with float64."""
    worst = _Worst()
    for (rows, K, outputs), inputs in _draw_products(SHAPES):
        of = f"of {rows} x {K} by {K} x {outputs} numbers"
        gradients = (f"the gradient of the {name}" for name in ("inputs", "weights", "biases"))
        places = (f"{what} of a product {of}" for what in gradients)
        exact = _multiply(inputs, torch.float64, CPU, textbook=True)
        found = _multiply(inputs, torch.float32, device)
        worst.add(found, exact, (f"a product {of}", *places))
    return worst.judge(len(SHAPES), device)


def check_bfloat16_products(device: torch.device) -> Finding:
    """Compare products in bfloat16 with float64, from the same rounded numbers."""
    if not has_bfloat16(device):
        return Finding("no bfloat16 here", result="not tested")
    worst, place = 0.0, ""
    for (rows, K, outputs), inputs in _draw_products(BFLOAT16_SHAPES):
        rounded = [tensor.bfloat16() for tensor in inputs]
        exact = _multiply(rounded, torch.float64, CPU, textbook=True)
        found = _multiply(rounded, torch.bfloat16, device)
        for result, expected in zip(found, exact, strict=True):
            error = measure_error(result, expected)
            if is_worse(error, worst):
                worst, place = error, f"{rows} x {K} by {K} x {outputs} numbers"
    figure, measured = f"in bfloat16 by {worst:.2%}", {"error": worst, "bound": BFLOAT16_BOUND}
    if worst <= BFLOAT16_BOUND:
        return Finding(figure, measured)
    problem = (
        f"a product in bfloat16, of {place}, is off by {worst:.2%}, where rounding its result "
        f"explains {BFLOAT16_BOUND:.2%}."
    )
    fix = f"Train with --dtype float32. {advise(device)}"
    return Finding(figure, measured, "failed", problem, fix)


def check_norm(device: torch.device) -> Finding:
    """Compare layer norm and its gradients with PyTorch's in float64."""
    worst = _Worst()
    for rows, C in NORMED:
        x, gain, bias, upstream = _draw((rows, C), (C,), (C,), (rows, C))
        given = [tensor.double().requires_grad_() for tensor in (x, gain, bias)]
        result = F.layer_norm(given[0], (C,), weight=given[1], bias=given[2])
        exact = [result, *torch.autograd.grad(result, given, upstream.double())]
        layer = kernels.LayerNorm(C)
        layer.load_state_dict({"weight": gain, "bias": bias})
        there = [x.to(device, copy=True).requires_grad_(), *layer.to(device).parameters()]
        output = layer(there[0])
        found = [output, *torch.autograd.grad(output, there, upstream.to(device))]
        of = f"of {rows:,} rows of {C} numbers"
        gradients = (f"a gradient of layer norm {of}" for _ in given)
        worst.add(found, exact, (f"layer norm {of}", *gradients))
    return worst.judge(len(NORMED), device)


def check_attention(device: torch.device) -> Finding:
    """Compare attention and its gradient, without dropout, with the formula in float64."""
    worst = _Worst()
    for B, T, heads, C in ATTENDED:
        query_key_value, upstream = _draw((B, T, 3 * C), (B, T, C))
        exact = _attend_textbook(query_key_value.double(), upstream.double(), heads)
        of = f"of {B} windows of {T} tokens, with {heads} heads,"
        for p in (0.0, NEXT_TO_NOTHING):
            given = query_key_value.to(device, copy=True).requires_grad_()
            result = kernels.causal_attention(given, heads, p)
            found = (result, *torch.autograd.grad(result, given, upstream.to(device)))
            worst.add(found, exact, (f"attention {of}", f"the gradient of attention {of}"))
    return worst.judge(len(ATTENDED), device)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether drakegpt computes in bfloat16 on a device, or can be told to."""
    if device.type == "cuda":
        return choose_dtype("auto", device) == torch.bfloat16
    return device.type == "cpu"


def measure_error(result: Tensor, expected: Tensor) -> float:
    """Return the length of the error over that of what is expected."""
    error = result.cpu().double() - expected
    return float(error.norm() / expected.norm().clamp_min(1e-300))


def keep_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Leave PyTorch's random generators as they were before the `with` statement."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def advise(device: torch.device) -> str:
    """Return what to do where a device computes wrongly."""
    if device.type == "cpu":
        return (
            "PyTorch or one of its libraries computes wrongly here: install it again (`python -m "
            "pip install --force-reinstall torch`). If that does not help, set "
            "ATEN_CPU_CAPABILITY=avx2 and ONEDNN_MAX_CPU_ISA=AVX2, which leave out the newest "
            "instructions, and try again."
        )
    return (
        f"Train with --device cpu until {device.type} works: update PyTorch and the driver "
        "of the GPU, then try again."
    )


def _draw(*sizes: tuple[int, ...]) -> list[Tensor]:
    """Draw normal numbers, which depend on the sizes only."""
    generator = torch.Generator().manual_seed(sum(map(sum, sizes)))
    return [torch.randn(size, generator=generator) for size in sizes]


def _draw_products(
    shapes: tuple[tuple[int, int, int], ...],
) -> Iterator[tuple[tuple[int, int, int], list[Tensor]]]:
    """Yield the sizes of each product, its inputs, weights and bias, and a gradient of it."""
    for rows, K, outputs in shapes:
        yield (rows, K, outputs), _draw((rows, K), (outputs, K), (outputs,), (rows, outputs))


def _multiply(
    inputs: list[Tensor], dtype: torch.dtype, device: torch.device, *, textbook: bool = False
) -> tuple[Tensor, ...]:
    """Return x @ weight.T + bias and its gradients of all three, by PyTorch or drakegpt."""
    *given, upstream = (tensor.to(device, dtype, copy=True) for tensor in inputs)
    x, weight, bias = (tensor.requires_grad_() for tensor in given)
    result = (F.linear if textbook else kernels.linear)(x, weight, bias)
    return result.detach(), *torch.autograd.grad(result, (x, weight, bias), upstream)


def _attend_textbook(query_key_value: Tensor, upstream: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Return attention and its gradient, written as in `reference.Head`: (B, T, 3 C)."""
    given = query_key_value.requires_grad_()
    T, C = upstream.shape[1:]
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    results = []
    for q, k, v in zip(*(part.split(C // heads, 2) for part in given.split(C, 2)), strict=True):
        scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
        results.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v)
    result = torch.cat(results, -1)
    return result.detach(), *torch.autograd.grad(result, given, upstream)
