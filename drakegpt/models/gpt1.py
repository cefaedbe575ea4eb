"""GPT-1, as it is built from scratch today: TransformerLM's frame, other parts inside.

Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training",
with the norms before each part instead of after. Beside the last rung of the
ladder it has four differences, each marked below:

    GELU where that has ReLU: smooth, and a little below zero for small negative numbers
    dropout on the embeddings too
    weights that start from a normal distribution of standard deviation 0.02
    if asked for, one table for both ends: a token's vector also scores it

Its queries, keys and values have no bias, as everywhere in this house, nor has its head.

Shapes as in `ladder`: B windows, T tokens, C width, V tokens in the vocabulary.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from drakegpt.config import ModelConfig
from drakegpt.models import kernels
from drakegpt.models.layers import (
    CausalSelfAttention,
    Dropout,
    LanguageModel,
    Linear,
    TokenAndPositionEmbedding,
)

# Section 4.1 of the paper: weights are drawn from N(0, 0.02).
DEVIATION = 0.02


class GELUFeedForward(nn.Module):
    """Each token on its own: widen four times, bend (GELU, Hendrycks and Gimpel 2016), narrow."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.widen = Linear(embedding_dim, 4 * embedding_dim)
        self.narrow = Linear(4 * embedding_dim, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.narrow(F.gelu(self.widen(x)))  # here, instead of F.relu


class GPT1Block(nn.Module):
    """Attention and feed-forward, each normalised before and added after."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.embedding_dim)
        self.attention = CausalSelfAttention(config.embedding_dim, config.num_heads, config.dropout)
        self.projection = Linear(config.embedding_dim, config.embedding_dim)
        self.feed_forward_norm = nn.LayerNorm(config.embedding_dim)
        self.feed_forward = GELUFeedForward(config.embedding_dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.projection(self.attention(self.attention_norm(x))))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class GPT1LM(LanguageModel):
    """The model of GPT-1: learned positions, such blocks, a final norm, scores of all tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.Sequential(*(GPT1Block(config) for _ in range(config.num_layers)))
        self.final_norm = nn.LayerNorm(config.embedding_dim)
        head = Linear(config.embedding_dim, config.vocab_size, bias=False)
        self.head = None if config.tie_embeddings else head
        self.apply(_start)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.dropout(self.embedding(tokens))  # dropout: here too
        x = self.final_norm(self.blocks(x))
        if self.head is None:  # one table for both ends
            return kernels.linear(x, self.embedding.token.weight, None)
        return self.head(x)


def _start(module: nn.Module) -> None:
    """Draw the weights of one module; norms keep their ones and zeros."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=DEVIATION)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
