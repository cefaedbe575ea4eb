"""Checks of what dropout drops: a share that chance allows, of each kind, and the right factor.

The number of zeros among n independent numbers is binomial. It is compared with its
expectation, in standard deviations; random numbers come from a seed, so that a check gives
the same result each time.
"""

import math
from collections.abc import Callable

import torch

from drakegpt.bench.doctor.arithmetic import advise, keep_random_state
from drakegpt.bench.doctor.checks import Finding, is_worse
from drakegpt.compute import kernels

RATES = (0.1, 0.2, 0.5)
DRAWN = 2**20  # numbers that dropout is applied to
# Windows, tokens and heads of attention, whose heads are as wide as windows have tokens: whole,
# several windows together, and in blocks of queries.
ATTENDED = ((32, 8, 4), (16, 64, 4), (16, 256, 2))
# A right share is further from its expectation than this once in two million times.
DEVIATIONS = 5.0
# The factor of the CPU's kernel fits a rate that is rounded to a multiple of 2**-16.
FACTOR_BOUND = 1e-4


def check_dropout(device: torch.device) -> Finding:
    """Count what dropout drops of activations, of pairs of neighbours, and within attention."""
    measured, worst, problem = dict[str, float](), 0.0, ""
    with keep_random_state(device):
        torch.manual_seed(1)
        for rate in RATES:
            for name, count in COUNTS.items():
                dropped, among = count(device, rate)
                share = measured[f"{name}_{rate:g}"] = dropped / among
                expected = rate**2 if name == "neighbours" else rate
                spread = math.sqrt(expected * (1 - expected) / among)
                deviations = abs(share - expected) / spread
                if is_worse(deviations, worst):
                    worst = deviations
                    problem = _describe(name, rate, share, expected, deviations)
            factor = kernels.dropout(torch.ones(DRAWN, device=device), rate).max().item()
            if not abs(factor * (1 - rate) - 1) <= FACTOR_BOUND:
                worst, right = math.inf, 1 / (1 - rate)
                problem = f"dropout at {rate:g} multiplies by {factor:.4f}, not by {right:.4f}."
    shares = ", ".join(f"{measured[f'activations_{rate:g}']:.4f}" for rate in RATES)
    figure = f"drops {shares} at {', '.join(f'{rate:g}' for rate in RATES)}"
    measured |= {"deviations": worst, "bound": DEVIATIONS}
    if worst <= DEVIATIONS:
        return Finding(figure, measured)
    return Finding(figure, measured, "failed", problem, advise(device))


def _describe(name: str, rate: float, share: float, expected: float, deviations: float) -> str:
    of = {
        "activations": "of the activations",
        "neighbours": "of the pairs of neighbours, both numbers",
        "attention": "of the weights of attention",
    }[name]
    return (
        f"dropout at a rate of {rate:g} drops {share:.2%} {of}, instead of {expected:.2%}, which "
        f"is {deviations:,.0f} times the standard deviation."
    )


def _drop_activations(device: torch.device, rate: float) -> tuple[float, int]:
    """Return how many numbers are dropped, and of how many."""
    result = kernels.dropout(torch.ones(DRAWN, device=device), rate)
    return float((result == 0).sum()), DRAWN


def _drop_neighbours(device: torch.device, rate: float) -> tuple[float, int]:
    """Return in how many pairs of neighbours both numbers are dropped, and of how many."""
    result = kernels.dropout(torch.ones(DRAWN // 2, 2, device=device), rate)
    return float((result == 0).all(1).sum()), DRAWN // 2


def _drop_attention(device: torch.device, rate: float) -> tuple[float, int]:
    """Return how many weights of attention are dropped, and of how many.

    The value of token j is 1 at number j alone, so that number j of the result of token t is
    the weight that t gives to j. With queries and keys of 0 no weight is 0 but a dropped one.
    """
    dropped, among = 0.0, 0
    for B, T, heads in ATTENDED:
        query_key_value = torch.zeros(B, T, 3, heads, T, device=device)
        query_key_value[:, :, 2] = torch.eye(T, device=device)[:, None, :]
        weights = kernels.causal_attention(query_key_value.flatten(2), heads, rate)
        past = torch.ones(T, T, dtype=torch.bool, device=device).tril()[:, None, :]
        zeros = (weights.view(B, T, heads, T) == 0) & past
        dropped, among = dropped + float(zeros.sum()), among + B * heads * T * (T + 1) // 2
    return dropped, among


COUNTS: dict[str, Callable[[torch.device, float], tuple[float, int]]] = {
    "activations": _drop_activations,
    "neighbours": _drop_neighbours,
    "attention": _drop_attention,
}
