"""One token after another: how a model writes.

At each step the model scores every token, the scores become probabilities, and
one token is drawn. The model sees at most its context length of tokens, so the
window slides over longer texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drakegpt.models.layers import LanguageModel

START_TOKEN = 0  # what an empty prompt stands for, as in the original


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


@torch.inference_mode()
def generate(
    model: LanguageModel, prompt: Sequence[int], length: int, sampling: Sampling, seed: int
) -> Iterator[int]:
    """Yield `length` tokens that continue `prompt` (from token 0 if it is empty).

    The same model, prompt, sampling and seed give the same tokens: chance comes
    from a generator of its own, on the CPU whatever the model's device.
    """
    device = next(model.parameters()).device
    context_length = model.config.context_length
    chance = torch.Generator().manual_seed(seed)
    window = list(prompt)[-context_length:] or [START_TOKEN]
    for _ in range(length):
        logits = model(torch.tensor([window], device=device))[0, -1]
        token = choose(logits.float().cpu(), sampling, chance)
        yield token
        window = [*window, token][-context_length:]


def choose(logits: Tensor, sampling: Sampling, chance: torch.Generator) -> int:
    """Draw one token from scores (V,)."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(probabilities(logits, sampling), 1, generator=chance))


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution (V,) that `choose` draws from, for a temperature above 0."""
    # Dividing by a tiny temperature must not overflow: the largest score becomes 0 first.
    ranked, order = ((logits - logits.max()) / sampling.temperature).sort(descending=True)
    if sampling.top_k is not None:
        ranked[sampling.top_k :] = -torch.inf
    chances = ranked.softmax(-1)
    if sampling.top_p is not None:
        before = chances.cumsum(-1) - chances  # probability of all that rank higher
        chances[before >= sampling.top_p] = 0
        chances[0] = max(float(chances[0]), torch.finfo(chances.dtype).tiny)
        chances /= chances.sum()
    return torch.zeros_like(chances).scatter(0, order, chances)
