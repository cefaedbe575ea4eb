"""The scores of a run: its weights on whole splits, kept beside what they belong to.

Scores are kept in the run's folder, with the checksums of the weights that they
belong to, so no run is scored twice; and so is how often its validation split was
scored, for what is chosen by a split is no longer judged by it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from drakegpt import files
from drakegpt.data.dataset import Dataset
from drakegpt.display import Displayable, Table
from drakegpt.errors import RunError
from drakegpt.evaluation.scoring import Score, score_tokens, tail_score, validation_score
from drakegpt.files import parse_json
from drakegpt.models.layers import LanguageModel
from drakegpt.models.registry import choose_device
from drakegpt.runs.run import Run

SCORES = "scores.json"
# How often the whole validation split was scored, and what the last checkpoint came to alone.
SCORED = "scored.json"


@dataclass(frozen=True, repr=False)
class Scores(Displayable):
    """The exact scores of one run's last checkpoint, and its best weights on validation."""

    train: Score  # of what it was trained on
    val: Score
    best_val: Score  # the same as `val` where no weights were better by their estimate
    tail: Score | None = None  # of the tail of the training split, if that was held out

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


def score(run: Run, device_name: str = "auto") -> Scores:
    """Score the run's last checkpoint on both splits, or recall the scores from its folder.

    The validation split's first character is predicted from the training
    split's last, so each of its characters counts; the training split's first
    has nothing before it and is left out. Raises `RunError` or `CorpusError`
    when the checkpoint or the dataset is missing or damaged.
    """
    device = choose_device(device_name)
    if (known := recall(run)) is not None:
        return known
    model = run.load_model(device)
    data = run.dataset()
    data.verify()
    learnt, _ = data.select_splits(tail=run.config.holds_out_tail)
    train = score_tokens(model, learnt, data.tokenizer, device)
    tail = tail_score(model, data, device) if run.config.holds_out_tail else None
    val = best_val = _validation(run, model, data, device)
    if (run.folder / "best.safetensors").exists():
        best_val = counted_score(run, run.load_model(device, best=True), data, device)
    result = Scores(train, val, best_val, tail)
    _write(run, SCORES, {"of": _identity(run), **asdict(result)})
    return result


def score_validation(run: Run, device_name: str = "auto") -> Score:
    """Score the run's last checkpoint on the validation split alone, unless that is known.

    A tenth of the work of `score`, and the same figure. Raises as that does.
    """
    if known := known_validation(run):
        return known
    device = choose_device(device_name)
    data = run.dataset()
    data.verify()
    return _validation(run, run.load_model(device), data, device)


def score_tail(run: Run, device_name: str = "auto") -> Score:
    """Score the run's last checkpoint on the tail of the training split, unless that is known.

    A run that held it out has not seen it. Raises as `score` does.
    """
    if known := known_tail(run):
        return known
    device = choose_device(device_name)
    data = run.dataset()
    data.verify()
    result = tail_score(run.load_model(device), data, device)
    _keep(run, tail=result)
    return result


def known_validation(run: Run) -> Score | None:
    """The last checkpoint's exact score on validation, if it was ever scored."""
    scores = recall(run)
    return scores.val if scores else _kept(run, "val")


def known_tail(run: Run) -> Score | None:
    """The last checkpoint's exact score on the training split's tail, if it was ever scored."""
    scores = recall(run)
    return scores.tail if scores else _kept(run, "tail")


def validation_scorings(run: Run) -> int:
    """How often the run's validation split was scored: by evaluations, and as a whole since."""
    estimated = (line.get("scored_on", "validation") == "validation" for line in run.evaluations)
    return sum(estimated) + _times_scored(run)


def counted_score(run: Run, model: LanguageModel, data: Dataset, device: torch.device) -> Score:
    """Score a model made from a run on the whole of the validation split, and count that."""
    result = validation_score(model, data, device)
    _write(run, SCORED, _scored(run) | {"validation_scorings": _times_scored(run) + 1})
    return result


def _validation(run: Run, model: LanguageModel, data: Dataset, device: torch.device) -> Score:
    """Score the run's last checkpoint on validation, unless that is known."""
    if kept := _kept(run, "val"):
        return kept
    result = counted_score(run, model, data, device)
    _keep(run, val=result)
    return result


def _keep(run: Run, **scores: Score) -> None:
    """Write down scores of the last checkpoint, beside those of the same that are known."""
    scored, identity = _scored(run), _identity(run)
    if scored.get("of") != identity:
        scored = {"validation_scorings": _times_scored(run), "of": identity}
    _write(run, SCORED, scored | {name: asdict(score) for name, score in scores.items()})


def _kept(run: Run, name: str) -> Score | None:
    """A score that was written down by itself, if it is of the run's present weights."""
    scored = _scored(run)
    if name not in scored or scored.get("of") != _identity(run):
        return None
    return _score_from(scored[name])


def _scored(run: Run) -> dict[str, Any]:
    """What is written of single scores; nothing if that cannot be read."""
    try:
        scored = parse_json((run.folder / SCORED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return scored if isinstance(scored, dict) else {}


def _times_scored(run: Run) -> int:
    """How often the whole validation split was scored, as far as it is known."""
    times = _scored(run).get("validation_scorings")
    return times if type(times) is int and times > 0 else 0


def _write(run: Run, name: str, values: Mapping[str, Any]) -> None:
    files.write_text(run.folder / name, json.dumps(values, indent=2))


def _score_from(values: Any) -> Score | None:
    """A score that was written down, if it is whole."""
    try:
        score = Score(**values)
    except TypeError:
        return None
    counts = (score.tokens, score.characters)
    number = type(score.loss) is float and math.isfinite(score.loss)
    return score if number and all(type(n) is int and n > 0 for n in counts) else None


def recall(run: Run) -> Scores | None:
    """Scores written earlier, if they are whole and of the run's present weights."""
    try:
        data = parse_json((run.folder / SCORES).read_text(encoding="utf-8"))
        if data["of"] != _identity(run):
            return None
        train, val, best_val = (_score_from(data[name]) for name in ("train", "val", "best_val"))
        tail = _score_from(data["tail"]) if run.config.holds_out_tail else None
    except (OSError, ValueError, TypeError, KeyError, RunError):
        return None
    if not (train and val and best_val) or (run.config.holds_out_tail and not tail):
        return None
    return Scores(train, val, best_val, tail)


def _identity(run: Run) -> dict[str, str]:
    """What scores belong to: these weights on this version of the dataset."""
    return {
        "weights": run.last_checkpoint().verify()["weights.safetensors"],
        "dataset_version": run.info["dataset_version"],
    }
