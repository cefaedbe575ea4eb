"""What turns gradients into new weights."""

from torch.optim import AdamW, Optimizer

from drakegpt.models.layers import LanguageModel

BETAS = (0.9, 0.95)


def build_optimizer(model: LanguageModel, weight_decay: float) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019) with the original's betas, updating in one fused step.

    The learning rate is set before each step by the trainer.
    """
    return AdamW(model.parameters(), lr=0.0, betas=BETAS, weight_decay=weight_decay, fused=True)


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Let the next step use this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
