"""What a model sees of a text that outgrows its context: the window, and how it moves.

Up to the context length T all of the text is seen, and each token is computed
once (`cache`). From then on tokens must go:

    exact   The first one, for each that comes, as the original does. All others
            move up by one position, so the whole window is computed each time.
    cached  The older half at once. What remains is computed anew, and then T / 2
            tokens are written, one at a time, before the window is full again.

Not here: which token is drawn.
"""

from collections import deque
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
    """What `auto` means for a model of this context length."""
    if window == "auto":
        return "cached" if context_length >= CACHED_FROM else "exact"
    return window


def count_kept_tokens(window: ContextWindow, context_length: int) -> int:
    """How many tokens, the newest included, are seen after a full window has moved."""
    exact = resolve_window(window, context_length) == "exact"
    return context_length if exact else max(1, context_length // 2)


class ContextReader:
    """Reads B texts as they grow, and scores what may come next."""

    def __init__(self, model: LanguageModel, texts: int, window: ContextWindow) -> None:
        config = model.config
        self._cached = CachedModel(model, texts)
        self._texts = texts
        self._device = next(model.parameters()).device
        self._context_length = config.context_length
        self._kept = count_kept_tokens(window, config.context_length)
        self._recent: deque[Tensor] = deque(maxlen=config.context_length)  # each (B, 1)
        self._length = 0  # of what is in the window
        on_cpu = self._device.type == "cpu"
        small = texts * self._kept * config.embedding_dim <= REPLAYED_UP_TO
        read, read_on = self._cached.read, self._cached.read_on
        self._read = Replayed(read) if on_cpu and small else read
        self._read_on = Replayed(read_on) if on_cpu else read_on

    def start(self, prompt: Sequence[int]) -> Tensor:
        """Read a prompt, the same for all texts and not empty. Returns logits (B, V)."""
        tokens = torch.tensor([prompt[-self._context_length :]], device=self._device)
        self._recent.extend(tokens.expand(self._texts, -1).split(1, dim=1))
        self._start_over(tokens.shape[1])
        return self._cached.read(tokens).expand(self._texts, -1)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Read the next token of each text, (B, 1). Returns logits (B, V), until the next call."""
        tokens = tokens.to(self._device)
        self._recent.append(tokens)
        if self._length < self._context_length:
            self._length += 1
            return self._read_on(tokens)
        if self._length != self._kept:
            self._start_over(self._kept)
        return self._read(torch.cat(list(self._recent)[-self._kept :], dim=1))

    def _start_over(self, length: int) -> None:
        self._length = length
        self._cached.start_over(length)


class ReplayableReader:
    """Reads B texts as `ContextReader` does, in steps that only change tensors in place.

    So a CUDA graph can repeat them, and the host need not know what has been drawn. The
    window's tokens are kept at their positions; where there is no more `room` it moves.
    """

    def __init__(self, model: LanguageModel, texts: int, window: ContextWindow) -> None:
        weight = next(model.parameters())
        self._cached = CachedModel(model, texts)
        self._context_length = model.config.context_length
        self._kept = count_kept_tokens(window, self._context_length)
        shape = (texts, self._context_length)
        self._window = torch.zeros(shape, dtype=torch.int64, device=weight.device)
        self.room = self._context_length  # for so many tokens, until start() is called
        self.room_again = self._context_length - self._kept  # after each move

    def start(self, prompt: Sequence[int]) -> Tensor:
        """Read a prompt, the same for all texts and not empty. Returns logits (B, V)."""
        window = self._window
        tokens = torch.tensor([prompt[-self._context_length :]], device=window.device)
        length = tokens.shape[1]
        window[:, :length] = tokens
        self.room = self._context_length - length
        self._cached.start_over(length)
        return self._cached.read(tokens).expand(len(window), -1)

    def read_on(self, tokens: Tensor) -> Tensor:
        """Read the next token of each text, (B, 1), while there is room. Returns logits (B, V)."""
        logits = self._cached.read_on(tokens)
        self._window.index_copy_(1, self._cached.position, tokens)
        return logits

    def read_again(self, tokens: Tensor) -> Tensor:
        """Read the next token of each text, (B, 1), of a full window. Returns logits (B, V)."""
        newest = torch.cat([self._window[:, self.room_again + 1 :], tokens], dim=1)
        self._window[:, : self._kept] = newest
        self._cached.start_over(self._kept)
        return self._cached.read(newest)
