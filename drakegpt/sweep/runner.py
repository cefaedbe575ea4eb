"""One trial as a run: made or taken up, trained, held against the others, scored.

Its run is like any other, in a folder named after the study and the trial's
number. What the trial comes to is told to the study; nothing is shown here.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from drakegpt import files, home
from drakegpt.config import TrainConfig
from drakegpt.errors import (
    CorpusError,
    DivergedError,
    DrakeGPTError,
    NotEnoughMemoryError,
    RunError,
    UsageError,
    is_out_of_memory,
)
from drakegpt.runs.lookup import identifying_settings, with_current_storage
from drakegpt.runs.run import OlderRunError, Run, create_run, open_run
from drakegpt.runs.scores import score_tail, score_validation
from drakegpt.runs.session import TrainingSession
from drakegpt.sweep.definition import Definition
from drakegpt.sweep.study import ATTEMPTS, State, Trial
from drakegpt.training.memory import check_memory
from drakegpt.training.trainer import Evaluation, Step
from drakegpt.wording import format_command

NEVER_ENDED = (
    f"Begun {ATTEMPTS} times at the same place and never ended: each time its process was gone. "
    "There may be too little memory for it."
)

Show = Callable[[TrainConfig], AbstractContextManager[Callable[[Step | Evaluation], None]]]


def attempt(definition: Definition, trial: Trial, show: Show, stop: Callable[[], bool]) -> State:
    """Train the run of a trial and tell the study what it came to.

    `show` is given the run's settings, and then its reports. Once `stop` says
    so, the run is saved and the trial left to whoever goes on: it is "unfinished".
    Raises what has to do with the machine, not with the hyperparameters.
    """
    try:
        config = definition.config(trial.params)
        check_memory(config, definition.data)
    except (UsageError, CorpusError) as error:
        trial.give_up("impossible", error.problem)
        return "impossible"
    except NotEnoughMemoryError as error:
        trial.give_up("out of memory", error.problem)
        return "out of memory"
    if same := trial.same():
        trial.end_as(same)
        return same.state
    run = _run_of(trial, definition, config)
    trial.note_length(config.iters)
    if not trial.begin(_reached(run)):
        trial.give_up("failed", NEVER_ENDED)
        return "failed"
    with _known_ends(trial):
        return _outcome(run, trial, show, stop)


@contextmanager
def _known_ends(trial: Trial) -> Iterator[None]:
    """Do not hold against a trial what the user does, or is told."""
    try:
        yield
    except (KeyboardInterrupt, DrakeGPTError):
        with suppress(DrakeGPTError):  # the storage may be what failed
            trial.take_back()
        raise


def _outcome(run: Run, trial: Trial, show: Show, stop: Callable[[], bool]) -> State:
    """Train what is left of a run, score it, and tell the study what it came to."""
    try:
        state: State = "complete" if run.finished else _train(run, trial, show, stop)
        if state == "complete":
            _finish(run, trial)
    except DivergedError as error:
        state = "diverged"
        trial.give_up(state, error.problem)
    except (NotEnoughMemoryError, MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        state = "out of memory"
        trial.give_up(state, "")
    return state


def _reached(run: Run) -> int:
    """The last iteration that is saved whole; where there is none, the run begins anew."""
    try:
        return run.last_checkpoint().iteration if run.checkpoints else 0
    except RunError:
        for damaged in run.checkpoints:
            files.remove_folder(damaged.folder)
        return 0


def _train(run: Run, trial: Trial, show: Show, stop: Callable[[], bool]) -> State:
    """Train a run, or go on with it: "complete", "pruned" or, if stopped, "unfinished"."""
    with TrainingSession(run, resume=True) as recorder, show(run.config) as progress:
        try:
            for report in recorder.reports():
                progress(report)
                if isinstance(report, Evaluation):
                    trial.report(report.iteration, report.val_loss)
                    at_end = report.iteration >= run.config.iters
                    if not at_end and trial.hopeless():
                        recorder.save()
                        recorder.stop("pruned")
                        trial.give_up("pruned", "")
                        return "pruned"
                if stop():
                    recorder.save()
                    return "unfinished"
        except DivergedError:
            recorder.stop("diverged")
            raise
    return "complete"


def _finish(run: Run, trial: Trial) -> None:
    """Tell the exact loss of a run that has come to its end.

    Where the tail of the training split chooses, validation is scored now, once,
    and is only told beside it.
    """
    for line in run.evaluations:  # some may have been made by a process that could not tell
        trial.report(line["iteration"], line["val_loss"])
    tail = run.config.holds_out_tail
    loss = (score_tail if tail else score_validation)(run, run.config.device).loss
    if not math.isfinite(loss):
        part = "tail of the training split" if tail else "validation split"
        raise DivergedError(f"The loss on the whole {part} is {loss}.", "")
    trial.complete(loss, score_validation(run, run.config.device).loss if tail else loss)


def _run_of(trial: Trial, definition: Definition, config: TrainConfig) -> Run:
    """The run of a trial: a new one, or the one that was begun.

    Raises `UsageError` if its name is that of a run with other settings.
    """
    folder = home.runs() / trial.run_name
    if not folder.exists():
        facts = {"sweep": definition.name, "trial": trial.number}
        return create_run(config, definition.data, trial.run_name, facts=facts)
    try:
        run = open_run(folder)
    except OlderRunError as error:
        raise UsageError(
            f"The sweep {definition.name} is from an older drakegpt.",
            "Take another --name; its runs stay until you remove them.",
        ) from error
    if (
        identifying_settings(run.config) != identifying_settings(config)
        or run.sweep != definition.name
    ):
        raise UsageError(
            f"There is a run named '{run.name}' already, and it is no trial of this sweep.",
            f"Remove it: `{format_command('runs remove', run.name)}`; or take another --name.",
        )
    return with_current_storage(run, config)
