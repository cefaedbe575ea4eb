"""Reads texts with several models, and n-gram counts, and averages their probabilities.

Each model is read by a reader of its own, with its own context window and KV cache
(`context_window`); the counts see the last tokens of the whole text.

Shapes: B texts, V tokens in the vocabulary.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from drakegpt.models.mixture import WeightedCounts


class Reader(Protocol):
    """Reads B texts token by token, as `context_window.ContextReader` does."""

    def start(self, prompt: Sequence[int]) -> Tensor:
        """Read a prompt, the same for all texts and not empty. Returns logits (B, V)."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """Read the next token of each text, (B, 1). Returns logits (B, V), until the next call."""


class MixtureReader:
    """A reader whose logits are the logarithms of averaged probabilities, on the CPU.

    Without readers they are those of the counts alone.
    """

    def __init__(
        self, readers: Sequence[Reader], texts: int, counts: WeightedCounts | None = None
    ) -> None:
        self._readers, self._counts = readers, counts
        length = counts.counts.order - 1 if counts else 0
        self._contexts: list[deque[int]] = [deque(maxlen=length) for _ in range(texts)]

    def start(self, prompt: Sequence[int]) -> Tensor:
        """Read a prompt, the same for all texts and not empty. Returns logits (B, V)."""
        for context in self._contexts:
            context.extend(prompt)
        return self._mix([reader.start(prompt) for reader in self._readers])

    def __call__(self, tokens: Tensor) -> Tensor:
        """Read the next token of each text, (B, 1). Returns logits (B, V)."""
        for context, (token,) in zip(self._contexts, tokens.tolist(), strict=True):
            context.append(token)
        return self._mix([reader(tokens) for reader in self._readers])

    def _mix(self, logits: Sequence[Tensor]) -> Tensor:
        """Average the distributions of the models, and mix in that of the counts."""
        if not logits:
            assert self._counts
            rows = [self._counts.counts.predict_next(context)[0] for context in self._contexts]
            return torch.from_numpy(np.stack(rows)).log().float()
        each = torch.stack([one.cpu() for one in logits]).double()
        mixed = each.softmax(-1).mean(0)
        if self._counts:
            for row, context in zip(mixed.numpy(), self._contexts, strict=True):
                distribution, *known = self._counts.counts.predict_next(context)
                weight = self._counts.weights.look_up(*known)
                row *= weight
                row += (1 - weight) * distribution
        return mixed.log().float()
