"""The study of a sweep: its trials, their owners and their results.

Several processes may work on one study, on one machine or several. A trial belongs to the
process that holds its lock, a file in the study's folder on that machine. When the process
ends, so does the lock, and any other process with that folder may resume the trial.

Not here: training a trial (`runner`).
"""

import math
import re
import uuid
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import MedianPruner
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from drakegpt import files, home
from drakegpt.errors import UsageError
from drakegpt.sweep.definition import Definition
from drakegpt.sweep.space import Axis, Range, Value
from drakegpt.sweep.storage import explain_errors, open_storage

State = Literal[
    "unfinished", "complete", "pruned", "impossible", "diverged", "out of memory", "failed"
]

DEFAULT_TRIALS = 20
# Trials are pruned once this many are complete, after the first quarter of their iterations.
UNPRUNED_TRIALS = 5
UNPRUNED_SHARE = 4
# A trial without an owner for this long belonged to a process that was killed at its start.
OWNER_SECONDS = 60
# Attempts from the same iteration whose process was killed, after which a trial has failed.
ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """The parameters and the result of one trial."""

    number: int  # from 1
    params: Mapping[str, Value]
    state: State
    loss: float | None  # nats per token: exact if complete, else the last estimate
    val_loss: float | None = None  # exact, on validation; equals `loss` if that ranks trials
    iterations: int
    why: str
    run: str
    seconds: float | None  # from its start to its end, including interruptions

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**vars(self), "params": dict(self.params)}


class Trial:
    """A trial locked by this process within a `with` statement; resumable if it has not ended."""

    def __init__(self, study: "Study", trial: optuna.Trial, number: int, lock: FileLock) -> None:
        """`number` counts from 1; `lock` is held."""
        self.number = number
        # Not read from the storage, which is not trusted to name a folder.
        self.run_name = f"{study.definition.name}_{number:04}"
        self.params = study.definition.shorten(trial.params)
        self._study, self._trial, self._lock = study, trial, lock
        self._reported = set(_read_trial(study, trial).intermediate_values)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def note_length(self, iterations: int) -> None:
        """Record the total number of iterations of its run."""
        self._study.note(self._trial, length=iterations)

    def count_attempt(self, reached: int) -> bool:
        """Count an attempt that starts from a saved iteration; returns whether it is allowed.

        It is not after `ATTEMPTS` attempts from there that neither ended nor were
        uncounted: an OOM-killed process cannot report.
        """
        facts = self._facts()
        attempts = facts.get("attempts", 0) if facts.get("reached") == reached else 0
        if attempts < ATTEMPTS:
            self._study.note(self._trial, attempts=attempts + 1, reached=reached)
        return attempts < ATTEMPTS

    def uncount_attempt(self) -> None:
        """Do not count this attempt, as it ended for a known reason other than the trial."""
        self._study.note(self._trial, attempts=self._facts()["attempts"] - 1)

    def _facts(self) -> dict[str, Any]:
        """Return the facts recorded for the trial."""
        with self._study.explain_errors():
            facts: dict[str, Any] = self._trial.user_attrs
            return facts

    def report(self, iteration: int, loss: float) -> None:
        """Report an estimate of the loss that ranks trials; earlier reports are kept."""
        with self._study.explain_errors():
            if iteration not in self._reported:
                self._trial.report(loss, iteration)
                self._reported.add(iteration)

    def find_duplicate(self) -> TrialRow | None:
        """Find an ended trial with the same hyperparameters, whose result would be the same."""
        ended = (row for row in self._study.rows() if row.state not in ("unfinished", "failed"))
        return next((row for row in ended if row.params == self.params), None)

    def copy_result(self, other: TrialRow) -> None:
        """End the trial with the result and the run of another."""
        why = other.why or f"The same as trial {other.number}."
        reached = {"iterations": other.iterations, "estimate": other.loss}
        self._study.note(self._trial, run=other.run, val_loss=other.val_loss, **reached)
        loss = other.loss if other.state == "complete" else None
        self._study.end(self._trial, other.state, why, loss)

    def should_prune(self) -> bool:
        """Whether to prune: at least half of the complete trials were better at this iteration.

        Only trials of the same length are compared.
        """
        with self._study.explain_errors():
            return self._study.definition.prune and self._study.is_above_median(self._trial)

    def complete(self, loss: float, val_loss: float | None = None) -> None:
        """End the trial with its exact loss that ranks trials, and the one on validation."""
        self._study.note(self._trial, val_loss=loss if val_loss is None else val_loss)
        self._study.end(self._trial, "complete", "", loss)

    def end_early(self, state: State, why: str) -> None:
        """End the trial without a loss; the sampler treats that as a bad result."""
        self._study.end(self._trial, state, why, None)


