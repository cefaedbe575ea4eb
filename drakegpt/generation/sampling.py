"""Autoregressive generation: sample one token after another.

At each step the model computes logits, they become probabilities, and one token is
sampled. The model sees at most its context length of tokens; how the context window
moves over longer texts is in `context_window`.

Shapes: B texts generated together, V tokens in the vocabulary.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import torch
from torch import Tensor

from drakegpt.errors import RunError
from drakegpt.generation.context_window import ContextReader, ContextWindow, ReplayableReader
from drakegpt.generation.copy_limit import CopyLimit, WatchedTexts
from drakegpt.generation.graph import generate_ahead, generate_in_turns
from drakegpt.generation.kv_cache import uses_attention
from drakegpt.generation.mixture_reader import MixtureReader, Reader
from drakegpt.models.layers import LanguageModel
from drakegpt.models.mixture import Mixture

START_TOKEN = 0  # what an empty prompt stands for, as in the original
TOKENS_PER_DRAW = 256  # tokens of a text whose random numbers are drawn together
MAX_NOISE = 2**18  # random numbers of a text drawn together where each token takes V of them


@dataclass(frozen=True)
class Sampling:
    """How to sample the next token from the logits.

    `temperature` divides the logits: below 1 the text becomes more predictable, above 1
    more random, and 0 is greedy. `top_k` keeps the k likeliest tokens, `top_p` the
    smallest set with total probability p (nucleus sampling, Holtzman et al. 2020).
    `repetition_penalty` divides the positive logits of tokens that occur in the text
    and multiplies the negative ones (Keskar et al. 2019, section 4.1).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    @property
    def truncates(self) -> bool:
        """Whether only the likeliest tokens are kept."""
        return self.top_k is not None or (self.top_p is not None and self.top_p < 1)


def generate(
    model: LanguageModel | Mixture,
    prompt: Sequence[int],
    length: int,
    sampling: Sampling,
    seed: int,
    window: ContextWindow = "auto",
    start: int = START_TOKEN,
    limit: CopyLimit | None = None,
) -> Iterator[int]:
    """Yield `length` tokens that continue `prompt`, or token `start` if it is empty.

    The same model, prompt, sampling, seed, window and limit give the same tokens: the random
    generator is not PyTorch's global one, and is on the CPU whatever the model's device.
    """
    for tokens in generate_batch(model, prompt, length, sampling, [seed], window, start, limit):
        yield tokens[0]


def generate_batch(
    model: LanguageModel | Mixture,
    prompt: Sequence[int],
    length: int,
    sampling: Sampling,
    seeds: Sequence[int],
    window: ContextWindow = "auto",
    start: int = START_TOKEN,
    limit: CopyLimit | None = None,
) -> Iterator[list[int]]:
    """Generate one text per seed together: yield `length` times the next token of each.

    Each text is the one that its seed gives alone, up to rounding. Without a limit, up to two
    blocks of tokens are generated before they are asked for.
    """
    request = _Request(list(prompt), start, length, sampling, seeds, limit)
    yield from islice(chain.from_iterable(_generate_blocks(model, request, window)), length)


@dataclass(frozen=True)
class _Request:
    """The arguments of `generate_batch`."""

    prompt: list[int]
    start: int
    length: int
    sampling: Sampling
    seeds: Sequence[int]
    limit: CopyLimit | None = None

    @property
    def context(self) -> list[int]:
        """The tokens that the model reads before the first is sampled."""
        return self.prompt or [self.start]


@torch.no_grad()  # not inference_mode: replay would record larger, slower operations in it
def _generate_blocks(
    model: LanguageModel | Mixture, request: _Request, window: ContextWindow
) -> Iterator[list[list[int]]]:
    """Yield blocks of next tokens of each text, at least as many as are requested."""
    texts = len(request.seeds)
    if isinstance(model, Mixture):
        readers = [_create_reader(each, texts, window) for each in model.models]
        yield from _generate_with_reader(MixtureReader(readers, texts, model.counts), request)
    elif uses_attention(model) and _can_record(model):
        yield from _generate_on_device(ReplayableReader(model, texts, window), request)
    elif uses_attention(model) or request.sampling.repetition_penalty != 1 or request.limit:
        yield from _generate_with_reader(_create_reader(model, texts, window), request)
    else:
        yield from _generate_from_table(model, request)


def _can_record(model: LanguageModel) -> bool:
    """Whether the model is on a device whose steps can be recorded: a CPU or an NVIDIA GPU."""
    return next(model.parameters()).device.type in ("cpu", "cuda")


