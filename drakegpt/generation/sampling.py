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
from drakegpt.generation.context_window import ContextReader, ContextWindow, ReplayableReader
from drakegpt.generation.graph import generate_ahead
from drakegpt.generation.kv_cache import uses_attention
from drakegpt.models.layers import LanguageModel

START_TOKEN = 0  # what an empty prompt stands for, as in the original
NUMBERS_AT_ONCE = 256  # random numbers of a text fetched together, one for each token
NOISE_AT_ONCE = 2**18  # and at most so many where each token takes V of them


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token from the model's scores.

    `temperature` divides the scores: below 1 is more cautious, above 1 more
    erratic, 0 always takes the likeliest token. `top_k` keeps the k
    likeliest tokens; `top_p` the fewest that together reach probability p
    (nucleus sampling, Holtzman et al. 2020). `repetition_penalty` divides what a
    token scores once it has occurred in the text, or multiplies it where that is
    negative (Keskar et al. 2019, section 4.1).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    @property
    def cuts(self) -> bool:
        """Whether only the likeliest tokens are kept."""
        return self.top_k is not None or (self.top_p is not None and self.top_p < 1)


def generate(
    model: LanguageModel,
    prompt: Sequence[int],
    length: int,
    sampling: Sampling,
    seed: int,
    window: ContextWindow = "auto",
    start: int = START_TOKEN,
) -> Iterator[int]:
    """Yield `length` tokens that continue `prompt`, or token `start` if it is empty.

    The same model, prompt, sampling, seed and window give the same tokens: chance
    comes from a generator of its own, on the CPU whatever the model's device.
    """
    for tokens in generate_batch(model, prompt, length, sampling, [seed], window, start):
        yield tokens[0]


@torch.no_grad()  # not inference_mode, in which a tape would hold larger, slower operations
def generate_batch(
    model: LanguageModel,
    prompt: Sequence[int],
    length: int,
    sampling: Sampling,
    seeds: Sequence[int],
    window: ContextWindow = "auto",
    start: int = START_TOKEN,
) -> Iterator[list[int]]:
    """Write a text for each seed, all at once: yield `length` times the next token of each.

    Each text is the one that its seed gives alone, but for rounding. On an NVIDIA
    GPU texts are written ahead of what is asked for, by up to two blocks of tokens.
    """
    task = _Request(list(prompt), start, length, sampling, seeds)
    if uses_attention(model):
        if _supports_cuda_graphs(model):
            written = _generate_ahead(ReplayableReader(model, len(seeds), window), task)
        else:
            written = _generate_with_reader(ContextReader(model, len(seeds), window), task)
    elif sampling.repetition_penalty != 1:
        written = _generate_with_reader(_LastTokenReader(model, len(seeds)), task)
    else:
        written = _generate_from_table(model, task)
    yield from islice(written, length)


@dataclass(frozen=True)
class _Request:
    """What to write, whoever reads."""

    prompt: list[int]
    start: int
    length: int
    sampling: Sampling
    seeds: Sequence[int]

    @property
    def beginning(self) -> list[int]:
        """What is read before anything is drawn."""
        return self.prompt or [self.start]


def _supports_cuda_graphs(model: LanguageModel) -> bool:
    """Whether the model is where steps can be recorded as CUDA graphs."""
    return next(model.parameters()).is_cuda


class _TokenSampler:
    """Draws the next token of each text; remembers which ones occur, if these are penalised."""

    def __init__(self, task: _Request, vocab_size: int, device: torch.device) -> None:
        self._sampling = task.sampling
        shape = (len(task.seeds), vocab_size)
        self._seen = torch.zeros(shape, dtype=torch.bool, device=device)
        self._seen[:, task.prompt] = True  # what an empty prompt stands for is not in the text

    def __call__(self, logits: Tensor, noise: Tensor) -> Tensor:
        """The next tokens, (B, 1), given scores (B, V) and Gumbel noise (B, V)."""
        scores, penalty = logits.float(), self._sampling.repetition_penalty
        if penalty == 1:
            return sample_tokens(scores, self._sampling, noise)
        tokens = sample_tokens(
            apply_repetition_penalty(scores, self._seen, penalty), self._sampling, noise
        )
        self._seen.scatter_(1, tokens, True)
        return tokens


def _generate_with_reader(
    read: "ContextReader | _LastToken", task: _Request
) -> Iterator[list[int]]:
    """Read, draw, read what was drawn, and so on without end."""
    logits = _check_logits(read.start(task.beginning))
    noise = _draw_gumbel_noise(task.seeds, logits.shape[-1])
    choose = _TokenSampler(task, logits.shape[-1], torch.device("cpu"))
    while True:
        tokens = choose(logits.cpu(), next(noise))
        yield tokens.flatten().tolist()
        logits = read(tokens)