class Study:
    """A study that several processes may have open. Raises `RunError` if its storage fails."""

    def __init__(
        self, definition: Definition, trials: int | None = None, storage: str | None = None
    ) -> None:
        """`trials`: their total number; `storage`: an SQLite file or a database's URL.

        Raises `UsageError` if another study has that name.
        """
        self.definition = definition
        self.total = _count_total(definition, trials)
        self.folder = home.sweeps() / definition.name
        self.place = storage or str(self.folder / "study.db")
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        # Processes claim trials one at a time, or two could claim the same one.
        self._turn = FileLock(self.folder / "locks" / "turn")
        with self._turn:
            self._home = _get_home_id(self.folder / "locks")
            kept = open_storage(self.place)
            with self.explain_errors():
                self._study = optuna.create_study(
                    storage=kept,
                    sampler=RandomSampler(0),  # until a trial has its own
                    study_name=definition.name,
                    direction="minimize",
                    load_if_exists=True,
                )
            with self.explain_errors():
                self._check_identity()

    def next(self) -> Trial | None:
        """Claim an abandoned trial or a new one; `None` if there is none left."""
        with self._turn, self.explain_errors():
            return self._take_abandoned() or self._ask_new()

    def rows(self) -> list[TrialRow]:
        """List all trials, in the order of their numbers."""
        with self.explain_errors():
            return [_make_row(self, trial, number) for number, trial in self._numbered()]

    def explain_errors(self) -> AbstractContextManager[None]:
        """Turn errors of the storage, and of malformed rows in it, into `RunError`."""
        return explain_errors(self.place)

    def note(self, trial: optuna.Trial, **facts: Any) -> None:
        """Record facts about a trial."""
        with self.explain_errors():
            for name, value in facts.items():
                trial.set_user_attr(name, value)

    def is_above_median(self, trial: optuna.Trial) -> bool:
        """Whether a trial's lowest estimate is above the median of others at its iteration."""
        length = trial.user_attrs["length"]
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        # A trial that copied another's result has neither length nor estimates.
        lengths = [facts["length"] for other in complete if "length" in (facts := other.user_attrs)]
        if len(lengths) < UNPRUNED_TRIALS or set(lengths) != {length}:
            return False
        self._study.pruner = MedianPruner(UNPRUNED_TRIALS, length // UNPRUNED_SHARE)
        return trial.should_prune()

    def end(self, trial: optuna.Trial, state: State, why: str, loss: float | None) -> None:
        """Record the end of a trial; the sampler learns from `loss`."""
        self.note(trial, state=state, why=why)
        with self.explain_errors():
            if loss is None:
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                self._study.tell(trial, loss)

    def _check_identity(self) -> None:
        """Store the definition in a new study; refuse one with another definition or direction."""
        wanted = self.definition.identity()
        if self._study.direction != StudyDirection.MINIMIZE:
            raise ValueError("its trials are not ranked by the lowest value")
        if not self._study.user_attrs:
            self._study.set_user_attr("definition", wanted)
        known = self._study.user_attrs.get("definition", {})
        if other := [key for key in wanted if known.get(key) != wanted[key]]:
            raise UsageError(
                f"There is a sweep named '{self.definition.name}' with other "
                f"{', '.join(other).replace('_', ' ')}.",
                "Take another --name, or leave it out; to resume that sweep, repeat its command "
                "unchanged.",
            )

    def _numbered(self) -> list[tuple[int, FrozenTrial]]:
        """Number the trials from 1, without surplus ones that machines created at the same time."""
        trials = self._study.get_trials(deepcopy=False)
        counted = [trial for trial in trials if "surplus" not in trial.user_attrs]
        return list(enumerate(counted, 1))

    def _ask_new(self) -> Trial | None:
        """Create a trial with hyperparameters, unless there are enough."""
        if len(self._numbered()) >= self.total:
            return None
        trial = self._study.ask()
        (number,) = (n for n, other in self._numbered() if other.number == trial.number)
        if number > self.total:  # another machine was faster
            trial.set_user_attr("surplus", True)
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        lock = self._lock(trial.number)
        lock.acquire(timeout=0)
        return self._claim(trial, number, lock)

    def _take_abandoned(self) -> Trial | None:
        """Claim a trial whose process has ended, if there is one."""
        for number, known in self._numbered():
            if known.state != TrialState.RUNNING or not self._may_take(known):
                continue
            lock = self._lock(known.number)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                trial = optuna.Trial(self._study, known._trial_id)
                if _read_trial(self, trial).state == TrialState.RUNNING:
                    return self._claim(trial, number, lock)
                lock.release()
        return None

    def _may_take(self, trial: FrozenTrial) -> bool:
        """Whether a trial's lock is in this folder, or its process was killed at its start."""
        home = trial.user_attrs.get("home")
        if home is not None or trial.datetime_start is None:
            return bool(home == self._home)
        return (datetime.now() - trial.datetime_start).total_seconds() > OWNER_SECONDS

    def _claim(self, trial: optuna.Trial, number: int, lock: FileLock) -> Trial:
        """Record this process as the owner of a locked trial, and suggest its hyperparameters."""
        try:
            trial.set_user_attr("home", self._home)
            self._study.sampler = _make_sampler(self.definition, number)
            for name, axis in self.definition.space.items():
                _suggest(trial, name, axis)
            found = Trial(self, trial, number, lock)
            trial.set_user_attr("run", found.run_name)
        except BaseException:
            lock.release()
            raise
        return found

    def _lock(self, number: int) -> FileLock:
        return FileLock(self.folder / "locks" / f"{number:04}")


def _get_home_id(locks: Path) -> str:
    """Return the random id of a folder of locks, created once; its `turn` lock must be held.

    The machine's name and the folder's path may change, so neither identifies it.
    """
    file = locks / "home"
    if not file.exists():
        files.write_text(file, uuid.uuid4().hex)
    return file.read_text(encoding="utf-8")


def _make_sampler(definition: Definition, number: int) -> BaseSampler:
    """Return the sampler of one trial, which draws the same values in any process."""
    if definition.sampler == "grid":
        with warnings.catch_warnings(category=ExperimentalWarning, action="ignore"):
            return PartialFixedSampler(dict(definition.grid[number - 1]), RandomSampler(0))
    seed = (definition.seed * 1_000_003 + number) % 2**32
    if definition.sampler == "random":
        return RandomSampler(seed)
    return TPESampler(seed=seed, constant_liar=True)


def _suggest(trial: optuna.Trial, name: str, axis: Axis) -> None:
    if not isinstance(axis, Range):
        trial.suggest_categorical(name, axis.values)
    elif isinstance(axis.low, int):
        trial.suggest_int(name, axis.low, int(axis.high), log=axis.log)
    else:
        trial.suggest_float(name, axis.low, axis.high, log=axis.log)


def _count_total(definition: Definition, trials: int | None) -> int:
    if definition.sampler == "grid":
        return min(trials or len(definition.grid), len(definition.grid))
    return trials or DEFAULT_TRIALS


def _read_trial(study: Study, trial: optuna.Trial) -> FrozenTrial:
    """Read the current state of a trial from the storage."""
    frozen: FrozenTrial = study._study.get_trials(deepcopy=False)[trial.number]
    return frozen


def _make_row(study: Study, trial: FrozenTrial, number: int) -> TrialRow:
    facts = trial.user_attrs
    drawn = trial.params
    complete = set(study.definition.space) <= set(drawn)
    ended, began = trial.datetime_complete, trial.datetime_start
    losses = trial.intermediate_values
    last = max(losses, default=0)
    # A trial that copied another's result was not trained itself.
    estimate = facts.get("estimate", losses.get(last))
    _check_facts(facts, study.definition.name)
    row = TrialRow(
        number=number,
        params=study.definition.shorten(drawn) if complete else {},
        state=facts.get("state", "failed") if trial.state.is_finished() else "unfinished",
        loss=trial.value if trial.state == TrialState.COMPLETE else estimate,
        val_loss=facts.get("val_loss"),
        iterations=facts.get("iterations", last),
        why=facts.get("why", ""),
        run="" if facts.get("state") == "impossible" else facts.get("run", ""),
        seconds=(ended - began).total_seconds() if ended and began else None,
    )
    _check_numbers(row)
    return row


def _check_numbers(row: TrialRow) -> None:
    """Raise `ValueError` if a number is missing, not finite or a word, which SQLite can hold."""
    if row.state == "complete" and row.loss is None:
        raise ValueError(f"trial {row.number} is complete without a loss")
    numbers = {"loss": row.loss, "val_loss": row.val_loss, "iterations": row.iterations}
    for name, value in numbers.items():
        if not isinstance(value, int | float | None):
            raise ValueError(f"{name} of trial {row.number} cannot be {value!r:.40}")
    for name, found in (*numbers.items(), *row.params.items()):
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError(f"{name} of trial {row.number} cannot be {found}")


def _check_facts(facts: Mapping[str, Any], study: str) -> None:
    """Raise `ValueError` for facts of the wrong type, and for a run that names another folder."""
    kinds: dict[str, tuple[type, ...]] = {
        "run": (str,), "why": (str,), "iterations": (int,), "length": (int,), "attempts": (int,),
        "reached": (int,), "estimate": (int, float, type(None)), "state": (str,),
        "val_loss": (int, float, type(None)),
    }  # fmt: skip
    for name, value in facts.items():
        if name in kinds and type(value) not in kinds[name]:
            raise ValueError(f"{name} of a trial is {value!r:.40}")
    if (state := facts.get("state", "failed")) not in get_args(State):
        raise ValueError(f"the state of a trial is {state!r:.40}")
    run = facts.get("run", "")
    if run and not re.fullmatch(rf"{re.escape(study)}_\d{{4,}}", run):
        raise ValueError(f"{run!r:.60} is not the name of a trial's run")
