"""The exact loss of a run over whole splits: every character scored once.

While training, losses are estimated from random windows; here each split is
walked through in windows side by side, so the figures carry no sampling error
and are the same every time. They are kept in the run's folder, beside the
checksums of the weights they belong to, so no run is scored twice.
"""

import json
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from drakegpt import paths
from drakegpt.data.dataset import Dataset
from drakegpt.data.tokens import Tokenizer
from drakegpt.data.windows import sequential_windows
from drakegpt.errors import RunError
from drakegpt.models.build import choose_device
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import mean_loss, tokens_at_once
from drakegpt.paths import parse_json
from drakegpt.training.run import Run

SCORES = "scores.json"
COUNTED_AT_ONCE = 2**20


@dataclass(frozen=True)
class Score:
    """How well a model predicts a split.

    Losses of different tokenizers cannot be compared, for a token may be a
    letter or a word; bits per character can.
    """

    loss: float  # nats per token
    tokens: int  # how many were scored
    characters: int  # that they stand for

    @property
    def bits_per_character(self) -> float:
        """Bits needed on average to write down a character, knowing the model."""
        return self.loss / math.log(2) * self.tokens / self.characters

    @property
    def perplexity(self) -> float:
        """How many equally likely tokens would be as hard to guess."""
        return math.exp(min(self.loss, 700.0))

    def to_json(self) -> dict[str, float | int]:
        """All five figures."""
        return {
            "loss": self.loss,
            "bits_per_character": self.bits_per_character,
            "perplexity": self.perplexity,
            "tokens": self.tokens,
            "characters": self.characters,
        }


@dataclass(frozen=True)
class Scores:
    """The exact scores of one run's last checkpoint, and its best weights on validation."""

    train: Score
    val: Score
    best_val: Score  # the same as `val` where no weights were better by their estimate


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
    train = _score(model, data.split("train"), data.tokenizer, device)
    scores = {"train": train, "val": validation_score(model, data, device)}
    best_val = scores["val"]
    if (run.folder / "best.safetensors").exists():
        best_val = validation_score(run.load_model(device, best=True), data, device)
    result = Scores(**scores, best_val=best_val)
    known_as = {"of": _identity(run), **asdict(result)}
    paths.write_text(run.folder / SCORES, json.dumps(known_as, indent=2))
    return result


def score_validation(run: Run, device_name: str = "auto") -> Score:
    """Score the run's last checkpoint on the validation split alone, unless that is known.

    A tenth of the work of `score`, and the same figure. Raises as that does.
    """
    if (known := recall(run)) is not None:
        return known.val
    device = choose_device(device_name)
    data = run.dataset()
    data.verify()
    return validation_score(run.load_model(device), data, device)


def validation_score(model: LanguageModel, data: Dataset, device: torch.device) -> Score:
    """Score a model, which is on `device`, on the whole of the validation split."""
    return _score(model, validation_tokens(data), data.tokenizer, device)


def validation_tokens(data: Dataset) -> Tensor:
    """The validation split, (N + 1,), after the training split's last token."""
    return torch.cat([data.split("train")[-1:], data.split("val")])


def characters_in(tokens: Tensor, tokenizer: Tokenizer) -> int:
    """How many characters tokens, (N,), stand for; at least one, as a divisor."""
    begun = torch.from_numpy(tokenizer.characters_begun())
    return max(1, sum(int(begun[part.long()].sum()) for part in tokens.split(COUNTED_AT_ONCE)))


def recall(run: Run) -> Scores | None:
    """Scores written earlier, if they are whole and of the run's present weights."""
    try:
        data = parse_json((run.folder / SCORES).read_text(encoding="utf-8"))
        if data["of"] != _identity(run):
            return None
        scores = {name: Score(**data[name]) for name in ("train", "val", "best_val")}
        counts = (count for s in scores.values() for count in (s.tokens, s.characters))
        losses = (s.loss for s in scores.values())
        if all(type(loss) is float and math.isfinite(loss) for loss in losses) and all(
            type(n) is int and n > 0 for n in counts
        ):
            return Scores(**scores)
        return None
    except (OSError, ValueError, TypeError, KeyError, RunError):
        return None


def _score(
    model: LanguageModel, tokens: Tensor, tokenizer: Tokenizer, device: torch.device
) -> Score:
    """Score all tokens but the first, many windows at a time."""
    context_length = model.config.context_length
    at_once = max(1, tokens_at_once(device, model.config) // context_length)
    batches = sequential_windows(tokens, context_length, at_once)
    loss, predicted = mean_loss(model, batches, device), tokens[1:]
    return Score(loss, len(predicted), characters_in(predicted, tokenizer))


def _identity(run: Run) -> dict[str, str]:
    """What scores belong to: these weights on this version of the dataset."""
    return {
        "weights": run.last_checkpoint().verify()["weights.safetensors"],
        "dataset_version": run.info["dataset_version"],
    }
