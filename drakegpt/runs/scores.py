"""Scores a run: exact losses of its weights on whole splits, stored in its folder.

Scores are stored with the checksum of the weights that they belong to, so that no
weights are scored twice. The folder also counts how often the validation split was
scored: a loss on a split that was used to choose between models is too low.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from drakegpt import files
from drakegpt.compute.device import choose_device
from drakegpt.data.dataset import Dataset
from drakegpt.display import Displayable, Table
from drakegpt.errors import RunError
from drakegpt.evaluation.scoring import (
    Score,
    score_tokens,
    score_training_tail,
    score_validation_split,
)
from drakegpt.files import parse_json
from drakegpt.models.layers import LanguageModel
from drakegpt.runs.run import Run

SCORES = "scores.json"
# How often the whole validation split was scored, and single scores of the last checkpoint.
SCORED = "scored.json"


@dataclass(frozen=True, repr=False)
class Scores(Displayable):
    """The exact scores of a run's last checkpoint, and of its best weights on validation."""

    train: Score  # on the part of the training split that it was trained on
    val: Score
    best_val: Score  # equal to `val` if no earlier weights had a lower estimated loss
    tail: Score | None = None  # on the tail of the training split, if that was held out

    def to_table(self) -> Table:
        """A row for each part of the text that was scored."""
        scored = {
            "train": self.train,
            "tail of training": self.tail,
            "validation": self.val,
            "validation, best weights": None if self.best_val == self.val else self.best_val,
        }
        rows = [
            (name, f"{score.loss:.4f}", f"{score.bits_per_character:.4f}", f"{score.tokens:,}")
            for name, score in scored.items()
            if score
        ]
        header = ("", "nats per token", "bits per character", "tokens scored")
        return Table("Exact scores over whole splits", rows, header)


def score_run(run: Run, device_name: str = "auto") -> Scores:
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
    trained_on, _ = data.select_splits(tail=run.config.holds_out_tail)
    train = score_tokens(model, trained_on, data.tokenizer, device)
    tail = score_training_tail(model, data, device) if run.config.holds_out_tail else None
    val = best_val = _score_last_on_validation(run, model, data, device)
    if (run.folder / "best.safetensors").exists():
        best_val = score_and_count(run, run.load_model(device, best=True), data, device)
    result = Scores(train, val, best_val, tail)
    _write(run, SCORES, {"of": identify_scored(run), **asdict(result)})
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
    _write_single(run, tail=result)
    return result


def score_and_count(run: Run, model: LanguageModel, data: Dataset, device: torch.device) -> Score:
    """Score a model made from a run on the whole validation split, and count that."""
    result = score_validation_split(model, data, device)
    count_validation_scoring(run)
    return result


def count_validation_scoring(run: Run) -> None:
    """Count that the whole validation split was scored once more."""
    _write(run, SCORED, _read_scored(run) | {"validation_scorings": _count_whole_scorings(run) + 1})


def count_validation_scorings(run: Run) -> int:
    """Count how often the validation split was scored: in evaluations, and as a whole."""
    estimated = (line.get("scored_on", "validation") == "validation" for line in run.evaluations)
    return sum(estimated) + _count_whole_scorings(run)


def read_scores(run: Run) -> Scores | None:
    """Read stored scores, if they are complete and belong to the run's present weights."""
    try:
        data = parse_json((run.folder / SCORES).read_text(encoding="utf-8"))
        if data["of"] != identify_scored(run):
            return None
        train, val, best_val = (parse_score(data[name]) for name in ("train", "val", "best_val"))
        tail = parse_score(data["tail"]) if run.config.holds_out_tail else None
    except (OSError, ValueError, TypeError, KeyError, RunError):
        return None
    if not (train and val and best_val) or (run.config.holds_out_tail and not tail):
        return None
    return Scores(train, val, best_val, tail)


def read_validation_score(run: Run) -> Score | None:
    """Read the last checkpoint's exact score on the validation split, if it is stored."""
    scores = read_scores(run)
    return scores.val if scores else _read_single(run, "val")


def read_tail_score(run: Run) -> Score | None:
    """Read the last checkpoint's exact score on the training split's tail, if it is stored."""
    scores = read_scores(run)
    return scores.tail if scores else _read_single(run, "tail")


def _load_verified_dataset(run: Run) -> Dataset:
    """Load the run's dataset and check that its tokens are intact."""
    data = run.load_dataset()
    data.verify()
    return data


def _score_last_on_validation(
    run: Run, model: LanguageModel, data: Dataset, device: torch.device
) -> Score:
    """Score the run's last checkpoint, loaded as `model`, unless its score is stored."""
    if stored := _read_single(run, "val"):
        return stored
    result = score_and_count(run, model, data, device)
    _write_single(run, val=result)
    return result


def _write_single(run: Run, **scores: Score) -> None:
    """Store scores of the last checkpoint, beside others of the same weights."""
    scored, identity = _read_scored(run), identify_scored(run)
    if scored.get("of") != identity:
        scored = {"validation_scorings": _count_whole_scorings(run), "of": identity}
    _write(run, SCORED, scored | {name: asdict(score) for name, score in scores.items()})


def _read_single(run: Run, name: str) -> Score | None:
    """Read a score that was stored by itself, if it belongs to the run's present weights."""
    scored = _read_scored(run)
    if name not in scored or scored.get("of") != identify_scored(run):
        return None
    return parse_score(scored[name])


def _read_scored(run: Run) -> dict[str, Any]:
    """Read the file of single scores; empty if it cannot be read."""
    try:
        scored = parse_json((run.folder / SCORED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return scored if isinstance(scored, dict) else {}


def _count_whole_scorings(run: Run) -> int:
    """Read how often the whole validation split was scored; 0 if that is not recorded."""
    times = _read_scored(run).get("validation_scorings")
    return times if type(times) is int and times > 0 else 0


def _write(run: Run, name: str, values: Mapping[str, Any]) -> None:
    files.write_text(run.folder / name, json.dumps(values, indent=2))


def parse_score(values: Any) -> Score | None:
    """Return a stored score, if it is complete and its numbers are valid."""
    try:
        score = Score(**values)
    except TypeError:
        return None
    counts = (score.tokens, score.characters)
    finite = type(score.loss) is float and math.isfinite(score.loss)
    return score if finite and all(type(n) is int and n > 0 for n in counts) else None


def identify_scored(run: Run) -> dict[str, str]:
    """Return what scores belong to: the weights' checksum and the dataset's version."""
    return {
        "weights": run.last_checkpoint().verify()["weights.safetensors"],
        "dataset_version": run.info["dataset_version"],
    }
