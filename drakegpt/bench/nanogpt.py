"""nanoGPT's model and training loop in plain PyTorch, with its published settings for a CPU.

The settings are those that its README gives for tiny Shakespeare on a laptop, with which it
states a loss of 1.88 (karpathy/nanoGPT, `config/train_shakespeare_char.py` and the README's
command for a CPU). The model is GPT-2's: layer norm first, GELU, the output layer tied to
the token embedding, no biases. It is written anew here, run eagerly in float32 as there.

Not here: loading text, and measuring (`to_loss`).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drakegpt.config import ModelConfig
from drakegpt.models.layers import LanguageModel
from drakegpt.models.reference import draw_windows

SHAPE: dict[str, Any] = {
    "context_length": 64, "embedding_dim": 128, "num_heads": 4, "num_layers": 4, "dropout": 0.0
}  # fmt: skip
BATCH_SIZE, ITERS, WARMUP_ITERS = 12, 2000, 100
MAX_LR, MIN_LR = 1e-3, 1e-4
BETAS, WEIGHT_DECAY, GRAD_CLIP = (0.9, 0.99), 0.1, 1.0


def describe_settings() -> dict[str, Any]:
    """Return all published settings."""
    return SHAPE | {
        "batch_size": BATCH_SIZE, "iters": ITERS, "warmup_iters": WARMUP_ITERS,
        "max_lr": MAX_LR, "min_lr": MIN_LR, "betas": BETAS, "weight_decay": WEIGHT_DECAY,
        "grad_clip": GRAD_CLIP,
    }  # fmt: skip


class Block(nn.Module):
    """Attention and feed-forward, each after a layer norm and added to its input."""

    def __init__(self, C: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(C, bias=False), nn.LayerNorm(C, bias=False)
        self.query_key_value = nn.Linear(C, 3 * C, bias=False)
        self.projection = nn.Linear(C, C, bias=False)
        self.widen = nn.Linear(C, 4 * C, bias=False)
        self.narrow = nn.Linear(4 * C, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        query, key, value = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in self.query_key_value(self.norm_1(x)).chunk(3, dim=2)
        )
        gathered = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.projection(gathered.transpose(1, 2).flatten(2))
        result: Tensor = x + self.narrow(F.gelu(self.widen(self.norm_2(x))))
        return result


class NanoGPT(LanguageModel):
    """GPT-2's architecture without biases and dropout."""

    idea = "GPT-2 in plain PyTorch"
    limit = "knows nothing from before its context"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        C = config.embedding_dim
        self.token = nn.Embedding(config.vocab_size, C)
        self.position = nn.Embedding(config.context_length, C)
        self.blocks = nn.Sequential(*(Block(C, config.num_heads) for _ in range(config.num_layers)))
        self.norm = nn.LayerNorm(C, bias=False)
        self.head = nn.Linear(C, config.vocab_size, bias=False)
        self.token.weight = self.head.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                into_residual = name.endswith(("projection.weight", "narrow.weight"))
                scale = 1 / math.sqrt(2 * config.num_layers) if into_residual else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


def build_nanogpt(vocab_size: int, device: torch.device, seed: int) -> NanoGPT:
    """Build the model with its published shape and random weights."""
    torch.manual_seed(seed)
    return NanoGPT(ModelConfig(model="NanoGPT", vocab_size=vocab_size, **SHAPE)).to(device)


def learning_rate(iteration: int) -> float:
    """Return the learning rate of an iteration: linear warmup, then half a cosine."""
    if iteration < WARMUP_ITERS:
        return MAX_LR * (iteration + 1) / (WARMUP_ITERS + 1)
    done = min(1.0, (iteration - WARMUP_ITERS) / (ITERS - WARMUP_ITERS))
    return MIN_LR + (1 + math.cos(math.pi * done)) / 2 * (MAX_LR - MIN_LR)


def train(model: NanoGPT, tokens: Tensor) -> Iterator[float]:
    """Train for the published number of iterations; yield the loss of each, in nats.

    `tokens`: (N,) int64, on the model's device. Draws windows with PyTorch's generator.
    """
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": others},
    ]
    optimizer = torch.optim.AdamW(groups, lr=MAX_LR, betas=BETAS, weight_decay=0.0, fused=True)
    for iteration in range(ITERS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(iteration)
        inputs, targets = draw_windows(tokens, BATCH_SIZE, model.config.context_length)
        loss = F.cross_entropy(model.train()(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()
