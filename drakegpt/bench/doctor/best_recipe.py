"""Checks of what recipe best, and so `drakegpt write`, computes besides: Muon, rotary positions.

Both are compared with their published formulas, written out in float64 on the CPU.
"""

import torch
from torch import Tensor

from drakegpt.bench.doctor.arithmetic import advise, measure_error
from drakegpt.bench.doctor.checks import Finding, format_error, is_worse
from drakegpt.compute.rotary import BASE, rotate
from drakegpt.training.optimizers import Muon

# Matrices of equal shape that Muon updates together: of widths 32, 96 and 128.
MATRICES = ((2, 32, 32), (3, 96, 384), (3, 384, 96), (2, 128, 512), (3, 128, 128))
# Fifteen products in a row, which bring all singular values to about 1, round by 2**-24 each. In
# bfloat16 it is 2**-9, of which the root of 15 makes 0.8 %; measured is twice that.
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.05}
# Windows, tokens, heads and width.
ROTATED = ((32, 8, 4, 32), (4, 256, 6, 384))


def check_muon(device: torch.device) -> Finding:
    """Compare orthogonalized matrices with Jordan et al. 2024, in the format that a run takes."""
    nothing = torch.zeros(0, device=device)
    dtype = Muon(nothing, nothing, [], torch.zeros(()), 0.0).dtype  # that of a run
    worst, place = 0.0, ""
    for shape in MATRICES:
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
        exact = _orthogonalize_textbook(matrices.double())
        error = measure_error(Muon.orthogonalize(matrices.to(device), dtype), exact)
        if is_worse(error, worst):
            worst, place = error, f"{shape[0]} matrices of {shape[1]} x {shape[2]}"
    figure, bound = f"off by {format_error(worst)}", BOUNDS[dtype]
    measured = {"error": worst, "bound": bound}
    if worst <= bound:
        return Finding(figure, measured)
    problem = (
        f"Muon's update of {place} is off by {format_error(worst)}, where rounding explains "
        f"{format_error(bound)}."
    )
    fix = f"Train with --optimizer adamw. {advise(device)}"
    return Finding(figure, measured, "failed", problem, fix)


def check_rotary(device: torch.device) -> Finding:
    """Compare rotated queries and keys, and the gradient, with Su et al. 2021."""
    worst, bound = 0.0, BOUNDS[torch.float32]
    for B, T, heads, C in ROTATED:
        generator = torch.Generator().manual_seed(T)
        given = torch.randn(2, B, T, 3 * C, generator=generator)  # what is rotated; a gradient
        there = given[0].to(device, copy=True).requires_grad_()
        result = rotate(there, heads)
        (gradient,) = torch.autograd.grad(result, there, given[1].to(device))
        for found, tensor, turn in ((result.detach(), given[0], 1), (gradient, given[1], -1)):
            error = measure_error(found, _rotate_textbook(tensor.double(), heads, turn))
            worst = error if is_worse(error, worst) else worst
    figure, measured = f"off by {format_error(worst)}", {"error": worst, "bound": bound}
    if worst <= bound:
        return Finding(figure, measured)
    problem = (
        f"rotary positions are off by {format_error(worst)}, where rounding explains "
        f"{format_error(bound)}."
    )
    return Finding(figure, measured, "failed", problem, advise(device))


def _orthogonalize_textbook(matrices: Tensor) -> Tensor:
    """Take Newton-Schulz steps X <- a X + (b A + c A A) X, A = X X', on each wide matrix."""
    a, b, c = Muon.COEFFICIENTS
    results = []
    for matrix in matrices:
        tall = matrix.shape[0] > matrix.shape[1]
        x = (matrix.T if tall else matrix) / matrix.norm()
        for _ in range(Muon.STEPS):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        results.append(x.T if tall else x)
    return torch.stack(results)


def _rotate_textbook(query_key_value: Tensor, heads: int, turn: int) -> Tensor:
    """Multiply each pair of numbers of queries and keys, as a complex one, by exp(i angle)."""
    B, T, _ = query_key_value.shape
    parts = query_key_value.view(B, T, 3, heads, 2, -1)
    points = torch.complex(parts[..., 0, :], parts[..., 1, :])  # (B, T, 3, H, D / 2)
    half = points.shape[-1]
    frequencies = BASE ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = turn * torch.outer(torch.arange(T, dtype=torch.float64), frequencies)
    points[:, :, :2] *= torch.polar(torch.ones_like(angles), angles)[:, None, None]
    return torch.stack((points.real, points.imag), -2).flatten(2)
