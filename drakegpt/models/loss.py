"""How surprised a model is by the next token: the one definition of loss, in nats."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from drakegpt.config import ModelConfig
from drakegpt.models.layers import LanguageModel


def choose_batch_tokens(device: torch.device, config: ModelConfig) -> int:
    """Windows are scored many at a time: so many tokens as suit a CPU's caches or fill a GPU.

    Fewer where each has many numbers, so that scoring a model takes a GPU no more
    memory than training it.
    """
    if device.type == "cpu":
        tokens, scores = 4096, 2**25
    else:
        tokens, scores = 65_536 * 384 // config.embedding_dim, 2**27
    return max(1, min(tokens, scores // config.vocab_size))


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats, float32: logits (B, T, V), targets (B, T) -> scalar."""
    return F.nll_loss(_log_probabilities(logits), targets.flatten())


def _log_probabilities(logits: Tensor) -> Tensor:
    """(B, T, V) -> (B T, V), in float32 at least, without a copy of the scores on the way."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.flatten(0, 1).log_softmax(-1, dtype=None if dtype == logits.dtype else dtype)


@torch.no_grad()
def mean_loss(
    model: LanguageModel, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> float:
    """Mean loss over every token of `batches`, in nats; dropout is off, and put back after.

    Each batch is inputs and targets, (B, T). Sums are kept in double precision,
    so the result does not depend on how the windows were batched.
    """
    was_training = model.training
    model.eval()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for inputs, targets in batches:
        logits = model(inputs.to(device))
        losses = F.nll_loss(
            _log_probabilities(logits), targets.flatten().to(device), reduction="none"
        )
        total += losses.cpu().double().sum()
        count += targets.numel()
    model.train(was_training)
    return total.item() / count
