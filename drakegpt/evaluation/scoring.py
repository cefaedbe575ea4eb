"""The exact loss of a model over whole splits: every character scored once.

While training, losses are estimated from random windows; here each split is
walked through in windows side by side, so the figures carry no sampling error
and are the same every time.

Not here: which model of a run is scored, and what is kept of it (`runs.scores`).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from drakegpt.data.dataset import Dataset
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.data.windows import sequential_windows
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import mean_loss, tokens_at_once

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


def validation_score(model: LanguageModel, data: Dataset, device: torch.device) -> Score:
    """Score a model, which is on `device`, on the whole of the validation split."""
    return score_tokens(model, validation_tokens(data), data.tokenizer, device)


def tail_score(model: LanguageModel, data: Dataset, device: torch.device) -> Score:
    """Score a model on the tail of the training split, after the token before it."""
    learnt, tail = data.select_splits(tail=True)
    return score_tokens(model, torch.cat([learnt[-1:], tail]), data.tokenizer, device)


def validation_tokens(data: Dataset) -> Tensor:
    """The validation split, (N + 1,), after the training split's last token."""
    return torch.cat([data.split("train")[-1:], data.split("val")])


def characters_in(tokens: Tensor, tokenizer: Tokenizer) -> int:
    """How many characters tokens, (N,), stand for; at least one, as a divisor."""
    begun = torch.from_numpy(tokenizer.count_characters())
    return max(1, sum(int(begun[part.long()].sum()) for part in tokens.split(COUNTED_AT_ONCE)))


def score_tokens(
    model: LanguageModel, tokens: Tensor, tokenizer: Tokenizer, device: torch.device
) -> Score:
    """Score all tokens but the first, many windows at a time."""
    context_length = model.config.context_length
    at_once = max(1, tokens_at_once(device, model.config) // context_length)
    batches = sequential_windows(tokens, context_length, at_once)
    loss, predicted = mean_loss(model, batches, device), tokens[1:]
    return Score(loss, len(predicted), characters_in(predicted, tokenizer))
