"""The study of a sweep: which trials there are, whose turn it is, what each came to.

Several processes may work on one study, here or on other machines. A trial
belongs to the process that holds its lock, a file in the study's folder there.
Where the process is gone, so is the lock, and any other with that folder takes
the trial up as it is. How a trial trains is for `trials`.
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
from types import TracebackType
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
from drakegpt.sweep.storage import explained, open_storage

State = Literal[
    "unfinished", "complete", "pruned", "impossible", "diverged", "out of memory", "failed"
]

DEFAULT_TRIALS = 20
# A trial is held against the others once so many are complete, and a quarter of it is done.
UNPRUNED_TRIALS = 5
UNPRUNED_SHARE = 4
# Without an owner for so long, a trial's process was killed before it could say whose it is.
OWNER_SECONDS = 60
# What Optuna and we raise over rows that neither can have written.
ODD = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
# So often a trial may be begun at the same place and lose its process before it is given up.
ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """What is known of one trial."""

    number: int  # from 1
    params: Mapping[str, Value]
    state: State
    loss: float | None  # nats per token: exact if complete, else the last estimate
    val_loss: float | None = None  # exact, on validation; the same where that is what chooses
    iterations: int
    why: str
    run: str
    seconds: float | None  # from its beginning to its end, with any time between

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {**vars(self), "params": dict(self.params)}


class Trial:
    """One trial, ours until the end of a `with` statement; if it has no end then, to go on with."""

    def __init__(self, study: "Study", trial: optuna.Trial, number: int, lock: FileLock) -> None:
        """`number` counts from 1; `lock` is held."""
        self.number = number
        # Not as the storage has it: that may come from elsewhere, and this names a folder.
        self.run_name = f"{study.definition.name}_{number:04}"
        self.params = study.definition.used(trial.params)
        self._study, self._trial, self._lock = study, trial, lock
        self._reported = set(_frozen(study, trial).intermediate_values)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def note_length(self, iterations: int) -> None:
        """Say how many iterations its run has in all."""
        self._study.note(self._trial, length=iterations)

    def begin(self, reached: int) -> bool:
        """Count an attempt that goes on from a saved iteration; whether it may be made.

        It may not if as many have begun there already and none came to an end or
        was taken back: a process that the system ends for want of memory says no word.
        """
        facts = self._facts()
        attempts = facts.get("attempts", 0) if facts.get("reached") == reached else 0
        if attempts < ATTEMPTS:
            self._study.note(self._trial, attempts=attempts + 1, reached=reached)
        return attempts < ATTEMPTS

    def take_back(self) -> None:
        """Do not count this attempt: something that is known ended it, not the trial itself."""
        self._study.note(self._trial, attempts=self._facts()["attempts"] - 1)

    def _facts(self) -> dict[str, Any]:
        """What is noted of the trial."""
        with self._study.explained():
            facts: dict[str, Any] = self._trial.user_attrs
            return facts

    def report(self, iteration: int, loss: float) -> None:
        """Note an estimate of the loss that chooses; what is noted already stays."""
        with self._study.explained():
            if iteration not in self._reported:
                self._trial.report(loss, iteration)
                self._reported.add(iteration)

    def same(self) -> TrialRow | None:
        """An ended trial with the same hyperparameters, which could only come to the same."""
        ended = (row for row in self._study.rows() if row.state not in ("unfinished", "failed"))
        return next((row for row in ended if row.params == self.params), None)

    def end_as(self, other: TrialRow) -> None:
        """End the trial as that one did, with its run."""
        why = other.why or f"The same as trial {other.number}."
        reached = {"iterations": other.iterations, "estimate": other.loss}
        self._study.note(self._trial, run=other.run, val_loss=other.val_loss, **reached)
        loss = other.loss if other.state == "complete" else None
        self._study.end(self._trial, other.state, why, loss)

    def hopeless(self) -> bool:
        """Whether at least half of the complete trials were better at this iteration.

        Only trials of the same length can be held against each other.
        """
        with self._study.explained():
            return self._study.definition.prune and self._study.worse_than_most(self._trial)

    def complete(self, loss: float, val_loss: float | None = None) -> None:
        """End the trial with its exact loss that chooses, and that on validation beside it."""
        self._study.note(self._trial, val_loss=loss if val_loss is None else val_loss)
        self._study.end(self._trial, "complete", "", loss)

    def give_up(self, state: State, why: str) -> None:
        """End the trial before its time; the sampler takes that for a bad result."""
        self._study.end(self._trial, state, why, None)


class Study:
    """A study that several processes may have open. Raises `RunError` if it cannot be kept."""

    def __init__(
        self, definition: Definition, trials: int | None = None, storage: str | None = None
    ) -> None:
        """`trials`: how many there shall be in all; `storage`: an SQLite file or a database's URL.

        Raises `UsageError` if there is another study of that name.
        """
        self.definition = definition
        self.total = _total(definition, trials)
        self.folder = home.sweeps() / definition.name
        self.place = storage or str(self.folder / "study.db")
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        # One at a time, or two processes would take the same turn.
        self._turn = FileLock(self.folder / "locks" / "turn")
        with self._turn:
            self._home = _name_of(self.folder / "locks")
            kept = open_storage(self.place)
            with self.explained():
                self._study = optuna.create_study(
                    storage=kept,
                    sampler=RandomSampler(0),  # until a trial has its own
                    study_name=definition.name,
                    direction="minimize",
                    load_if_exists=True,
                )
            with self.explained():
                self._check_identity()

    def next(self) -> Trial | None:
        """A trial to work on: one that was abandoned, or a new one; `None` if there is none."""
        with self._turn, self.explained():
            return self._abandoned() or self._new()

    def rows(self) -> list[TrialRow]:
        """All trials, in the order of their numbers."""
        with self.explained():
            return [_row(self, trial, number) for number, trial in self._numbered()]

    def explained(self) -> AbstractContextManager[None]:
        """Explain what goes wrong with the storage, and with rows that nobody can have written."""
        return explained(self.place, *ODD)

    def note(self, trial: optuna.Trial, **facts: Any) -> None:
        """Keep facts about a trial."""
        with self.explained():
            for name, value in facts.items():
                trial.set_user_attr(name, value)

    def worse_than_most(self, trial: optuna.Trial) -> bool:
        """Whether a trial's lowest estimate is above the median of others at its iteration."""
        length = trial.user_attrs["length"]
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        # One that ended as another did was not trained: it has neither length nor estimates.
        lengths = [facts["length"] for other in complete if "length" in (facts := other.user_attrs)]
        if len(lengths) < UNPRUNED_TRIALS or set(lengths) != {length}:
            return False
        self._study.pruner = MedianPruner(UNPRUNED_TRIALS, length // UNPRUNED_SHARE)
        return trial.should_prune()

    def end(self, trial: optuna.Trial, state: State, why: str, loss: float | None) -> None:
        """Tell what a trial came to; `loss` is what the sampler learns from."""
        self.note(trial, state=state, why=why)
        with self.explained():
            if loss is None:
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                self._study.tell(trial, loss)

    def _check_identity(self) -> None:
        """Keep the definition with a new study; refuse a study of another, or ranked otherwise."""
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
                "Take another --name, or leave it out; to go on with that sweep, repeat its "
                "command as it was.",
            )

    def _numbered(self) -> list[tuple[int, FrozenTrial]]:
        """The trials that count, from 1; not those that other machines took one too many of."""
        trials = self._study.get_trials(deepcopy=False)
        counted = [trial for trial in trials if "surplus" not in trial.user_attrs]
        return list(enumerate(counted, 1))

    def _new(self) -> Trial | None:
        """A new trial with its hyperparameters, unless there are enough."""
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
        return self._ours(trial, number, lock)

    def _abandoned(self) -> Trial | None:
        """A trial whose process is gone, if there is one."""
        for number, known in self._numbered():
            if known.state != TrialState.RUNNING or not self._may_take(known):
                continue
            lock = self._lock(known.number)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                trial = optuna.Trial(self._study, known._trial_id)
                if _frozen(self, trial).state == TrialState.RUNNING:
                    return self._ours(trial, number, lock)
                lock.release()
        return None

    def _may_take(self, trial: FrozenTrial) -> bool:
        """Whether a trial's lock would be in this home, or its process was killed too soon."""
        owner = trial.user_attrs.get("home")
        if owner is not None or trial.datetime_start is None:
            return bool(owner == self._home)
        return (datetime.now() - trial.datetime_start).total_seconds() > OWNER_SECONDS

    def _ours(self, trial: optuna.Trial, number: int, lock: FileLock) -> Trial:
        """A trial whose lock we hold, with its owner and its hyperparameters written down."""
        try:
            trial.set_user_attr("home", self._home)
            self._study.sampler = _sampler(self.definition, number)
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


