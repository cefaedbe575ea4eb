"""Checks of a device's arithmetic: matrix products, attention, and what dropout drops.

Each is compared with float64 on the CPU, or with what probability allows. The bounds are
those of rounding; what is wrong by one part in a thousand is beyond them.

Not here: whole training steps (`steps`), and texts (`texts`).
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from drakegpt.bench.doctor.checks import Finding, format_error
from drakegpt.compute import kernels
from drakegpt.compute.device import choose_dtype

# Rows, inputs and outputs of products: drakegpt's at its default size, that of a lesson, a
# laptop's and the large size, both of a batch and of one token; and sizes that divide nothing.
SHAPES = (
    (256, 32, 96), (256, 32, 128), (256, 128, 32), (256, 32, 65),
    (512, 96, 288), (512, 96, 384), (512, 384, 96),
    (1024, 128, 384), (1024, 128, 512), (1024, 512, 128), (1024, 128, 65),
    (256, 384, 1152), (256, 384, 1536), (256, 1536, 384), (256, 384, 65),
    (1, 384, 1152), (1, 384, 1536), (1, 1536, 384),
    (7, 13, 5), (31, 33, 129), (257, 255, 513),
)  # fmt: skip
# Windows, tokens, heads and width of attention: short windows side by side, one whole, and in
# blocks of queries.
ATTENDED = ((32, 8, 4, 32), (16, 64, 4, 128), (8, 256, 4, 64))
# float32 has 24 bits. An element of a product, of K terms, is off by about sqrt(K) * 2**-24 of
# the typical element, at the most by some times that: by 1e-5 for K = 1500. TF32, which PyTorch
# does not use unless it is told to, would be off by 1e-3.
PRODUCT_BOUND = 1e-4
# bfloat16 has 8 bits: rounding the exact result is off by 2**-9 of it. GPUs may add a few partial
# sums that are rounded too.
BFLOAT16_BOUND = 2.0**-8
# Deviations of a share of zeros: a right one exceeds 5 once in two million times.
DEVIATIONS = 5.0
FACTOR_BOUND = 1e-4
DROPPED = (0.1, 0.2, 0.5)
DRAWN = 2**20  # numbers that dropout is applied to
# A rate that is rounded to nothing: attention in blocks is used with dropout only.
NEXT_TO_NOTHING = 1e-9


def check_products(device: torch.device) -> Finding:
    """Compare products in float32, and both their gradients, with float64."""
    worst, place = 0.0, ""
    for shape, inputs in _draw_products():
        exact = _multiply(*inputs, torch.float64, torch.device("cpu"), textbook=True)
        found = _multiply(*inputs, torch.float32, device)
        names = ("a product", "its gradient of the inputs", "its gradient of the weights")
        for name, result, expected in zip(names, found, exact, strict=True):
            error = _measure_largest_error(result, expected)
            if not error <= worst:  # a NaN too
                worst, place = error, f"{name}, of {_describe(shape)}"
    figure = f"off by {format_error(worst)} at most, {len(SHAPES)} sizes"
    measured = {"error": worst, "bound": PRODUCT_BOUND}
    if worst <= PRODUCT_BOUND:
        return Finding(figure, measured)
    problem = (
        f"{place}, is off by {format_error(worst)} of a typical element; rounding explains "
        f"{format_error(PRODUCT_BOUND)} at most."
    )
    return Finding(figure, measured, "failed", problem, advise(device))


def check_bfloat16_products(device: torch.device) -> Finding:
    """Compare products in bfloat16 with float64, from the same rounded numbers."""
    if not has_bfloat16(device):
        return Finding("no bfloat16 here", result="not tested")
    worst, place = 0.0, ""
    for shape, inputs in _draw_products():
        rounded = [tensor.bfloat16() for tensor in inputs]
        exact = _multiply(*rounded, torch.float64, torch.device("cpu"), textbook=True)
        found = _multiply(*rounded, torch.bfloat16, device)
        for result, expected in zip(found, exact, strict=True):
            error = measure_error(result, expected)
            if not error <= worst:
                worst, place = error, _describe(shape)
    figure = f"off by {worst:.2%} at most"
    measured = {"error": worst, "bound": BFLOAT16_BOUND}
    if worst <= BFLOAT16_BOUND:
        return Finding(figure, measured)
    problem = (
        f"a product in bfloat16, of {place}, is off by {worst:.2%}; rounding its result explains "
        f"{BFLOAT16_BOUND:.2%} at most."
    )
    fix = f"Train with --dtype float32. {advise(device)}"
    return Finding(figure, measured, "failed", problem, fix)


def check_attention(device: torch.device) -> Finding:
    """Compare attention and its gradient, without dropout, with the formula in float64."""
    worst, place = 0.0, ""
    for B, T, heads, C in ATTENDED:
        generator = torch.Generator().manual_seed(T)
        query_key_value = torch.randn(B, T, 3 * C, generator=generator)
        upstream = torch.randn(B, T, C, generator=generator)
        exact = _attend_textbook(query_key_value.double(), upstream.double(), heads)
        for p in (0.0, NEXT_TO_NOTHING):
            given = query_key_value.to(device, copy=True).requires_grad_()
            result = kernels.causal_attention(given, heads, p)
            (gradient,) = torch.autograd.grad(result, given, upstream.to(device))
            for one, other in zip((result.detach(), gradient), exact, strict=True):
                error = _measure_largest_error(one, other)
                if not error <= worst:
                    worst, place = error, f"{B} windows of {T} tokens, with {heads} heads"
    figure = f"off by {format_error(worst)} at most, {len(ATTENDED)} sizes"
    measured = {"error": worst, "bound": PRODUCT_BOUND}
    if worst <= PRODUCT_BOUND:
        return Finding(figure, measured)
    problem = (
        f"attention over {place} is off by {format_error(worst)} of a typical element; rounding "
        f"explains {format_error(PRODUCT_BOUND)} at most."
    )
    return Finding(figure, measured, "failed", problem, advise(device))


def check_dropout(device: torch.device) -> Finding:
    """Count what dropout drops, of activations and within attention."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(1)
        return _count_dropped(device)