def _generate_ahead(read: ReplayableReader, task: _Request) -> Iterator[list[int]]:
    """The same on the device alone, in blocks."""
    logits = _check_logits(read.start(task.beginning))
    choose = _TokenSampler(task, logits.shape[-1], logits.device)
    noise = _draw_noise_blocks(task.seeds, logits.shape[-1])
    return generate_ahead(read, logits, choose, noise, task.length)


class _LastTokenReader:
    """Reads for a model that uses the last token only, as `ContextReader` does for others."""

    def __init__(self, model: LanguageModel, texts: int) -> None:
        self._model, self._texts = model, texts
        self._device = next(model.parameters()).device

    def start(self, prompt: Sequence[int]) -> Tensor:
        """Read a prompt, the same for all texts. Returns logits (B, V)."""
        return self(torch.tensor([prompt[-1:]]).expand(self._texts, -1))

    def __call__(self, tokens: Tensor) -> Tensor:
        """Read the next token of each text, (B, 1). Returns logits (B, V)."""
        logits: Tensor = self._model(tokens.to(self._device))
        return logits[:, -1]


def _generate_from_table(model: LanguageModel, task: _Request) -> Iterator[list[int]]:
    """For a model that sees one token only: what may follow it is worked out once."""
    device = next(model.parameters()).device
    ends: dict[int, list[float]] = {}  # token -> cumulative probabilities of what follows it
    tokens = task.beginning[-1:] * len(task.seeds)
    for numbers in _draw_uniform(task.seeds):
        for token in tokens:
            if token not in ends:
                logits = _check_logits(model(torch.tensor([[token]], device=device))[0, 0])
                chances = compute_probabilities(logits.float().cpu(), task.sampling)
                ends[token] = chances.double().cumsum(-1).tolist()
        tokens = [
            bisect_right(ends[token], number * ends[token][-1])
            for token, number in zip(tokens, numbers, strict=True)
        ]
        yield tokens


def _check_logits(logits: Tensor) -> Tensor:
    """Raise `RunError` for the scores of weights that are no numbers."""
    if logits.isnan().any():
        raise RunError(
            "The model's scores are not numbers: its training went astray.",
            "Train it again with a lower learning rate, or generate with --best.",
        )
    return logits


def _draw_uniform(seeds: Sequence[int]) -> Iterator[tuple[float, ...]]:
    """Random numbers from 0 to 1, one for each text, without end."""
    chances = [torch.Generator().manual_seed(seed) for seed in seeds]
    while True:
        yield from zip(
            *(torch.rand(NUMBERS_AT_ONCE, generator=chance).tolist() for chance in chances),
            strict=True,
        )


def _draw_gumbel_noise(seeds: Sequence[int], vocab_size: int) -> Iterator[Tensor]:
    """What `sample_tokens` adds to scores, (B, V), without end; each text has a generator of its own."""
    for some in _draw_noise_blocks(seeds, vocab_size):
        yield from some.unbind(1)


def _draw_noise_blocks(seeds: Sequence[int], vocab_size: int) -> Iterator[Tensor]:
    """The same for several tokens at once, (B, tokens, V)."""
    chances = [torch.Generator().manual_seed(seed) for seed in seeds]
    at_once = max(1, min(NUMBERS_AT_ONCE, NOISE_AT_ONCE // vocab_size))
    while True:
        some = torch.empty(len(seeds), at_once, vocab_size)
        for numbers, chance in zip(some, chances, strict=True):
            numbers.exponential_(generator=chance)
        yield some.clamp_min_(torch.finfo(some.dtype).tiny).log_().neg_()


def apply_repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Scores (B, V), less for tokens that were `seen`, bool (B, V)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def sample_tokens(logits: Tensor, sampling: Sampling, noise: Tensor) -> Tensor:
    """Draw a token from each row of scores (B, V), given Gumbel noise (B, V): (B, 1).

    The largest of scores and noise together falls on each token with just the
    probability that softmax gives it (Gumbel 1954), without computing that.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1, keepdim=True)
    if sampling.cuts:
        logits = compute_probabilities(logits, sampling).log()
    elif sampling.temperature != 1:
        logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    return (logits + noise).argmax(-1, keepdim=True)


def compute_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distributions (..., V) that `sample_tokens` draws from."""
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    if sampling.temperature != 1:
        # Dividing by a tiny temperature must not overflow: the largest score becomes 0 first.
        logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    if not sampling.cuts:
        return logits.softmax(-1)
    vocab_size = logits.shape[-1]
    ranked, order = logits.topk(min(sampling.top_k or vocab_size, vocab_size))
    chances = ranked.softmax(-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        # Probability of all that rank higher, in float64: float32 loses many small ones.
        before = chances.cumsum(-1, dtype=torch.float64) - chances
        before[..., 0] = -1  # the first is always kept
        chances = chances.masked_fill(before >= sampling.top_p, 0)
        chances /= chances.sum(-1, keepdim=True)
    return torch.zeros_like(logits).scatter(-1, order, chances)
