"""One row of a comparison: a model with its settings, and the results of its runs.

Runs that differ in their seed alone are aggregated into one row of means.
`compare_losses` compares two rows and knows what is noise.

Not here: selecting runs (`agreement`), and tables of several rows (`ladder`).
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from drakegpt.config.presets import CLASS
from drakegpt.evaluation import noise
from drakegpt.evaluation.noise import Difference
from drakegpt.evaluation.trend import find_overfitting
from drakegpt.experiments.agreement import get_shared_settings
from drakegpt.experiments.formatting import format_difference
from drakegpt.models.size import count_total_parameters
from drakegpt.progress import Progress, silent
from drakegpt.runs.run import Run
from drakegpt.runs.scores import score_run
from drakegpt.wording import pluralize

# Settings that determine, with the seed, the initial weights and the training windows.
PAIRING_SETTINGS = (
    "model", "data", "context_length", "embedding_dim", "num_heads", "num_layers", "bits",
    "tie_embeddings", "init_from", "batch_size", "grad_accumulation", "window_order",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The results of one run. Losses in nats per token, over whole splits."""

    run: str
    seed: int
    train_loss: float
    val_loss: float
    best_val_loss: float  # of the weights with the lowest estimate
    bits_per_character: float
    tokens_per_second: float | None  # None for imported runs
    seconds: float | None
    iterations: int | None
    evaluations: tuple[dict[str, Any], ...]  # estimates made while training, oldest first
    history: str = ""  # the parts in which it was trained, if its length was changed

    @property
    def overfits_from(self) -> int | None:
        """The iteration from which validation loss rose while training loss fell, if any.

        `find_overfitting` decides on exact losses.
        """
        return find_overfitting(self.evaluations, self.val_loss, self.best_val_loss)


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A model and the results of its runs, one for each seed; figures are means over them."""

    model: str
    size: str
    preset: str = "none"
    tokenizer: str = "char"
    vocab_size: int = 0
    parameters: int
    results: tuple[RunResult, ...]
    gain: Difference | None = None  # over the model before, if both have the same settings
    # Rows with equal keys and seeds have equal initial weights and windows; empty if unknown.
    pairing_key: tuple[Any, ...] = ()
    shared: tuple[tuple[str, Any], ...] = ()  # settings that comparable runs share
    # Settings that differ from those of the other rows of its size: its value and theirs.
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    command: str = ""  # trains its model with the settings of the others

    @property
    def label(self) -> str:
        """The model's name, with its size, preset and tokenizer where these are not the default."""
        special = [
            name for name in (self.size, self.preset) if name not in ("default", "none", CLASS)
        ]
        if not self.per_character:
            special.append(pluralize(self.vocab_size, f"{self.tokenizer.upper()} token"))
        if any(result.history for result in self.results):
            special.append("extended")
        return self.model + (f" ({', '.join(special)})" if special else "")

    @property
    def marked_label(self) -> str:
        """The label, with an asterisk if the row has other settings."""
        return f"{self.label} *" if self.differs else self.label

    @property
    def formatted_gain(self) -> str:
        """The gain for a table; empty if there is none or it is not finite."""
        if self.gain is None or not self.gain.finite:
            return ""
        return format_difference(self.gain.decrease, within_noise=self.gain.within_noise)

    @property
    def comparable(self) -> bool:
        """Whether its losses are finite and of runs with the settings of the others."""
        losses = (self.train_loss, self.val_loss, self.bits_per_character)
        return not self.differs and all(map(math.isfinite, losses))

    @property
    def settings_note(self) -> str:
        """A sentence about the settings in which it differs from the others; empty if in none."""
        if not self.differs:
            return ""
        settings = "; ".join(
            f"{name} {_format_setting(own)}, others {_format_setting(theirs)}"
            for name, (own, theirs) in self.differs.items()
        )
        return (
            f"{self.label} was trained with other settings ({settings}), so it has no gain and is "
            "excluded from all verdicts."
        )

    @property
    def per_character(self) -> bool:
        """Whether its tokens are characters."""
        return self.tokenizer == "char"

    @property
    def unit(self) -> str:
        """The unit that losses are per; only losses of the same unit can be compared."""
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
        """Mean validation loss of the weights with the lowest estimates."""
        return self._mean(lambda result: result.best_val_loss)

    @property
    def bits_per_character(self) -> float:
        """Mean over the runs."""
        return self._mean(lambda result: result.bits_per_character)

    @property
    def perplexity(self) -> float:
        """E to the mean validation loss."""
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
        """Mean over the runs where it is known; `None` if for none."""
        return self._mean_if_known([result.tokens_per_second for result in self.results])

    @property
    def seconds(self) -> float | None:
        """Mean over the runs where it is known; `None` if for none."""
        return self._mean_if_known([result.seconds for result in self.results])

    @property
    def lengths(self) -> tuple[int, ...]:
        """The distinct numbers of iterations of its runs, in ascending order."""
        return tuple(sorted({result.iterations for result in self.results if result.iterations}))

    @property
    def iterations(self) -> int | None:
        """The iterations of the longest run; `None` if unknown."""
        return max(self.lengths, default=None)

    @property
    def overfits_from(self) -> int | None:
        """The median iteration from which its runs overfit, if more than half of them do."""
        starts = [r.overfits_from for r in self.results if r.overfits_from is not None]
        return statistics.median_low(starts) if 2 * len(starts) > len(self.results) else None

    @property
    def overfits_by(self) -> float:
        """The final validation loss less the best, mean over the runs that overfit."""
        rises = [r.val_loss - r.best_val_loss for r in self.results if r.overfits_from is not None]
        return statistics.fmean(rises) if rises else 0.0

    @property
    def histories(self) -> tuple[tuple[dict[str, Any], ...], ...]:
        """The evaluations of each run that has recorded any."""
        return tuple(result.evaluations for result in self.results if result.evaluations)

    @property
    def evaluations(self) -> tuple[dict[str, Any], ...]:
        """The mean of the runs' evaluations, at iterations where all runs have one."""
        if len(self.histories) == 1:
            return self.histories[0]
        return tuple(_average_evaluations(lines) for lines in self._align_histories())

    @property
    def scored_on(self) -> str:
        """The held-out split that its evaluations scored: a value of the setting `select_on`."""
        last = next((history[-1] for history in self.histories), {})
        return str(last.get("scored_on", "validation"))

    def range_over_seeds(self, key: str) -> list[tuple[int, float, float]]:
        """Return (iteration, lowest, highest) of `key` over all runs, for each evaluation."""
        aligned = self._align_histories()
        values = [(lines[0]["iteration"], [line[key] for line in lines]) for lines in aligned]
        return [(iteration, min(found), max(found)) for iteration, found in values]

    def _align_histories(self) -> list[list[dict[str, Any]]]:
        """Group evaluations by iteration, where all runs have one; a resumed run has others too."""
        runs = [{line["iteration"]: line for line in history} for history in self.histories]
        shared = [i for i in runs[0] if all(i in run for run in runs)] if runs else []
        return [[run[iteration] for run in runs] for iteration in shared]

    def to_json(self) -> dict[str, Any]:
        """Return means, spreads and the results of each run as plain values."""
        own = ("model", "size", "preset", "tokenizer", "vocab_size", "parameters")
        means = (
            "train_loss", "train_spread", "val_loss", "val_spread",
            "best_val_loss", "bits_per_character", "perplexity", "tokens_per_second", "seconds",
            "iterations", "overfits_from",
        )  # fmt: skip
        results = [
            _replace_nonfinite(asdict(r) | {"overfits_from": r.overfits_from}) for r in self.results
        ]
        gain = self.gain and {"val_gain": self.gain.decrease, "val_gain_noise": self.gain.noise}
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


