"""One token after another: how a model writes.

At each step the model scores every token, the scores become probabilities, and
one token is drawn. The model sees at most its context length of tokens; how the
window moves over longer texts is in `window`.

Shapes: B texts written at once, V tokens in the vocabulary.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from drakegpt.errors import RunError
from drakegpt.generation.cache import looks_back
from drakegpt.generation.window import Reader, Window
from drakegpt.models.layers import LanguageModel

START_TOKEN = 0  # what an empty prompt stands for, as in the original
NUMBERS_AT_ONCE = 256  # random numbers fetched together


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token from the model's scores.

    `temperature` divides the scores: below 1 is more cautious, above 1 more
    erratic, 0 always takes the likeliest token. `top_k` keeps the k
    likeliest tokens; `top_p` the fewest that together reach probability p
    (nucleus sampling, Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


def generate(
    model: LanguageModel,
    prompt: Sequence[int],
    length: int,
    sampling: Sampling,
    seed: int,
    window: Window = "auto",
) -> Iterator[int]:
    """Yield `length` tokens that continue `prompt` (from token 0 if it is empty).

    The same model, prompt, sampling, seed and window give the same tokens: chance
    comes from a generator of its own, on the CPU whatever the model's device.
    """
    for tokens in generate_batch(model, prompt, length, sampling, [seed], window):
        yield tokens[0]


@torch.no_grad()  # not inference_mode, in which a tape would hold larger, slower operations
def generate_batch(
    model: LanguageModel,
    prompt: Sequence[int],
    length: int,
    sampling: Sampling,
    seeds: Sequence[int],
    window: Window = "auto",
) -> Iterator[list[int]]:
    """Write a text for each seed, all at once: yield `length` times the next token of each.

    Each text is the one that its seed gives alone, but for rounding.
    """
    prompt = list(prompt) or [START_TOKEN]
    numbers = islice(_numbers(seeds), length)
    if not looks_back(model):
        written = _by_table(model, prompt[-1], sampling, numbers)
    else:
        written = _by_window(Reader(model, len(seeds), window), prompt, sampling, numbers)
    vocab_size = model.config.vocab_size
    for tokens in written:
        if vocab_size in tokens:  # what drawing from what is no number ends in
            raise RunError(
                "The model's scores are not numbers: its training went astray.",
                "Train it again with a lower learning rate, or generate with --best.",
            )
        yield tokens


def _by_window(
    read: Reader, prompt: list[int], sampling: Sampling, numbers: Iterator[Tensor]
) -> Iterator[list[int]]:
    """Read, draw, read what was drawn, and so on."""
    tokens = None
    for number in numbers:
        logits = read.start(prompt) if tokens is None else read(tokens)
        tokens = draw(logits.float().cpu(), sampling, number)
        yield tokens.flatten().tolist()


def _by_table(
    model: LanguageModel, last: int, sampling: Sampling, numbers: Iterator[Tensor]
) -> Iterator[list[int]]:
    """For a model that sees one token only: what may follow it is worked out once."""
    device = next(model.parameters()).device
    following: dict[int, list[float]] = {}  # token -> cumulative probabilities
    tokens: list[int] = []
    for number in numbers:
        tokens = tokens or [last] * len(number)
        for token in tokens:
            if token not in following:
                logits = model(torch.tensor([[token]], device=device))[0, 0].float().cpu()
                following[token] = probabilities(logits, sampling).cumsum(-1).tolist()
        rows = map(following.__getitem__, tokens)
        shares = number.flatten().tolist()
        tokens = [bisect_right(row, p * row[-1]) for row, p in zip(rows, shares, strict=True)]
        yield tokens


def _numbers(seeds: Sequence[int]) -> Iterator[Tensor]:
    """Random numbers from 0 to 1 (B, 1), without end; each text has its own generator."""
    chances = [torch.Generator().manual_seed(seed) for seed in seeds]
    while True:
        some = [torch.rand(NUMBERS_AT_ONCE, 1, generator=chance) for chance in chances]
        yield from torch.stack(some, dim=1).unbind()


def draw(logits: Tensor, sampling: Sampling, number: Tensor) -> Tensor:
    """Draw a token from each row of scores (B, V) by a number from 0 to 1 (B, 1): (B, 1).

    Token i is drawn if the number lies in its part of a line on which each token
    has a part as long as its probability. Scores that are not numbers give V.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1, keepdim=True)
    # In float64, where a number below 1 stays below it and never falls off the line's end.
    ends = probabilities(logits, sampling).double().cumsum(-1)
    return torch.searchsorted(ends, number * ends[..., -1:], right=True)


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distributions (..., V) that `draw` draws from."""
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    if sampling.temperature != 1:
        # Dividing by a tiny temperature must not overflow: the largest score becomes 0 first.
        logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is None and sampling.top_p is None:
        return logits.softmax(-1)
    vocab_size = logits.shape[-1]
    ranked, order = logits.topk(min(sampling.top_k or vocab_size, vocab_size))
    chances = ranked.softmax(-1)
    if sampling.top_p is not None:
        before = chances.cumsum(-1) - chances  # probability of all that rank higher
        before[..., 0] = -1  # the first is always kept
        chances[before >= sampling.top_p] = 0
        chances /= chances.sum(-1, keepdim=True)
    return torch.zeros_like(logits).scatter(-1, order, chances)
