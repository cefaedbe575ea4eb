"""Roles of attention heads: which place before the current one a head looks at most.

A place is, for instance, the previous character. Its score is the mean attention weight on
it, less what uniform attention gives: 1 / (t + 1) at position t of a window, which sees t + 1
positions. A head that looks nowhere in particular scores 0, one that looks at nothing else
almost 1. All places are before the current position, so a head that looks at the current
character scores below 0 everywhere. Where a window does not contain a place, its position is
left out of the mean: at the start of a window nothing is the previous character.

A role is a description of where a head looks, not of what it does with what it finds there.

Not here: how the attention of a single text is shown (`report`).

Shapes: B windows of T tokens, C width of the embedding, H heads, D = C / H.
"""

import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drakegpt.compute.rotary import rotate
from drakegpt.data.dataset import Dataset
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.models.layers import CausalSelfAttention, LanguageModel

CHARACTERS = 20_000  # of the validation split, that heads are judged on
CLEAR = 0.1  # a head whose highest score is lower has no clear role
MAX_WEIGHTS = 2**22  # of one layer, that are computed together
VOWELS = frozenset("aeiou")

START_OF_LINE = "the start of the line"
START_OF_WORD = "the start of the word"
VOWEL_OR_SPACE = "the last vowel or space"

# From windows (B, T) to the place that each position may look at, (B, T), -1 where there is none.
Finder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class HeadRole:
    """Where an attention head looks."""

    layer: int  # from 0, the one that reads the embeddings
    head: int  # from 0
    role: str | None  # the place with the highest score; `None`: no clear role
    score: float  # the highest; 0 if the text has no place at all
    scores: Mapping[str, float]  # of each place that the text has

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {
            "layer": self.layer,
            "head": self.head,
            "role": self.role,
            "score": self.score,
            "scores": dict(self.scores),
        }


def find_head_roles(
    model: LanguageModel, data: Dataset, device: torch.device
) -> tuple[HeadRole, ...]:
    """Find the roles of all heads of a model, which is on `device`, layer by layer.

    They are judged on the beginning of the validation split, in consecutive windows. Empty
    for a model without attention. Raises `DamagedDatasetError`.
    """
    tokens = data.split("val")[:CHARACTERS].long()
    counts = torch.from_numpy(data.tokenizer.count_characters())
    tokens = tokens[counts[tokens].cumsum(0) <= CHARACTERS]
    return judge_heads(model, tokens, list_places(data.tokenizer), device)


def judge_heads(
    model: LanguageModel, tokens: Tensor, places: Mapping[str, Finder], device: torch.device
) -> tuple[HeadRole, ...]:
    """Score the heads of a model on a text, int64 (N,), for each of the named places."""
    layers = [module for module in model.modules() if isinstance(module, CausalSelfAttention)]
    sums = {name: [torch.zeros(layer.num_heads).double() for layer in layers] for name in places}
    seen = dict.fromkeys(places, 0)
    if not layers:
        return ()
    for windows in _divide(tokens, model.config.context_length, layers[0].num_heads):
        weights = _collect_weights(model, layers, windows.to(device))
        for name, find in places.items():
            place = find(windows)
            seen[name] += int((place >= 0).sum())
            for layer, of_layer in enumerate(weights):
                sums[name][layer] += sum_excess(of_layer.cpu(), place)
    found = [name for name in places if seen[name]]
    return tuple(
        _name_role(
            layer, head, {name: float(sums[name][layer][head]) / seen[name] for name in found}
        )
        for layer, module in enumerate(layers)
        for head in range(module.num_heads)
    )


def sum_excess(weights: Tensor, place: Tensor) -> Tensor:
    """Sum the attention on a place, less uniform attention's, over all positions that have one.

    `weights`: (B, H, T, T), a row for each position. `place`: int64 (B, T), -1 where there is
    none. Returns float64 (H,).
    """
    T = weights.shape[-1]
    index = place.clamp(min=0)[:, None, :, None].expand(*weights.shape[:3], 1)
    found = weights.double().gather(3, index).squeeze(3)  # (B, H, T)
    excess = found - 1 / torch.arange(1, T + 1, dtype=torch.float64)
    return excess.masked_fill(place[:, None] < 0, 0.0).sum((0, 2))


