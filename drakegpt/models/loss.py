"""The loss: mean cross-entropy of the next token, in nats."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from drakegpt.config import ModelConfig
from drakegpt.models.layers import LanguageModel


def choose_batch_tokens(device: torch.device, config: ModelConfig) -> int:
    """Return how many tokens to score at once: they fit a CPU's caches or fill a GPU.

    Fewer for wide models and large vocabularies, so that scoring takes no more memory
    than training.
    """
    if device.type == "cpu":
        tokens, scores = 4096, 2**25
    else:
        tokens, scores = 65_536 * 384 // config.embedding_dim, 2**27
    return max(1, min(tokens, scores // config.vocab_size))


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean loss in nats, float32: logits (B, T, V), targets (B, T) -> scalar."""
    return F.nll_loss(_log_probabilities(logits), targets.flatten())


def _log_probabilities(logits: Tensor) -> Tensor:
    """(B, T, V) -> (B T, V), in float32 at least, without a float32 copy of the logits."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.flatten(0, 1).log_softmax(-1, dtype=None if dtype == logits.dtype else dtype)


def token_losses(
    model: LanguageModel, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[Tensor]:
    """Yield the loss of every token of each batch, in nats, float64 (B T,), without dropout.

    Each batch is inputs and targets, (B, T). The model's mode is restored.
    """
    for log_probabilities, targets in _predict(model, batches, device):
        yield _select_losses(log_probabilities, targets)


def token_losses_and_hits(
    model: LanguageModel, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what `token_losses` does, and whether each token was the likeliest one, (B T,)."""
    for log_probabilities, targets in _predict(model, batches, device):
        hits = log_probabilities.argmax(-1) == targets
        yield _select_losses(log_probabilities, targets), hits


@torch.no_grad()
def _predict(
    model: LanguageModel, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield log probabilities (B T, V) and targets (B T,) of each batch, without dropout."""
    was_training = model.training
    model.eval()
    for inputs, targets in batches:
        logits = model(inputs.to(device))
        yield _log_probabilities(logits), targets.flatten().to(device)
    model.train(was_training)


def _select_losses(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the losses of the targets, in float64 where the device has it."""
    losses = F.nll_loss(log_probabilities, targets, reduction="none")
    exact = torch.device("cpu") if losses.device.type == "mps" else losses.device
    return losses.to(exact).double()


def mean_loss(
    model: LanguageModel, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> float:
    """Compute the mean loss over all tokens of `batches`, as `token_losses` gives them.

    Sums are in float64, so that the result does not depend on the batching.
    """
    total: Tensor | float = 0.0
    count = 0
    for losses in token_losses(model, batches, device):
        total = total + losses.sum()  # on a GPU, waits for nothing
        count += len(losses)
    return float(total) / count
