"""Whether two mean losses differ by more than noise; whatever says so asks here.

The noise of a difference is two standard errors of it: of the difference of two
means, or, where runs of the same seeds share all chance, of their paired differences.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

# Nats. The standard deviation that a single run is taken to have, and the least noise of any
# difference: with every setting and the seed equal, the number of threads alone, which changes
# how sums are rounded, moves the validation loss of a run of 10,000 iterations by 0.0045.
MIN_NOISE = 0.005
STANDARD_ERRORS = 2  # standard errors: about 95 % of what chance does

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Difference:
    """How far a mean loss lies below another, and how far chance alone would take it."""

    fall: float  # nats; NaN if one of the losses is not finite
    noise: float
    runs: tuple[int, int]  # of each mean
    paired: bool = False  # whether the noise is that of differences between runs of one seed

    @property
    def finite(self) -> bool:
        """Whether it can tell anything."""
        return math.isfinite(self.fall)

    @property
    def lower(self) -> bool:
        """Whether the second mean is lower than the first, noise aside."""
        return self.fall > self.noise

    @property
    def higher(self) -> bool:
        """Whether the second mean is higher than the first, noise aside."""
        return self.fall < -self.noise

    @property
    def within_noise(self) -> bool:
        """Whether it is neither."""
        return self.finite and not (self.lower or self.higher)

    @property
    def amount(self) -> str:
        """Its size in nats."""
        return f"{abs(self.fall):.3f}"

    @property
    def grounds(self) -> str:
        """What a sentence adds in brackets: noise, pairs, one seed against several."""
        least, most = min(self.runs), max(self.runs)
        told = [f"within noise: {abs(self.fall):.4f} of {self.noise:.4f} nats"] * self.within_noise
        told += ["paired by seed"] * self.paired
        told += [f"one seed against a mean of {most}"] * (least == 1 < most)
        return f" ({'; '.join(told)})" if told else ""

    def where(self, lower: str, higher: str, level: str) -> str:
        """Where the second mean lies: so many nats `lower` or `higher`, or `level`."""
        if self.within_noise:
            return level
        return f"{self.amount} nats {lower if self.lower else higher}"


def compare_losses(
    first: Sequence[float], second: Sequence[float], *, same_seeds: bool = False
) -> Difference:
    """How far the mean of the second losses lies below that of the first.

    `same_seeds`: the losses are in the order of the same seeds, and runs of one
    seed began with the same weights and drew the same windows.
    """
    counts = (len(first), len(second))
    if not all(map(math.isfinite, (*first, *second))):
        return Difference(math.nan, math.nan, counts)
    fall = statistics.fmean(first) - statistics.fmean(second)
    noise = max(
        MIN_NOISE, STANDARD_ERRORS * math.hypot(_standard_error(first), _standard_error(second))
    )
    falls = [a - b for a, b in zip(first, second, strict=True)] if same_seeds else []
    paired = max(MIN_NOISE, STANDARD_ERRORS * _standard_error(falls)) if len(falls) > 1 else noise
    return Difference(fall, min(noise, paired), counts, paired < noise)


def compare_with_level(level: float, losses: Sequence[float]) -> Difference:
    """How far the mean of some losses lies below a level that chance has no part in."""
    count = len(losses)
    if not all(map(math.isfinite, losses)):
        return Difference(math.nan, math.nan, (count, count))
    noise = max(MIN_NOISE, STANDARD_ERRORS * _standard_error(losses))
    return Difference(level - statistics.fmean(losses), noise, (count, count))


def compare_within_runs(falls: Sequence[float], least: float = MIN_NOISE) -> Difference:
    """How far a loss fell within runs: the mean of what it fell in each; paired by itself."""
    count = len(falls)
    if not all(map(math.isfinite, falls)):
        return Difference(math.nan, math.nan, (count, count))
    error = _standard_error(falls) if count > 1 else 0.0
    return Difference(statistics.fmean(falls), max(least, STANDARD_ERRORS * error), (count, count))


def _standard_error(values: Sequence[float]) -> float:
    """Of a mean; a single value has a standard deviation of `MIN_NOISE`."""
    deviation = statistics.stdev(values) if len(values) > 1 else MIN_NOISE
    return deviation / math.sqrt(len(values))


def find_lowest(
    entries: Sequence[Entry],
    mean: Callable[[Entry], float],
    compared: Callable[[Entry, Entry], Difference],
) -> list[Entry]:
    """The entry with the lowest finite mean, and after it all within noise of it."""
    finite = [entry for entry in entries if math.isfinite(mean(entry))]
    if not finite:
        return []
    least = min(finite, key=mean)
    others = [entry for entry in finite if entry is not least]
    return [least, *(entry for entry in others if compared(least, entry).within_noise)]