def _count_dropped(device: torch.device) -> Finding:
    worst, sentence = 0.0, ""
    measured: dict[str, float] = {}
    for p in DROPPED:
        for name, (dropped, among) in (
            ("activations", _drop_activations(device, p)),
            ("neighbours", _drop_neighbours(device, p)),
            ("attention", _drop_attention(device, p)),
        ):
            expected = p * p if name == "neighbours" else p
            spread = math.sqrt(among * expected * (1 - expected))
            deviations = abs(dropped - among * expected) / spread
            measured[f"{name}_{p:g}"] = dropped / among
            if not deviations <= worst:
                worst = deviations
                sentence = _describe_share(name, p, dropped / among, expected, deviations)
        # The factor of the CPU's kernel fits p rounded to a multiple of 2**-16.
        factor = kernels.dropout(torch.ones(DRAWN, device=device), p).max().item()
        if not abs(factor * (1 - p) - 1) <= FACTOR_BOUND:
            worst = math.inf
            sentence = (
                f"dropout at a rate of {p:g} multiplies what it keeps by {factor:.4f}, instead of "
                f"{1 / (1 - p):.4f}."
            )
    measured |= {"deviations": worst, "bound": DEVIATIONS}
    shares = " ".join(f"{measured[f'activations_{p:g}']:.4f}" for p in DROPPED)
    figure = f"{shares} at {' '.join(f'{p:g}' for p in DROPPED)}"
    if worst <= DEVIATIONS:
        return Finding(figure, measured)
    return Finding(figure, measured, "failed", sentence, advise(device))


