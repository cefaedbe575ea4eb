"""GPT-1, as it is built from scratch today. Read `ladder` first: this is its last model, changed.

Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training",
but with the norms before each part, as in TransformerLM, where GPT-1 had them
after. What TransformerLM does otherwise is marked GPT-1 below:

    GELU where that has ReLU: smooth, so that small negative numbers still learn
    dropout on the embeddings too
    weights that start near zero, so that at first every token is about as likely
    a head without a bias, or none: with `tie_embeddings` one table serves both
    ends. A token's row is what it means when read; its score as the next token
    is how well what was made of the text, x, fits that row: their dot product.
    GPT-1 itself was tied; the system rebuilt here is not, so that is the default.

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

# Section 4.1 of the paper: weights are drawn from a normal distribution with this deviation.
DEVIATION = 0.02


class GELUFeedForward(nn.Module):
    """Each token on its own: widen four times, bend (GELU, Hendrycks and Gimpel 2016), narrow."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.widen = Linear(embedding_dim, 4 * embedding_dim)
        self.narrow = Linear(4 * embedding_dim, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.narrow(F.gelu(self.widen(x)))  # GPT-1: GELU


class GPT1Block(nn.Module):
    """`TransformerBlock` with one line changed: attention, feed-forward, each added to x."""

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
    """The model of GPT-1: learned positions, such blocks, a final norm, scores of all tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.dropout = Dropout(config.dropout)  # GPT-1: for the embeddings
        self.blocks = nn.Sequential(*(GPT1Block(config) for _ in range(config.num_layers)))
        self.final_norm = nn.LayerNorm(config.embedding_dim)
        self.head = None  # GPT-1: no bias, or no head
        if not config.tie_embeddings:
            self.head = Linear(config.embedding_dim, config.vocab_size, bias=False)
        self.apply(_start)  # GPT-1: weights near zero

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.dropout(self.embedding(tokens))  # GPT-1: dropout
        x = self.final_norm(self.blocks(x))
        if self.head is None:
            return kernels.linear(x, self.embedding.token.weight, None)  # GPT-1: x @ table.T
        return self.head(x)


def _start(module: nn.Module) -> None:
    """Draw the weights of one module; norms keep their ones and zeros."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=DEVIATION)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
