"""The whole of it in one file: the six models, training, loss estimate and generation.

Written as textbooks write it, slow and plain: attention head by head, with a mask and
an explicit softmax; windows stacked one by one. Read it first, or run it: it trains
TransformerLM on a text file for a few seconds, then prints a sample.

    python -m drakegpt.models.reference TEXT

The tests check `ladder` against it, and `drakegpt bench` measures against it.
Parameters have the names of the original DrakeGPT scripts, so that their checkpoints load.

Shapes: B windows in a batch, T tokens in a window, C width of the embedding,
V tokens in the vocabulary.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drakegpt.config import ModelConfig, preset_model


class Head(nn.Module):
    """One head of causal self-attention: `tril` hides the positions after each one."""

    tril: Tensor

    def __init__(self, C: int, head_size: int, T: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.key = nn.Linear(C, head_size, bias=False)
        self.query = nn.Linear(C, head_size, bias=False)
        self.value = nn.Linear(C, head_size, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("tril", torch.tril(torch.ones(T, T)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, head_size)."""
        T = x.shape[1]
        k, q, v = self.key(x), self.query(x), self.value(x)
        weights = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
        weights = weights.masked_fill(self.tril[:T, :T] == 0, float("-inf"))
        weights = self.dropout(F.softmax(weights, dim=-1))
        return weights @ v