def _name_of(locks: Path) -> str:
    """The random name of a folder of locks, given to it at first; its `turn` must be ours.

    Neither the machine's name nor the folder's place would do: both may change.
    """
    file = locks / "home"
    if not file.exists():
        files.write_text(file, uuid.uuid4().hex)
    return file.read_text(encoding="utf-8")


def _sampler(definition: Definition, number: int) -> BaseSampler:
    """What draws the hyperparameters of one trial, the same whichever process asks."""
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


def _total(definition: Definition, trials: int | None) -> int:
    if definition.sampler == "grid":
        return min(trials or len(definition.grid), len(definition.grid))
    return trials or DEFAULT_TRIALS


def _frozen(study: Study, trial: optuna.Trial) -> FrozenTrial:
    """A trial as it is in the storage now."""
    frozen: FrozenTrial = study._study.get_trials(deepcopy=False)[trial.number]
    return frozen


def _row(study: Study, trial: FrozenTrial, number: int) -> TrialRow:
    facts = trial.user_attrs
    drawn = trial.params
    complete = set(study.definition.space) <= set(drawn)
    ended, began = trial.datetime_complete, trial.datetime_start
    losses = trial.intermediate_values
    last = max(losses, default=0)
    # A trial that ended as another did was not trained itself.
    estimate = facts.get("estimate", losses.get(last))
    _check_facts(facts, study.definition.name)
    row = TrialRow(
        number=number,
        params=study.definition.used(drawn) if complete else {},
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
    """Raise `ValueError` where a trial's numbers are none, which nobody notes of a trial."""
    if row.state == "complete" and row.loss is None:
        raise ValueError(f"trial {row.number} is complete without a loss")
    for name, value in {**row.params, "loss": row.loss, "val_loss": row.val_loss}.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} of trial {row.number} cannot be {value}")


def _check_facts(facts: Mapping[str, Any], study: str) -> None:
    """Raise `ValueError` for what cannot be noted of a trial; its run names a folder."""
    kinds: dict[str, tuple[type, ...]] = {
        "run": (str,), "why": (str,), "iterations": (int,), "length": (int,), "attempts": (int,),
        "reached": (int,), "estimate": (int, float, type(None)), "state": (str,),
        "val_loss": (int, float, type(None)),
    }  # fmt: skip
    for name, value in facts.items():
        if name in kinds and type(value) not in kinds[name]:
            raise ValueError(f"{name} of a trial cannot be {value!r:.40}")
    if (state := facts.get("state", "failed")) not in get_args(State):
        raise ValueError(f"a trial cannot be {state!r:.40}")
    run = facts.get("run", "")
    if run and not re.fullmatch(rf"{re.escape(study)}_\d{{4,}}", run):
        raise ValueError(f"{run!r:.60} is the name of no run of a trial")
