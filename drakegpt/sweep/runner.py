"""Run one trial: create or resume its run, train it, prune it, score it.

The run is an ordinary one, in a folder named after the study and the trial's number.
Results are reported to the study; nothing is printed.
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
from drakegpt.runs.create import create_run
from drakegpt.runs.lookup import apply_incidental_settings, get_identifying_settings
from drakegpt.runs.run import OlderRunError, Run, open_run
from drakegpt.runs.scores import score_run_on_tail, score_run_on_validation
from drakegpt.runs.session import TrainingSession
from drakegpt.sweep.definition import Definition
from drakegpt.sweep.study import ATTEMPTS, State, Trial
from drakegpt.training.memory import check_memory
from drakegpt.training.reports import Evaluation, Report
from drakegpt.wording import format_command

ALWAYS_KILLED = (
    f"Started {ATTEMPTS} times from the same iteration, and each time its process was killed. "
    "There may be too little memory for it."
)

Show = Callable[[TrainConfig], AbstractContextManager[Callable[[Report], None]]]


def run_trial(definition: Definition, trial: Trial, show: Show, stop: Callable[[], bool]) -> State:
    """Train the run of a trial and report the result to the study; returns the trial's state.

    `show` is called with the run's settings and returns the consumer of its reports. Once
    `stop` returns true, the run is saved and stays resumable: the state is "unfinished".
    Errors that do not depend on the hyperparameters are raised.
    """
    try:
        config = definition.config(trial.params)
        check_memory(config, definition.data)
    except (UsageError, CorpusError) as error:
        trial.end_early("impossible", error.problem)
        return "impossible"
    except NotEnoughMemoryError as error:
        trial.end_early("out of memory", error.problem)
        return "out of memory"
    if same := trial.find_duplicate():
        trial.copy_result(same)
        return same.state
    run = _open_or_create_run(trial, definition, config)
    trial.note_length(config.iters)
    if not trial.count_attempt(_find_saved_iteration(run)):
        trial.end_early("failed", ALWAYS_KILLED)
        return "failed"
    with _uncount_known_errors(trial):
        return _train_and_report(run, trial, show, stop)


@contextmanager
def _uncount_known_errors(trial: Trial) -> Iterator[None]:
    """Do not count an attempt that ends by Ctrl-C or an explained error."""
    try:
        yield
    except (KeyboardInterrupt, DrakeGPTError):
        with suppress(DrakeGPTError):  # the storage may be what failed
            trial.uncount_attempt()
        raise


def _train_and_report(run: Run, trial: Trial, show: Show, stop: Callable[[], bool]) -> State:
    """Train the rest of a run, score it, and report the result to the study."""
    try:
        state: State = "complete" if run.finished else _train(run, trial, show, stop)
        if state == "complete":
            _report_result(run, trial)
    except DivergedError as error:
        state = "diverged"
        trial.end_early(state, error.problem)
    except (NotEnoughMemoryError, MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        state = "out of memory"
        trial.end_early(state, "")
    return state


def _find_saved_iteration(run: Run) -> int:
    """Return the last intact checkpoint's iteration; without one, remove all and start anew."""
    try:
        return run.last_checkpoint().iteration if run.checkpoints else 0
    except RunError:
        for damaged in run.checkpoints:
            files.remove_folder(damaged.folder)
        return 0


def _train(run: Run, trial: Trial, show: Show, stop: Callable[[], bool]) -> State:
    """Train or resume a run: returns "complete", "pruned" or, if stopped, "unfinished"."""
    with TrainingSession(run, resume=True) as session, show(run.config) as progress:
        try:
            for report in session.reports():
                progress(report)
                if isinstance(report, Evaluation):
                    trial.report(report.iteration, report.val_loss)
                    at_end = report.iteration >= run.config.iters
                    if not at_end and trial.should_prune():
                        session.save()
                        session.stop("pruned")
                        trial.end_early("pruned", "")
                        return "pruned"
                if stop():
                    session.save()
                    return "unfinished"
        except DivergedError:
            session.stop("diverged")
            raise
    return "complete"


def _report_result(run: Run, trial: Trial) -> None:
    """Report the exact loss of a finished run.

    If trials are ranked by the tail of the training split, validation is scored once, for
    information.
    """
    for line in run.evaluations:  # a killed process may not have reported its last ones
        trial.report(line["iteration"], line["val_loss"])
    tail = run.config.holds_out_tail
    loss = (score_run_on_tail if tail else score_run_on_validation)(run, run.config.device).loss
    if not math.isfinite(loss):
        part = "tail of the training split" if tail else "validation split"
        raise DivergedError(f"The loss on the whole {part} is {loss}.", "")
    trial.complete(loss, score_run_on_validation(run, run.config.device).loss if tail else loss)


def _open_or_create_run(trial: Trial, definition: Definition, config: TrainConfig) -> Run:
    """Open the run of a trial, or create it.

    Raises `UsageError` if a run with other settings has its name.
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
        get_identifying_settings(run.config) != get_identifying_settings(config)
        or run.sweep != definition.name
    ):
        raise UsageError(
            f"The run '{run.name}' exists and is not a trial of this sweep.",
            f"Remove it: `{format_command('runs remove', run.name)}`; or take another --name.",
        )
    return apply_incidental_settings(run, config)
