"""GPT-1. Read `ladder` first: this is its last model, TransformerLM, with four changes.

Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training",
but with layer norm before each part of a block, as in TransformerLM, where GPT-1 has
it after. What differs from TransformerLM is marked GPT-1 below:

    GELU instead of ReLU: smooth, so that small negative inputs still have a gradient
    dropout on the embeddings too, by default
    initial weights near zero, so that at first all tokens are about equally likely
    an output layer without bias, or none: with `tie_embeddings` the token table
    serves both ends, and the score of a token is the dot product of its row and
    x. GPT-1 was tied; the system rebuilt here is not, so untied is the default.

Shapes as in `ladder`: B windows, T tokens, C width, V tokens in the vocabulary.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from drakegpt.compute import kernels
from drakegpt.config import ModelConfig
from drakegpt.models.layers import (
    CausalSelfAttention,
    Dropout,
    LanguageModel,
    Linear,
    TokenAndPositionEmbedding,
)

# Standard deviation of the initial weights (section 4.1 of the paper).
INITIAL_STD = 0.02


class GELUFeedForward(nn.Module):
    """`FeedForward` with GELU (Hendrycks and Gimpel 2016) instead of ReLU."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.widen = Linear(embedding_dim, 4 * embedding_dim)
        self.narrow = Linear(4 * embedding_dim, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.narrow(F.gelu(self.widen(x)))  # GPT-1: GELU


class GPT1Block(nn.Module):
    """`TransformerBlock` with another feed-forward network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.embedding_dim)
        self.attention = CausalSelfAttention(config.embedding_dim, config.num_heads, config.dropout)
        self.projection = Linear(config.embedding_dim, config.embedding_dim)
        self.feed_forward_norm = nn.LayerNorm(config.embedding_dim)
        self.feed_forward = GELUFeedForward(config.embedding_dim)  # GPT-1: GELU
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.projection(self.attention(self.attention_norm(x))))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class GPT1LM(LanguageModel):
    """The model of GPT-1, with learned positions and a final norm."""

    idea = "as TransformerLM, with GPT-1's activation, dropout and initial weights"
    limit = "knows nothing from before its context"
    has_residuals = True
    can_tie_embeddings = True
    has_dropout = True
    drops_embeddings = True  # GPT-1: dropout on the embeddings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.blocks = nn.Sequential(*(GPT1Block(config) for _ in range(config.num_layers)))
        self.final_norm = nn.LayerNorm(config.embedding_dim)
        self.head = None  # GPT-1: no bias, or no output layer
        if not config.tie_embeddings:
            self.head = Linear(config.embedding_dim, config.vocab_size, bias=False)
        self.apply(_initialize)  # GPT-1: weights near zero

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)
        x = self.final_norm(self.blocks(x))
        if self.head is None:
            return kernels.linear(x, self.embedding.token.weight, None)  # GPT-1: x @ table.T
        return self.head(x)


def _initialize(module: nn.Module) -> None:
    """Initialize one module in place; layer norms keep PyTorch's ones and zeros."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
