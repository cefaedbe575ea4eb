"""The context window of a text longer than the model's context, and how it moves.

Up to the context length T the model sees the whole text and computes each token once
(`kv_cache`). After that, old tokens must be dropped:

    exact   One token for each new one, as the original does. All others move by one
            position, so the whole window is computed again for every token.
    cached  The older half together. The rest is computed again, and then T / 2 tokens
            are generated, one at a time, before the window is full again.

Not here: how tokens are sampled.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from drakegpt.compute.replay import REPLAYED_UP_TO, Replayed
from drakegpt.generation.kv_cache import CachedModel
from drakegpt.models.layers import LanguageModel

ContextWindow = Literal["auto", "exact", "cached"]

CACHED_FROM = 32  # context length from which `auto` is cached


def resolve_window(window: ContextWindow, context_length: int) -> Literal["exact", "cached"]:
    """Resolve `auto` for a model of this context length."""
    if window == "auto":
        return "cached" if context_length >= CACHED_FROM else "exact"
    return window


def count_kept_tokens(window: ContextWindow, context_length: int) -> int:
    """Count the tokens, the newest included, that remain after a full window has moved."""
    exact = resolve_window(window, context_length) == "exact"
    return context_length if exact else max(1, context_length // 2)


class ReplayableReader:
    """Reads B texts in steps that only change tensors in place, so that they can be replayed.

    The host need not know the sampled tokens. The window's tokens stay at their positions;
    it moves when there is no more `room`. `small`: moving it takes so little arithmetic that
    a trace pays on a CPU.
    """

    def __init__(self, model: LanguageModel, texts: int, window: ContextWindow) -> None:
        weight = next(model.parameters())
        self._cached = CachedModel(model, texts)
        self._context_length = model.config.context_length
        self._kept = count_kept_tokens(window, self._context_length)
        shape = (texts, self._context_length)
        self._window = torch.zeros(shape, dtype=torch.int64, device=weight.device)
        self.room = self._context_length  # tokens that still fit; set by start()
        self.room_after_move = self._context_length - self._kept
        self.small = texts * self._kept * model.config.embedding_dim <= REPLAYED_UP_TO

    def start(self, prompt: Sequence[int]) -> Tensor:
        """Read a prompt, the same for all texts and not empty. Returns logits (B, V)."""
        window = self._window
        tokens = torch.tensor([prompt[-self._context_length :]], device=window.device)
        length = tokens.shape[1]
        window[:, :length] = tokens
        self.room = self._context_length - length
        self._cached.restart(length)
        return self._cached.read(tokens).expand(len(window), -1)

    def read_next(self, tokens: Tensor) -> Tensor:
        """Read the next token of each text, (B, 1), while there is room. Returns logits (B, V)."""
        logits = self._cached.read_next(tokens)
        self._window.index_copy_(1, self._cached.position, tokens)
        return logits

    def move_and_read(self, tokens: Tensor) -> Tensor:
        """Move the full window, then read the next tokens (B, 1). Returns logits (B, V)."""
        newest = torch.cat([self._window[:, self.room_after_move + 1 :], tokens], dim=1)
        self._window[:, : self._kept] = newest
        if self.room_after_move:
            self._cached.restart(self._kept)
        return self._cached.read(newest)


class ContextReader:
    """Reads B texts token by token and returns the logits of the next token."""

    def __init__(self, model: LanguageModel, texts: int, window: ContextWindow) -> None:
        self._reader = reader = ReplayableReader(model, texts, window)
        self._device = next(model.parameters()).device
        self._room = 0
        on_cpu = self._device.type == "cpu"
        read_next, move_and_read = reader.read_next, reader.move_and_read
        self._read_next = Replayed(read_next) if on_cpu else read_next
        self._move_and_read = Replayed(move_and_read) if on_cpu and reader.small else move_and_read

    def start(self, prompt: Sequence[int]) -> Tensor:
        """Read a prompt, the same for all texts and not empty. Returns logits (B, V)."""
        logits = self._reader.start(prompt)
        self._room = self._reader.room
        return logits

    def __call__(self, tokens: Tensor) -> Tensor:
        """Read the next token of each text, (B, 1). Returns logits (B, V), until the next call."""
        tokens = tokens.to(self._device)
        if self._room:
            self._room -= 1
            return self._read_next(tokens)
        self._room = self._reader.room_after_move
        return self._move_and_read(tokens)