def _describe_share(
    name: str, p: float, share: float, expected: float, deviations: float
) -> str:
    what = {
        "activations": "of the activations",
        "neighbours": "of the pairs of neighbours, both numbers",
        "attention": "of the weights of attention",
    }[name]
    return (
        f"dropout at a rate of {p:g} drops {share:.2%} {what}, instead of {expected:.2%}: "
        f"{deviations:.0f} times the deviation of chance."
    )


def _drop_activations(device: torch.device, p: float) -> tuple[float, int]:
    """Return how many numbers are dropped, and of how many."""
    result = kernels.dropout(torch.ones(DRAWN, device=device), p)
    return float((result == 0).sum()), DRAWN


def _drop_neighbours(device: torch.device, p: float) -> tuple[float, int]:
    """Return in how many pairs of neighbours both numbers are dropped, and of how many."""
    result = kernels.dropout(torch.ones(DRAWN // 2, 2, device=device), p).cpu()
    return float((result == 0).all(1).sum()), DRAWN // 2


def _drop_attention(device: torch.device, p: float) -> tuple[float, int]:
    """Return how many weights of attention are dropped, and of how many.

    With queries and keys of 0, token t weighs t + 1 tokens alike; with values of 1, its
    result, times (t + 1) (1 - p), is the number of weights that were kept.
    """
    dropped, among = 0.0, 0
    for B, T, heads, C in ATTENDED:
        query_key_value = torch.zeros(B, T, 3 * C, device=device)
        query_key_value[:, :, 2 * C :] = 1
        result = kernels.causal_attention(query_key_value, heads, p)
        by_head = result.cpu().double()[:, :, :: C // heads]  # all numbers of a head are equal
        kept = (by_head * torch.arange(1, T + 1)[:, None]).sum().item() * (1 - p)
        weights = B * heads * T * (T + 1) // 2
        dropped, among = dropped + weights - kept, among + weights
    return dropped, among


def has_bfloat16(device: torch.device) -> bool:
    """Return whether drakegpt computes in bfloat16 on a device, or can be told to."""
    if device.type == "cuda":
        return choose_dtype("auto", device) == torch.bfloat16
    return device.type == "cpu"


def measure_error(result: Tensor, expected: Tensor) -> float:
    """Return the length of the error over that of what is expected."""
    error = result.cpu().double() - expected
    return float(error.norm() / expected.norm().clamp_min(1e-300))


def _measure_largest_error(result: Tensor, expected: Tensor) -> float:
    """Return the largest error of an element, over the root mean square of the elements."""
    error = result.cpu().double() - expected
    return float(error.abs().max() / expected.square().mean().sqrt())


def _draw_products() -> Iterator[tuple[tuple[int, int, int], list[Tensor]]]:
    """Yield the sizes of each product, its inputs, weights and bias, and a gradient of it."""
    for rows, inputs, outputs in SHAPES:
        generator = torch.Generator().manual_seed(rows + inputs + outputs)
        sizes = ((rows, inputs), (outputs, inputs), (outputs,), (rows, outputs))
        tensors = [torch.randn(size, generator=generator) for size in sizes]
        yield (rows, inputs, outputs), tensors


def _multiply(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    upstream: Tensor,
    dtype: torch.dtype,
    device: torch.device,
    *,
    textbook: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x @ weight.T + bias and its gradients of x and weight, by PyTorch or drakegpt."""
    given = [t.to(device, dtype, copy=True).requires_grad_() for t in (x, weight, bias)]
    result = (F.linear if textbook else kernels.linear)(*given)
    gradients = torch.autograd.grad(result, given[:2], upstream.to(device, dtype))
    return result.detach(), *gradients  # type: ignore[return-value]


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


def _describe(shape: tuple[int, int, int]) -> str:
    rows, inputs, outputs = shape
    return f"{rows} x {inputs} by {inputs} x {outputs} numbers"


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
        f"Train with --device cpu until {device.type} is mended: update PyTorch and the driver "
        "of the GPU, then try again."
    )
