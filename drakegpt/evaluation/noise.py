"""Decides whether two mean losses differ by more than noise.

The noise of a difference is two standard errors: of the difference of two means or,
where runs with the same seeds share their random numbers, of their paired differences.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

# Nats. The standard deviation assumed for a single run, and the least noise of any difference:
# with all settings and the seed equal, the number of threads alone, which changes how sums are
# rounded, moves the validation loss of a run of 10,000 iterations by 0.0045.
MIN_NOISE = 0.005
STANDARD_ERRORS = 2  # covers about 95 % of random differences

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Difference:
    """How far a mean loss lies below another, and the noise of that difference."""

    decrease: float  # nats, from the first to the second; NaN if one of the losses is not finite
    noise: float
    runs: tuple[int, int]  # number of runs in each mean
    paired: bool = False  # whether the noise is that of differences between runs with equal seeds

    @property
    def finite(self) -> bool:
        """Whether both losses are finite."""
        return math.isfinite(self.decrease)

    @property
    def lower(self) -> bool:
        """Whether the second mean is lower than the first by more than noise."""
        return self.decrease > self.noise

    @property
    def higher(self) -> bool:
        """Whether the second mean is higher than the first by more than noise."""
        return self.decrease < -self.noise

    @property
    def within_noise(self) -> bool:
        """Whether the difference is finite and not more than noise."""
        return self.finite and not (self.lower or self.higher)

    @property
    def amount(self) -> str:
        """The absolute difference in nats, as text."""
        return f"{abs(self.decrease):.3f}"

    @property
    def remarks(self) -> str:
        """A sentence's addition in brackets: noise, pairing, one seed against several."""
        fewest, most = min(self.runs), max(self.runs)
        within = f"within noise: {abs(self.decrease):.4f} of {self.noise:.4f} nats"
        remarks = [within] * self.within_noise
        remarks += ["paired by seed"] * self.paired
        remarks += [f"one seed against a mean of {most}"] * (fewest == 1 < most)
        return f" ({'; '.join(remarks)})" if remarks else ""

    def where(self, lower: str, higher: str, level: str) -> str:
        """Say where the second mean lies: "0.123 nats `lower`" (or `higher`), or `level`."""
        if self.within_noise:
            return level
        return f"{self.amount} nats {lower if self.lower else higher}"


def compare_losses(
    first: Sequence[float], second: Sequence[float], *, same_seeds: bool = False
) -> Difference:
    """Compare the mean of the second losses with that of the first.

    `same_seeds`: both are in the order of the same seeds, and runs with one seed started
    from the same weights and drew the same windows.
    """
    counts = (len(first), len(second))
    if not all(map(math.isfinite, (*first, *second))):
        return Difference(math.nan, math.nan, counts)
    decrease = statistics.fmean(first) - statistics.fmean(second)
    error = math.hypot(_standard_error(first), _standard_error(second))
    noise = max(MIN_NOISE, STANDARD_ERRORS * error)
    pairs = [a - b for a, b in zip(first, second, strict=True)] if same_seeds else []
    paired = max(MIN_NOISE, STANDARD_ERRORS * _standard_error(pairs)) if len(pairs) > 1 else noise
    return Difference(decrease, min(noise, paired), counts, paired < noise)


def compare_with_level(level: float, losses: Sequence[float]) -> Difference:
    """Compare the mean of some losses with a level that is not random."""
    count = len(losses)
    if not all(map(math.isfinite, losses)):
        return Difference(math.nan, math.nan, (count, count))
    noise = max(MIN_NOISE, STANDARD_ERRORS * _standard_error(losses))
    return Difference(level - statistics.fmean(losses), noise, (count, count))


def compare_within_runs(decreases: Sequence[float], least: float = MIN_NOISE) -> Difference:
    """Judge the mean of how far a loss decreased within each of some runs.

    `least`: the noise is at least this.
    """
    count = len(decreases)
    if not all(map(math.isfinite, decreases)):
        return Difference(math.nan, math.nan, (count, count))
    error = _standard_error(decreases) if count > 1 else 0.0
    noise = max(least, STANDARD_ERRORS * error)
    return Difference(statistics.fmean(decreases), noise, (count, count))


def find_lowest(
    entries: Sequence[Entry],
    mean: Callable[[Entry], float],
    compare: Callable[[Entry, Entry], Difference],
) -> list[Entry]:
    """Find the entry with the lowest finite mean, followed by all within noise of it."""
    finite = [entry for entry in entries if math.isfinite(mean(entry))]
    if not finite:
        return []
    lowest = min(finite, key=mean)
    others = [entry for entry in finite if entry is not lowest]
    return [lowest, *(entry for entry in others if compare(lowest, entry).within_noise)]


def _standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean; one value has a standard deviation of `MIN_NOISE`."""
    deviation = statistics.stdev(values) if len(values) > 1 else MIN_NOISE
    return deviation / math.sqrt(len(values))
