"""How well a model predicts a split: the figures, without what computes them (`scoring`)."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """How well a model predicts a split.

    Bits per character can be compared between tokenizers. Losses cannot: a token may be
    a letter or a word.
    """

    loss: float  # nats per token
    tokens: int  # number scored
    characters: int  # number that these tokens encode

    @property
    def bits_per_character(self) -> float:
        """The mean number of bits to encode a character with the model."""
        return self.loss / math.log(2) * self.tokens / self.characters

    @property
    def perplexity(self) -> float:
        """The number of equally likely tokens that would be as hard to guess."""
        return math.exp(min(self.loss, 700.0))

    def to_json(self) -> dict[str, float | int]:
        """Return all five figures."""
        return {
            "loss": self.loss,
            "bits_per_character": self.bits_per_character,
            "perplexity": self.perplexity,
            "tokens": self.tokens,
            "characters": self.characters,
        }
