"""One row of a comparison: a model with its settings, and what its runs came to.

Several runs that differ in their seed alone make one row, whose figures are
their means. Two rows are compared by `compare_losses`, which knows what is noise.
Not here: choosing runs, and setting rows side by side.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from drakegpt.evaluation import noise
from drakegpt.evaluation.noise import Difference
from drakegpt.experiments.agreement import get_shared_settings
from drakegpt.experiments.formatting import format_difference
from drakegpt.models.size import count_total_parameters
from drakegpt.runs.run import Run
from drakegpt.runs.scores import score_run
from drakegpt.wording import pluralize

# Settings that decide on initial weights and on the windows of training.
PAIRING_SETTINGS = (
    "model", "data", "context_length", "embedding_dim", "num_heads", "num_layers", "bits",
    "tie_embeddings", "init_from", "batch_size", "grad_accumulation", "window_order",
)  # fmt: skip
# Below this, the last weights count as no worse than the best.
OVERFITTING_NATS = 0.01


@dataclass(frozen=True, kw_only=True)
class RunResult:
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
class ResultRow:
    """A model and the results of its runs, one for each seed; figures are means over these."""

    model: str
    size: str
    preset: str = "none"
    tokenizer: str = "char"
    vocab_size: int = 0
    parameters: int
    results: tuple[RunResult, ...]
    gain: Difference | None = None  # from the model before, where both agree
    # What decides, with its seeds, on initial weights and windows; empty where that is not known.
    drawn_by: tuple[Any, ...] = ()
    shared: tuple[tuple[str, Any], ...] = ()  # settings that it shares with those it agrees with
    # Where it was trained otherwise than the others of its size: settings, its values and theirs.
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    command: str = ""  # that then trains its model as the others were

    @property
    def label(self) -> str:
        """The model's name, with its size, its system and its tokens where these are special."""
        special = [what for what in (self.size, self.preset) if what not in ("default", "none")]
        if not self.per_character:
            special.append(pluralize(self.vocab_size, f"{self.tokenizer.upper()} token"))
        if any(result.history for result in self.results):
            special.append("made longer")
        return self.model + (f" ({', '.join(special)})" if special else "")

    @property
    def marked_label(self) -> str:
        """The label, with a mark where it was trained otherwise than the others."""
        return f"{self.label} *" if self.differs else self.label

    @property
    def gain_shown(self) -> str:
        """The gain in a table; nothing where there is none to tell."""
        if self.gain is None or not self.gain.finite:
            return ""
        return format_difference(self.gain.fall, within_noise=self.gain.within_noise)

    @property
    def comparable(self) -> bool:
        """Whether its losses say anything beside those of the others: finite, trained alike."""
        losses = (self.train_loss, self.val_loss, self.bits_per_character)
        return not self.differs and all(map(math.isfinite, losses))

    @property
    def set_apart(self) -> str:
        """What it was trained with and the others were not, in a sentence; nothing if alike."""
        if not self.differs:
            return ""
        told = ", ".join(
            f"{name} {_format_setting(own)}, theirs {_format_setting(theirs)}"
            for name, (own, theirs) in self.differs.items()
        )
        return (
            f"{self.label} was trained otherwise than the others ({told}), so it has no gain and "
            "is in no verdict."
        )

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
        """Sample standard deviation of the training loss over seeds; `None` for a single run."""
        return self._spread([result.train_loss for result in self.results])

    @property
    def val_spread(self) -> float | None:
        """Sample standard deviation of the validation loss over seeds; `None` for a single run."""
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
        return tuple(_average_evaluations(lines) for lines in self._together())

    @property
    def scored_on(self) -> str:
        """What evaluations scored of what is not trained on, as the setting `select_on`."""
        last = next((history[-1] for history in self.histories), {})
        return str(last.get("scored_on", "validation"))

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
            "train_loss", "train_spread", "val_loss", "val_spread",
            "best_val_loss", "bits_per_character", "perplexity", "tokens_per_second", "seconds",
            "iterations", "overfits_from",
        )  # fmt: skip
        results = [
            _replace_nonfinite(asdict(r) | {"overfits_from": r.overfits_from}) for r in self.results
        ]
        gain = self.gain and {"val_gain": self.gain.fall, "val_gain_noise": self.gain.noise}
        differs = {
            name: {"run": own, "others": theirs} for name, (own, theirs) in self.differs.items()
        }
        return (
            {name: getattr(self, name) for name in own}
            | _replace_nonfinite({name: getattr(self, name) for name in means})
            | _replace_nonfinite(gain or dict.fromkeys(("val_gain", "val_gain_noise")))
            | {"differs": differs, "command": self.command, "runs": results}
        )

    def _mean(self, figure: Callable[[RunResult], float]) -> float:
        return statistics.fmean(figure(result) for result in self.results)

    @staticmethod
    def _spread(values: list[float]) -> float | None:
        if len(values) < 2 or not all(map(math.isfinite, values)):
            return None
        return statistics.stdev(values)

    @staticmethod
    def _mean_if_known(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None


def aggregate_runs(runs: Sequence[Run], device_name: str = "auto") -> ResultRow:
    """Score runs that differ in their seed alone, as one row."""
    first = runs[0]
    return ResultRow(
        model=first.config.model,
        size=first.config.size,
        preset=first.config.preset,
        tokenizer=first.tokenizer.kind,
        vocab_size=first.tokenizer.vocab_size,
        parameters=count_total_parameters(first.model_config),
        results=tuple(_score_run(run, device_name) for run in runs),
        drawn_by=_get_pairing_key(first),
        shared=get_shared_settings(first),
    )


def _get_pairing_key(run: Run) -> tuple[Any, ...]:
    """What decides, with its seed, on a run's initial weights and on its windows.

    Nothing of one that was not trained here.
    """
    if run.derived:
        return ()
    return (run.info["dataset_version"], *(getattr(run.config, name) for name in PAIRING_SETTINGS))


def _score_run(run: Run, device_name: str) -> RunResult:
    scores = score_run(run, device_name)
    reached = run.last_checkpoint().iteration  # less than was recorded if the last is damaged
    evaluations = [line for line in run.evaluations if line["iteration"] <= reached]
    last = evaluations[-1] if evaluations else {}
    return RunResult(
        run=run.name,
        seed=run.config.seed,
        train_loss=scores.train.loss,
        val_loss=scores.val.loss,
        best_val_loss=scores.best_val.loss,
        bits_per_character=scores.val.bits_per_character,
        tokens_per_second=last.get("tokens_per_second"),
        seconds=last.get("seconds"),
        iterations=last.get("iteration"),
        evaluations=tuple(evaluations),
        history=run.history,
    )


def compare_losses(
    before: ResultRow, row: ResultRow, loss: Callable[[RunResult], float]
) -> Difference:
    """How far the mean of a loss lies below that of another row, and what of that is noise."""
    alike = before.drawn_by == row.drawn_by != () and before.seeds == row.seeds
    losses = ([loss(result) for result in each.results] for each in (before, row))
    return noise.compare_losses(*losses, share_chance=alike)


def val_loss(result: RunResult) -> float:
    """The loss that gains are of."""
    return result.val_loss


def nats_per_character(result: RunResult) -> float:
    """The loss by which rows of different tokens can be compared."""
    return result.bits_per_character * math.log(2)


def find_lowest(
    rows: Iterable[ResultRow], loss: Callable[[RunResult], float] = nats_per_character
) -> list[ResultRow]:
    """The row with the lowest mean loss, and after it those within noise of it.

    Of those that can be compared.
    """
    return noise.find_lowest(
        [row for row in rows if row.comparable],
        lambda row: statistics.fmean(map(loss, row.results)),
        lambda least, row: compare_losses(least, row, loss),
    )


def _format_setting(value: Any) -> str:
    """The value of a setting in a sentence."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "left to the machine"
    return f"{value:,}" if isinstance(value, int) else str(value) or "none"


def _replace_nonfinite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures for JSON, which has no number that is not finite."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def _average_evaluations(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Evaluations of several runs after as many iterations, as one."""
    means = {
        key: statistics.fmean(line[key] for line in lines) for key in lines[0].keys() & _AVERAGED
    }
    return {"iteration": lines[0]["iteration"], **means}


_AVERAGED = {"train_loss", "val_loss", "tokens_per_second", "seconds"}
