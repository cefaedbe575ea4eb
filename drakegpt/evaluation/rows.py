"""One row of a comparison: a model with its settings, and what its runs came to.

Several runs that differ in their seed alone make one row, whose figures are
their means. Not here: choosing runs, and setting rows side by side.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Below this, the last weights count as no worse than the best.
OVERFITTING_NATS = 0.01


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one run came to. Losses in nats per token, over whole splits."""

    run: str
    seed: int
    train_loss: float
    val_loss: float
    best_val_loss: float  # of the weights whose estimate was lowest
    bits_per_character: float
    tokens_per_second: float | None  # None for imported runs
    seconds: float | None
    iterations: int | None
    evaluations: tuple[dict[str, Any], ...]  # made while training, oldest first
    history: str = ""  # in which parts it was trained, if its length was changed

    @property
    def overfits_from(self) -> int | None:
        """The iteration from which validation rose while training fell, if it came to that.

        That it came to that is told by exact losses, of the last weights and the
        best: estimates alone would be noise. Where it began is the estimate's lowest.
        """
        if self.val_loss - self.best_val_loss <= OVERFITTING_NATS or not self.evaluations:
            return None
        best = min(self.evaluations, key=lambda evaluation: float(evaluation["val_loss"]))
        fell = self.evaluations[-1]["train_loss"] < best["train_loss"]
        return int(best["iteration"]) if fell else None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model and the results of its runs, one for each seed; figures are means over these."""

    model: str
    size: str
    preset: str = "none"
    tokenizer: str = "char"
    vocab_size: int = 0
    parameters: int
    results: tuple[Result, ...]
    val_gain: float | None = None  # how far the loss fell against the model before, if there

    @property
    def label(self) -> str:
        """The model's name, with its size, its system and its tokens where these are special."""
        special = [what for what in (self.size, self.preset) if what not in ("default", "none")]
        if not self.per_character:
            special.append(f"{self.vocab_size:,} {self.tokenizer.upper()} tokens")
        if any(result.history for result in self.results):
            special.append("made longer")
        return self.model + (f" ({', '.join(special)})" if special else "")

    @property
    def per_character(self) -> bool:
        """Whether its losses are per character."""
        return self.tokenizer == "char"

    @property
    def unit(self) -> str:
        """What its losses are per; only those of the same unit can be compared."""
        return "character" if self.per_character else f"token of {self.vocab_size:,}"

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of its runs."""
        return tuple(result.run for result in self.results)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs."""
        return tuple(result.seed for result in self.results)

    @property
    def train_loss(self) -> float:
        """Mean loss on the training split."""
        return self._mean(lambda result: result.train_loss)

    @property
    def val_loss(self) -> float:
        """Mean loss on the validation split."""
        return self._mean(lambda result: result.val_loss)

    @property
    def best_val_loss(self) -> float:
        """Mean validation loss of the weights whose estimates were lowest."""
        return self._mean(lambda result: result.best_val_loss)

    @property
    def bits_per_character(self) -> float:
        """Mean over the runs."""
        return self._mean(lambda result: result.bits_per_character)

    @property
    def perplexity(self) -> float:
        """How many equally likely tokens would be as hard to guess, at the mean loss."""
        return math.exp(min(self.val_loss, 700.0))

    @property
    def train_spread(self) -> float | None:
        """Standard deviation of the training loss over seeds; `None` for a single run."""
        return self._spread([result.train_loss for result in self.results])

    @property
    def val_spread(self) -> float | None:
        """Standard deviation of the validation loss over seeds; `None` for a single run."""
        return self._spread([result.val_loss for result in self.results])

    @property
    def tokens_per_second(self) -> float | None:
        """Mean over the runs; `None` if it is not known."""
        return self._mean_if_known([result.tokens_per_second for result in self.results])

    @property
    def seconds(self) -> float | None:
        """Mean over the runs; `None` if it is not known."""
        return self._mean_if_known([result.seconds for result in self.results])

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many iterations its runs have, each number once, from the shortest on."""
        return tuple(sorted({result.iterations for result in self.results if result.iterations}))

    @property
    def iterations(self) -> int | None:
        """Those of the longest run; `None` if none is known."""
        return max(self.lengths, default=None)

    @property
    def overfits_from(self) -> int | None:
        """Where its runs began to overfit, if more than half of them did: the one in the middle."""
        begun = [r.overfits_from for r in self.results if r.overfits_from is not None]
        return statistics.median_low(begun) if 2 * len(begun) > len(self.results) else None

    @property
    def overfits_by(self) -> float:
        """How far above its best the validation loss ended, mean over the runs that overfit."""
        rises = [r.val_loss - r.best_val_loss for r in self.results if r.overfits_from is not None]
        return statistics.fmean(rises) if rises else 0.0

    @property
    def histories(self) -> tuple[tuple[dict[str, Any], ...], ...]:
        """The evaluations of each run that has any."""
        return tuple(result.evaluations for result in self.results if result.evaluations)

    @property
    def evaluations(self) -> tuple[dict[str, Any], ...]:
        """The mean of the runs' evaluations, where all of them have one."""
        if len(self.histories) == 1:
            return self.histories[0]
        return tuple(_mean_of(lines) for lines in self._together())

    def band(self, key: str) -> list[tuple[int, float, float]]:
        """Between what values `key` of the evaluations lies: (iteration, lowest, highest)."""
        values = [(ls[0]["iteration"], [line[key] for line in ls]) for ls in self._together()]
        return [(iteration, min(found), max(found)) for iteration, found in values]

    def _together(self) -> list[list[dict[str, Any]]]:
        """The evaluations of all runs after as many iterations; a resumed run may have others."""
        runs = [{line["iteration"]: line for line in history} for history in self.histories]
        shared = [i for i in runs[0] if all(i in run for run in runs)] if runs else []
        return [[run[iteration] for run in runs] for iteration in shared]

    def to_json(self) -> dict[str, Any]:
        """Means and spreads, and what each run came to."""
        own = ("model", "size", "preset", "tokenizer", "vocab_size", "parameters")
        means = (
            "train_loss", "train_spread", "val_loss", "val_spread", "val_gain",
            "best_val_loss", "bits_per_character", "perplexity", "tokens_per_second", "seconds",
            "iterations", "overfits_from",
        )  # fmt: skip
        results = [asdict(r) | {"overfits_from": r.overfits_from} for r in self.results]
        return {name: getattr(self, name) for name in own + means} | {"runs": results}

    def _mean(self, figure: Callable[[Result], float]) -> float:
        return statistics.fmean(figure(result) for result in self.results)

    @staticmethod
    def _spread(values: list[float]) -> float | None:
        return statistics.stdev(values) if len(values) > 1 else None

    @staticmethod
    def _mean_if_known(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None


def _mean_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Evaluations of several runs after as many iterations, as one."""
    means = {key: statistics.fmean(line[key] for line in lines) for key in lines[0].keys() & _MEANT}
    return {"iteration": lines[0]["iteration"], **means}


_MEANT = {"train_loss", "val_loss", "tokens_per_second", "seconds"}
