"""The scores in a run's folder: read, written and counted, without computing any.

Scores are stored with the checksum of the weights that they belong to, so that no
weights are scored twice. The folder also counts how often the validation split was
scored: a loss on a split that was used to choose between models is too low.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from drakegpt import files
from drakegpt.display import Displayable, Table
from drakegpt.errors import RunError
from drakegpt.evaluation.score import Score
from drakegpt.files import parse_json
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
    return scores.val if scores else read_single(run, "val")


def read_tail_score(run: Run) -> Score | None:
    """Read the last checkpoint's exact score on the training split's tail, if it is stored."""
    scores = read_scores(run)
    return scores.tail if scores else read_single(run, "tail")


def write_scores(run: Run, scores: Scores) -> None:
    """Store the exact scores of a run's present weights."""
    _write(run, SCORES, {"of": identify_scored(run), **asdict(scores)})


def write_single(run: Run, **scores: Score) -> None:
    """Store scores of the last checkpoint, beside others of the same weights."""
    scored, identity = _read_scored(run), identify_scored(run)
    if scored.get("of") != identity:
        scored = {"validation_scorings": _count_whole_scorings(run), "of": identity}
    _write(run, SCORED, scored | {name: asdict(score) for name, score in scores.items()})


def read_single(run: Run, name: str) -> Score | None:
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