class MultiHead(nn.Module):
    """Several heads, their results concatenated and, if `project`, mixed by a linear layer."""

    def __init__(self, config: ModelConfig, project: bool, dropout: float = 0.0) -> None:
        super().__init__()
        C, H = config.embedding_dim, config.num_heads
        self.heads = nn.ModuleList(
            Head(C, C // H, config.context_length, dropout) for _ in range(H)
        )
        self.proj = nn.Linear(C, C) if project else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        out = torch.cat([head(x) for head in self.heads], dim=-1)
        return out if self.proj is None else self.dropout(self.proj(out))


class FeedForward(nn.Module):
    """One linear layer with a ReLU or, if `widen`, two with 4 C numbers between them."""

    def __init__(self, C: int, widen: bool, dropout: float = 0.0) -> None:
        super().__init__()
        if widen:
            self.net = nn.Sequential(
                nn.Linear(C, 4 * C), nn.ReLU(), nn.Linear(4 * C, C), nn.Dropout(dropout)
            )
        else:
            self.net = nn.Sequential(nn.Linear(C, C), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.net(x)


class PlainBlock(nn.Module):
    """The block of BlocksLM."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sa_head = MultiHead(config, project=False)
        self.ffwd = FeedForward(config.embedding_dim, widen=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.ffwd(self.sa_head(x))


class ResidualBlock(nn.Module):
    """The block of ResidualBlocksLM."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sa_head = MultiHead(config, project=True)
        self.ffwd = FeedForward(config.embedding_dim, widen=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.sa_head(x)
        return x + self.ffwd(x)


class NormBlock(nn.Module):
    """The block of TransformerLM."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sa_head = MultiHead(config, project=True, dropout=config.dropout)
        self.ffwd = FeedForward(config.embedding_dim, widen=True, dropout=config.dropout)
        self.ln1 = nn.LayerNorm(config.embedding_dim)
        self.ln2 = nn.LayerNorm(config.embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.sa_head(self.ln1(x))
        return x + self.ffwd(self.ln2(x))


class ReferenceLM(nn.Module):
    """Any model of the ladder; the original did not apply its final norm (`final_norm=False`)."""

    def __init__(self, config: ModelConfig, final_norm: bool = True) -> None:
        super().__init__()
        V, C, T = config.vocab_size, config.embedding_dim, config.context_length
        self.context_length = T
        self.final_norm = final_norm
        if config.model == "BigramLM":
            self.token_embedding_table = nn.Embedding(V, V)
            return
        self.token_embedding_table = nn.Embedding(V, C)
        self.position_embedding_table = nn.Embedding(T, C)
        self.lm_head = nn.Linear(C, V)
        if config.model == "SingleHeadAttentionLM":
            self.sa_head: nn.Module = Head(C, C, T)
        elif config.model == "MultiHeadAttentionLM":
            self.sa_head = MultiHead(config, project=False)
        else:
            block = {
                "BlocksLM": PlainBlock,
                "ResidualBlocksLM": ResidualBlock,
                "TransformerLM": NormBlock,
            }[config.model]
            self.blocks = nn.Sequential(*(block(config) for _ in range(config.num_layers)))
        if config.model == "TransformerLM":
            self.ln_f = nn.LayerNorm(C)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x: Tensor = self.token_embedding_table(tokens)
        if not hasattr(self, "lm_head"):
            return x
        x = x + self.position_embedding_table(torch.arange(tokens.shape[1], device=x.device))
        x = self.blocks(x) if hasattr(self, "blocks") else self.sa_head(x)
        if hasattr(self, "ln_f") and self.final_norm:
            x = self.ln_f(x)
        return self.lm_head(x)


def draw_windows(tokens: Tensor, batch_size: int, T: int) -> tuple[Tensor, Tensor]:
    """Draw random windows of `tokens` (N,): inputs and targets, both (B, T)."""
    starts = torch.randint(len(tokens) - T, (batch_size,))
    inputs = torch.stack([tokens[i : i + T] for i in starts])
    targets = torch.stack([tokens[i + 1 : i + T + 1] for i in starts])
    return inputs, targets


def train(
    model: ReferenceLM,
    tokens: Tensor,
    batch_size: int,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.95),
) -> Iterator[float]:
    """Train without end; yield the loss of each iteration, in nats, before its update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=betas)
    model.train()
    while True:
        inputs, targets = draw_windows(tokens, batch_size, model.context_length)
        loss = compute_loss(model(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield loss.item()


@torch.no_grad()
def estimate(model: nn.Module, tokens: Tensor, batches: int, batch_size: int, T: int) -> float:
    """Estimate the loss of `model`, in nats: the mean over random batches, without dropout."""
    model.eval()
    losses = torch.zeros(batches)
    for k in range(batches):
        inputs, targets = draw_windows(tokens, batch_size, T)
        losses[k] = compute_loss(model(inputs), targets).item()
    model.train()
    return losses.mean().item()


def compute_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy, in nats: (B, T, V), (B, T) -> scalar."""
    B, T, V = logits.shape
    return F.cross_entropy(logits.view(B * T, V), targets.view(B * T))


@torch.no_grad()
def generate(model: ReferenceLM, tokens: Tensor, length: int) -> Tensor:
    """Continue `tokens` (B, T) by `length` tokens sampled from the softmax: (B, T + length)."""
    for _ in range(length):
        window = tokens[:, -model.context_length :]
        logits = model(window)[:, -1, :]
        probabilities = F.softmax(logits, dim=-1)
        token = torch.multinomial(probabilities, num_samples=1)
        tokens = torch.cat((tokens, token), dim=1)
    return tokens


def main(arguments: list[str], iters: int = 1000, sample_length: int = 300) -> None:
    """Train TransformerLM on the characters of a text file; print its losses and a sample."""
    if len(arguments) != 1:
        sys.exit("Usage: python -m drakegpt.models.reference TEXT")
    try:
        text = Path(arguments[0]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"Cannot read {arguments[0]}: {error}")
    if len(text) < 100:
        sys.exit("The text is too short: it must have at least 100 characters.")
    characters = sorted(set(text))
    tokens = torch.tensor([characters.index(character) for character in text])
    split = len(tokens) * 9 // 10
    torch.manual_seed(42)
    torch.set_num_threads(1)  # fastest for so small a model
    # The default size: context 8, width 32, 4 heads, 3 blocks.
    model = ReferenceLM(preset_model("TransformerLM", "default", len(characters)))
    losses = train(model, tokens[:split], batch_size=32, learning_rate=3e-3)
    for iteration in range(1, iters + 1):
        loss = next(losses)
        if iteration % 200 == 0 or iteration == iters:
            val_loss = estimate(model, tokens[split:], 50, 32, model.context_length)
            print(f"iteration {iteration}: train {loss:.3f}, validation {val_loss:.3f}", flush=True)
    model.eval()
    sample = generate(model, tokens[None, :1], sample_length)
    print("".join(characters[token] for token in sample[0].tolist()))


if __name__ == "__main__":
    main(sys.argv[1:])
