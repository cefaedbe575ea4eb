"""The runs that `drakegpt write` trains: one for each version of a text, and goes on with.

Not here: which settings suit a text (`config.text_settings`), and what is written
(`generation.text`).
"""

from collections.abc import Mapping
from typing import Any

from drakegpt.config import resolve
from drakegpt.config.text_settings import (
    REFERENCE,
    choose_model,
    choose_text_settings,
    choose_vocab_size,
)
from drakegpt.data.corpus import StageProgress
from drakegpt.data.dataset import Dataset
from drakegpt.data.reencode import BPE_SUFFIX, encode_as_bpe
from drakegpt.errors import DrakeGPTError
from drakegpt.evaluation.trend import judge_trend
from drakegpt.runs.changes import change_settings
from drakegpt.runs.lookup import list_runs
from drakegpt.runs.run import Run
from drakegpt.runs.start import resolve_run, start_run
from drakegpt.training.run_length import count_operations, iters_for_epochs, measure_step

PURPOSE = "write"
FEWEST_ITERATIONS = 1000  # before a text counts as learned, however short it is
SHARE_OF_TRAINING = 0.9  # of the time: the rest is for evaluations, scoring and writing


def find_writer(data: Dataset) -> Run | None:
    """Find the run that writes from this version of a text, whether it is finished or not."""
    writers = [run for run in _list_writers(data) if _is_on(run, data)]
    return writers[-1] if writers else None


def has_older_writer(data: Dataset) -> bool:
    """Whether a run writes from another version of this text."""
    return any(not _is_on(run, data) for run in _list_writers(data))


def _list_writers(data: Dataset) -> list[Run]:
    names = (data.name, data.name + BPE_SUFFIX)
    return [
        run
        for run in list_runs()
        if run.info.get("purpose") == PURPOSE and run.config.data in names
    ]


def _is_on(run: Run, data: Dataset) -> bool:
    """Whether a run's dataset has the same text in the same splits, with tokens of any kind."""
    try:
        theirs = run.load_dataset().metadata
    except DrakeGPTError:  # removed, or damaged
        return False
    ours = data.metadata
    return (theirs.text_sha256, theirs.split) == (ours.text_sha256, ours.split)


def start_writer(
    data: Dataset, minutes: float, progress: StageProgress | None = None, **changes: Any
) -> Run:
    """Start the run that suits a text and a time; `changes` are further settings, such as a seed.

    Measures first, in a second or two, how fast this machine trains. `progress` is called while
    the text is encoded with other tokens, if those suit it.
    """
    operations = _measure_rate(data, changes) * minutes * 60 * SHARE_OF_TRAINING
    if vocab_size := choose_vocab_size(data.metadata.characters, operations):
        data = encode_as_bpe(data, vocab_size, progress)
    bpe = data.tokenizer.unit != "character"
    model, settings = choose_model(bpe=bpe), choose_text_settings(operations, bpe=bpe)
    shortest = min(data.metadata.train_tokens, data.metadata.val_tokens)
    settings["context_length"] = min(settings["context_length"], shortest - 1)
    per_step = settings["batch_size"] * settings["context_length"]
    least_epochs = -(-FEWEST_ITERATIONS * per_step // data.metadata.train_tokens)
    settings["max_epochs"] = max(settings["max_epochs"], least_epochs)
    given = settings | {"minutes": minutes, "seed": 1} | changes
    step = resolve_run(model, "default", data, given, first_estimate=1)
    iters = max(1, int(operations / count_operations(step, data.tokenizer.vocab_size)))
    iters = min(iters, iters_for_epochs(step, data, step.max_epochs))
    given = {"warmup_iters": max(1, min(step.warmup_iters, iters // 10))} | given
    config = resolve_run(model, "default", data, given, first_estimate=iters)
    return start_run(config, data, facts={"purpose": PURPOSE})


def _measure_rate(data: Dataset, changes: Mapping[str, Any]) -> float:
    """Measure the floating-point operations of training that this machine does in a second."""
    given = REFERENCE | {"iters": 1, "device": changes.get("device", "auto")}
    reference = resolve("TransformerLM", "default", data.name, given)
    vocab_size = data.tokenizer.vocab_size
    return count_operations(reference, vocab_size) / measure_step(reference, vocab_size)


def has_learned_text(run: Run) -> bool:
    """Whether a run ended because it had read its text as often as helps."""
    config = run.config
    if not config.max_epochs or judge_trend(run.evaluations).kind == "falls":
        return False
    most = iters_for_epochs(config, run.load_dataset(), config.max_epochs)
    return bool(run.last_evaluation.get("iteration", 0) >= most)


def give_more_time(run: Run, minutes: float) -> Run:
    """Return a finished run with more minutes, however often it has read its text."""
    spent = float(run.last_evaluation["seconds"]) / 60
    return change_settings(run, {"minutes": spent + minutes, "max_epochs": 0})