def aggregate_runs(
    runs: Sequence[Run], device_name: str = "auto", progress: Progress = silent
) -> ResultRow:
    """Score runs that differ in their seed alone and aggregate them into one row."""
    first = runs[0]
    return ResultRow(
        model=first.config.model,
        size=first.config.size,
        preset=first.config.preset,
        tokenizer=first.tokenizer.kind,
        vocab_size=first.tokenizer.vocab_size,
        parameters=count_total_parameters(first.model_config),
        results=tuple(_score_run(run, device_name, progress) for run in runs),
        pairing_key=_get_pairing_key(first),
        shared=get_shared_settings(first),
    )


def _get_pairing_key(run: Run) -> tuple[Any, ...]:
    """Return what determines, with the seed, a run's initial weights and windows.

    Empty for a run that was not trained here.
    """
    if run.derived:
        return ()
    return (run.info["dataset_version"], *(getattr(run.config, name) for name in PAIRING_SETTINGS))


def _score_run(run: Run, device_name: str, progress: Progress) -> RunResult:
    scores = score_run(run, device_name, progress)
    # Less than the last recorded evaluation if the last checkpoint is damaged.
    reached = run.last_checkpoint().iteration
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
    """Compare the means of a loss: its decrease from `before` to `row`, and the noise of that.

    Differences are paired by seed where both rows share initial weights and windows.
    """
    paired = before.pairing_key == row.pairing_key != () and before.seeds == row.seeds
    losses = ([loss(result) for result in each.results] for each in (before, row))
    return noise.compare_losses(*losses, same_seeds=paired)


def val_loss(result: RunResult) -> float:
    """Return the loss by which gains are computed."""
    return result.val_loss


def nats_per_character(result: RunResult) -> float:
    """Return the loss by which rows with different tokenizers are compared."""
    return result.bits_per_character * math.log(2)


def find_lowest(
    rows: Iterable[ResultRow], loss: Callable[[RunResult], float] = nats_per_character
) -> list[ResultRow]:
    """Find the comparable row with the lowest mean loss, followed by those within noise of it."""
    return noise.find_lowest(
        [row for row in rows if row.comparable],
        lambda row: statistics.fmean(map(loss, row.results)),
        lambda least, row: compare_losses(least, row, loss),
    )


def _format_setting(value: Any) -> str:
    """Format the value of a setting for a sentence."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "automatic"
    return f"{value:,}" if isinstance(value, int) else str(value) or "none"


def _replace_nonfinite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinities, which JSON cannot hold, by None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def _average_evaluations(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average the evaluations of several runs at the same iteration."""
    means = {
        key: statistics.fmean(line[key] for line in lines) for key in lines[0].keys() & _AVERAGED
    }
    return {"iteration": lines[0]["iteration"], **means}


_AVERAGED = {"train_loss", "val_loss", "tokens_per_second", "seconds"}
