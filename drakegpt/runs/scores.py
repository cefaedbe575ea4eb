"""Scores a run: exact losses of its weights on whole splits, stored in its folder.

Not here: the files that keep them (`stored_scores`), which are read without PyTorch.
"""

import torch

from drakegpt.compute.device import choose_device
from drakegpt.data.dataset import Dataset
from drakegpt.evaluation.score import Score
from drakegpt.evaluation.scoring import (
    TokenReport,
    score_tokens,
    score_training_tail,
    score_validation_split,
)
from drakegpt.models.layers import LanguageModel
from drakegpt.progress import Progress, silent
from drakegpt.runs.run import Run
from drakegpt.runs.stored_scores import (
    Scores,
    count_validation_scoring,
    read_scores,
    read_single,
    read_tail_score,
    read_validation_score,
    write_scores,
    write_single,
)


def score_run(run: Run, device_name: str = "auto", progress: Progress = silent) -> Scores:
    """Score a run's last checkpoint on both splits, or read the stored scores.

    The validation split's first token is predicted from the training split's last, so
    every token of it counts; the training split's first token has no context and is
    left out. Raises `RunError` or `CorpusError` if the checkpoint or the dataset is
    missing or damaged.
    """
    device = choose_device(device_name)
    if (stored := read_scores(run)) is not None:
        return stored
    model = run.load_model(device)
    data = _load_verified_dataset(run)
    trained_on, evaluated = data.select_splits(tail=run.config.holds_out_tail)
    has_best = (run.folder / "best.safetensors").exists()
    val_tokens = data.metadata.val_tokens
    scorings = has_best + (read_single(run, "val") is None)  # of the validation split
    all_tokens = len(trained_on) - 1 + val_tokens * scorings
    all_tokens += len(evaluated) if run.config.holds_out_tail else 0
    scored = 0

    def report(tokens: int) -> None:
        nonlocal scored
        scored += tokens
        progress(f"scoring {run.name}", scored, all_tokens)

    train = score_tokens(model, trained_on, data.tokenizer, device, report)
    tail = score_training_tail(model, data, device, report) if run.config.holds_out_tail else None
    val = best_val = _score_last_on_validation(run, model, data, device, report)
    if has_best:
        best = run.load_model(device, best=True)
        best_val = score_and_count(run, best, data, device, report)
    result = Scores(train, val, best_val, tail)
    write_scores(run, result)
    return result


def score_run_on_validation(run: Run, device_name: str = "auto") -> Score:
    """Score a run's last checkpoint on the validation split, or read the stored score.

    The same score as `score_run`'s, for a tenth of the work. Raises as `score_run` does.
    """
    if stored := read_validation_score(run):
        return stored
    device = choose_device(device_name)
    data = _load_verified_dataset(run)
    return _score_last_on_validation(run, run.load_model(device), data, device)


def score_run_on_tail(run: Run, device_name: str = "auto") -> Score:
    """Score a run's last checkpoint on the training split's tail, or read the stored score.

    Only a run that held the tail out has not been trained on it. Raises as `score_run` does.
    """
    if stored := read_tail_score(run):
        return stored
    device = choose_device(device_name)
    data = _load_verified_dataset(run)
    result = score_training_tail(run.load_model(device), data, device)
    write_single(run, tail=result)
    return result


def score_and_count(
    run: Run,
    model: LanguageModel,
    data: Dataset,
    device: torch.device,
    report: TokenReport | None = None,
) -> Score:
    """Score a model made from a run on the whole validation split, and count that."""
    result = score_validation_split(model, data, device, report)
    count_validation_scoring(run)
    return result


def _load_verified_dataset(run: Run) -> Dataset:
    """Load the run's dataset and check that its tokens are intact."""
    data = run.load_dataset()
    data.verify()
    return data


def _score_last_on_validation(
    run: Run,
    model: LanguageModel,
    data: Dataset,
    device: torch.device,
    report: TokenReport | None = None,
) -> Score:
    """Score the run's last checkpoint, loaded as `model`, unless its score is stored."""
    if stored := read_single(run, "val"):
        return stored
    result = score_and_count(run, model, data, device, report)
    write_single(run, val=result)
    return result