def compute_attention_weights(attention: CausalSelfAttention, x: Tensor) -> Tensor:
    """Compute the weights of all heads, (B, T, C) -> (B, H, T, T): a row for each position."""
    query_key_value = attention.query_key_value(x)  # (B, T, 3 C)
    if attention.rotary:
        query_key_value = rotate(query_key_value, attention.num_heads)
    heads = query_key_value.float().unflatten(2, (3, attention.num_heads, -1))
    query, key, _ = heads.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    future = torch.ones(scores.shape[2:], dtype=torch.bool, device=x.device).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1)


# --- Places ---------------------------------------------------------------------------------------


def list_places(tokenizer: Tokenizer) -> dict[str, Finder]:
    """List the places that heads of a model with this tokenizer may look at, by their names."""
    pieces = [tokenizer.to_bytes([token]) for token in range(tokenizer.vocab_size)]
    line_feeds = _mark(b"\n" in piece for piece in pieces)
    places: dict[str, Finder] = {
        f"the previous {tokenizer.unit}": find_previous,
        START_OF_LINE: lambda windows: find_line_start(line_feeds[windows]),
        f"the same {tokenizer.unit} before": find_same,
    }
    if tokenizer.unit == "character":
        marked = _mark(_is_vowel_or_space(tokenizer.decode([t])) for t in range(len(pieces)))
        places[VOWEL_OR_SPACE] = lambda windows: find_last(marked[windows])
    else:
        starts = _mark(piece[:1].isspace() for piece in pieces)
        places[START_OF_WORD] = lambda windows: find_last(starts[windows])
    return places


def find_previous(windows: Tensor) -> Tensor:
    """Return the position before each, (B, T)."""
    return (torch.arange(windows.shape[1]) - 1).expand(windows.shape)


def find_last(marked: Tensor) -> Tensor:
    """Find the last marked position before each: bool (B, T) -> int64 (B, T)."""
    positions = torch.where(marked, torch.arange(marked.shape[1]), -1).cummax(1).values
    return positions.roll(1, 1).index_fill(1, torch.tensor([0]), -1)


def find_line_start(line_feeds: Tensor) -> Tensor:
    """Find the position after the last line feed before each: bool (B, T) -> int64 (B, T).

    The first position of a line has none: the start of the line is not before it.
    """
    start = find_last(line_feeds) + 1
    return torch.where((start > 0) & (start < torch.arange(start.shape[1])), start, -1)


def find_same(windows: Tensor) -> Tensor:
    """Find the last position before each with the same token: (B, T) -> int64 (B, T)."""
    T = windows.shape[1]
    same = (windows[:, :, None] == windows[:, None]).tril(-1)  # (B, T, T)
    return torch.where(same, torch.arange(T), -1).amax(2)


def _is_vowel_or_space(character: str) -> bool:
    """Tell whether a character is a vowel, with or without accents, or a space of any width."""
    letter = unicodedata.normalize("NFD", character)[0].lower()
    return letter in VOWELS or unicodedata.category(character) == "Zs"


def _mark(tokens: Iterator[bool]) -> Tensor:
    return torch.from_numpy(np.fromiter(tokens, bool))


# --- Steps ----------------------------------------------------------------------------------------


def _divide(tokens: Tensor, context_length: int, num_heads: int) -> Iterator[Tensor]:
    """Divide a text into batches of consecutive windows; the remainder is one shorter window."""
    whole = len(tokens) // context_length * context_length
    batch_size = max(1, MAX_WEIGHTS // (num_heads * context_length**2))
    if whole:
        yield from tokens[:whole].view(-1, context_length).split(batch_size)
    if whole < len(tokens):
        yield tokens[None, whole:]


@torch.no_grad()  # not inference mode: the tables of `rotate` are kept, and may train later
def _collect_weights(
    model: LanguageModel, layers: list[CausalSelfAttention], windows: Tensor
) -> list[Tensor]:
    """Collect the attention weights of each layer while the model reads windows, (B, T)."""
    weights: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(layer, CausalSelfAttention)
        weights.append(compute_attention_weights(layer, inputs[0]))

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    trains = model.training
    try:
        model.eval()(windows)
    finally:
        model.train(trains)
        for hook in hooks:
            hook.remove()
    return weights


def _name_role(layer: int, head: int, scores: dict[str, float]) -> HeadRole:
    best = max(scores, key=scores.__getitem__, default=None)
    score = scores[best] if best else 0.0
    return HeadRole(layer, head, best if score >= CLEAR else None, score, scores)