class _TokenSampler:
    """Samples the next token of each text; keeps track of tokens seen, for the penalty."""

    def __init__(self, request: _Request, vocab_size: int, device: torch.device) -> None:
        self._sampling = request.sampling
        self.watched: WatchedTexts | None = None
        if request.limit:
            self.watched = request.limit.watch(request.prompt, len(request.seeds), device)
        shape = (len(request.seeds), vocab_size)
        self._seen = torch.zeros(shape, dtype=torch.bool, device=device)
        self._seen[:, request.prompt] = True  # not the start token: it is not part of the text

    def __call__(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Return the next tokens (B, 1), given logits (B, V) and Gumbel noise (B, V)."""
        logits, penalty = logits.float(), self._sampling.repetition_penalty
        if self.watched:
            logits = logits + self.watched.mask
        if penalty == 1:
            return sample_tokens(logits, self._sampling, noise)
        logits = apply_repetition_penalty(logits, self._seen, penalty)
        tokens = sample_tokens(logits, self._sampling, noise)
        self._seen.scatter_(1, tokens, True)
        return tokens


def _create_reader(model: LanguageModel, texts: int, window: ContextWindow) -> Reader:
    """Create the reader of a model whose tokens are sampled on the host."""
    if uses_attention(model):
        return ContextReader(model, texts, window)
    return _LastTokenReader(model, texts)


def _generate_with_reader(reader: Reader, request: _Request) -> Iterator[list[list[int]]]:
    """Sample a token of each text and read it, again and again without end."""
    logits = _check_logits(reader.start(request.context))
    noise = _draw_gumbel_noise(request.seeds, logits.shape[-1])
    sampler = _TokenSampler(request, logits.shape[-1], torch.device("cpu"))
    while True:
        tokens = sampler(logits.cpu(), next(noise))
        sampled: list[int] = tokens.flatten().tolist()
        yield [sampled]
        if sampler.watched:
            sampler.watched.add([sampled])
        logits = reader(tokens)


def _generate_on_device(reader: ReplayableReader, request: _Request) -> Iterator[list[list[int]]]:
    """Do the same on the device, in blocks of tokens where nothing on the host decides."""
    logits = _check_logits(reader.start(request.context))
    sampler = _TokenSampler(request, logits.shape[-1], logits.device)
    noise = _draw_noise_blocks(request.seeds, logits.shape[-1])
    if sampler.watched:
        return generate_in_turns(reader, logits, sampler, noise, sampler.watched.add)
    return generate_ahead(reader, logits, sampler, noise, request.length)


class _LastTokenReader:
    """The `ContextReader` of a model that sees the last token only."""

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


def _generate_from_table(model: LanguageModel, request: _Request) -> Iterator[list[list[int]]]:
    """Generate with a model that sees the last token only: one forward pass per distinct token."""
    device = next(model.parameters()).device
    cumulative: dict[int, list[float]] = {}  # token -> cumulative probabilities of the next
    tokens = request.context[-1:] * len(request.seeds)
    for numbers in _draw_uniform(request.seeds):
        for token in tokens:
            if token not in cumulative:
                logits = _check_logits(model(torch.tensor([[token]], device=device))[0, 0])
                probs = compute_probabilities(logits.float().cpu(), request.sampling)
                cumulative[token] = probs.double().cumsum(-1).tolist()
        tokens = [
            bisect_right(cumulative[token], number * cumulative[token][-1])
            for token, number in zip(tokens, numbers, strict=True)
        ]
        yield [tokens]


def _check_logits(logits: Tensor) -> Tensor:
    """Return the logits; raises `RunError` if they are NaN."""
    if logits.isnan().any():
        raise RunError(
            "The logits are NaN: training diverged.",
            "Train it again with a lower learning rate, or generate with --best.",
        )
    return logits


def _draw_uniform(seeds: Sequence[int]) -> Iterator[tuple[float, ...]]:
    """Yield random numbers in [0, 1), one for each text, without end."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    while True:
        yield from zip(
            *(torch.rand(TOKENS_PER_DRAW, generator=g).tolist() for g in generators),
            strict=True,
        )


def _draw_gumbel_noise(seeds: Sequence[int], vocab_size: int) -> Iterator[Tensor]:
    """Yield Gumbel noise (B, V) without end; each text has its own generator."""
    for block in _draw_noise_blocks(seeds, vocab_size):
        yield from block.unbind(1)


def _draw_noise_blocks(seeds: Sequence[int], vocab_size: int) -> Iterator[Tensor]:
    """Yield the same noise for several tokens together, (B, R, V)."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    tokens = max(1, min(TOKENS_PER_DRAW, MAX_NOISE // vocab_size))
    while True:
        block = torch.empty(len(seeds), tokens, vocab_size)
        for noise, generator in zip(block, generators, strict=True):
            noise.exponential_(generator=generator)
        yield block.clamp_min_(torch.finfo(block.dtype).tiny).log_().neg_()


def apply_repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Lower the logits (B, V) of tokens that were `seen`, bool (B, V)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def sample_tokens(logits: Tensor, sampling: Sampling, noise: Tensor) -> Tensor:
    """Sample a token (B, 1) from each row of logits (B, V), given Gumbel noise (B, V).

    The argmax of logits plus noise is each token with its softmax probability (Gumbel
    1954), so that the softmax need not be computed.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1, keepdim=True)
    if sampling.truncates:
        logits = compute_probabilities(logits, sampling).log()
    elif sampling.temperature != 1:
        logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    return (logits + noise).argmax(-1, keepdim=True)


def compute_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Compute the distributions (..., V) that `sample_tokens` samples from."""
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    if sampling.temperature != 1:
        # Dividing by a tiny temperature must not overflow: the largest score becomes 0 first.
        logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    if not sampling.truncates:
        return logits.softmax(-1)
    vocab_size = logits.shape[-1]
    ranked, order = logits.topk(min(sampling.top_k or vocab_size, vocab_size))
    probs = ranked.softmax(-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        # Probability of all tokens that rank higher, in float64: float32 loses many small ones.
        before = probs.cumsum(-1, dtype=torch.float64) - probs
        before[..., 0] = -1  # the first is always kept
        probs = probs.masked_fill(before >= sampling.top_p, 0)
        probs /= probs.sum(-1, keepdim=True)
    return torch.zeros_like(logits).scatter(-1, order, probs)
