"""How surprised a model is by the next token: the one definition of loss, in nats."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from drakegpt.models.layers import LanguageModel


def tokens_at_once(device: torch.device, vocab_size: int) -> int:
    """Windows are scored many at a time: so many tokens as suit a CPU's caches or fill a GPU.

    Fewer where each has many scores, which would take gigabytes.
    """
    tokens, scores = (4096, 2**25) if device.type == "cpu" else (131_072, 2**30)
    return max(1, min(tokens, scores // vocab_size))


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats: logits (B, T, V), targets (B, T) -> scalar."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


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
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten().to(device), reduction="none"
        )
        total += losses.to("cpu", torch.float64).sum()
        count += targets.numel()
    model.train(was_training)
    return total.item() / count
