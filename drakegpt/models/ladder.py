"""From counting pairs of letters to a GPT, in six steps. Read it from top to bottom.

Every model here answers the same question: given some text, which character
comes next? It takes tokens (B, T) and returns logits (B, T, V): one score per
character of the vocabulary, at each position. Each model adds one idea to the
one before it, and its docstring names that idea. The lines marked NEW are the
idea in code.

    BigramLM               look at the last character
    SingleHeadAttentionLM  look back at the characters before it
    MultiHeadAttentionLM   look back in several ways at once
    BlocksLM               think about what was seen, and look again
    ResidualBlocksLM       keep what was there, add what is new
    TransformerLM          keep the numbers in hand: normalise, and drop some at random
"""

from torch import Tensor, nn
from torch.nn import functional as F

from drakegpt.config import ModelConfig
from drakegpt.models.layers import (
    CausalSelfAttention,
    FeedForward,
    LanguageModel,
    TokenAndPositionEmbedding,
)

# --- 1. Look at the last character --------------------------------------------------------------


class BigramLM(LanguageModel):
    """The next character depends on the current one alone: a table of V x V scores.

    Trained well, row i becomes the logarithm of how often each character
    follows character i, which one could as well have counted.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        return self.table(tokens)


# --- 2. Look back -------------------------------------------------------------------------------


class SingleHeadAttentionLM(LanguageModel):
    """Attention: each character gathers from those before it, and chooses which.

    A character becomes a vector of C numbers, to which its position adds
    another. One causal head as wide as that vector mixes the past into the
    present; a linear head reads the scores of the next character off the result.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)  # NEW
        self.attention = CausalSelfAttention(config.embedding_dim, num_heads=1)  # NEW
        self.head = nn.Linear(config.embedding_dim, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)
        x = self.attention(x)
        return self.head(x)


# --- 3. Look back in several ways at once -------------------------------------------------------


class MultiHeadAttentionLM(LanguageModel):
    """Several heads: the same width, split, so that each part can look for something else.

    One head may follow the last vowel, another the start of the line. The
    parameters are as many as before; only the way they are used differs.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.attention = CausalSelfAttention(config.embedding_dim, config.num_heads)  # NEW
        self.head = nn.Linear(config.embedding_dim, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)
        x = self.attention(x)
        return self.head(x)


# --- 4. Think, and look again -------------------------------------------------------------------


class Block(nn.Module):
    """Gather from the past, then let each position think about what it gathered."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(config.embedding_dim, config.num_heads)
        self.feed_forward = nn.Linear(config.embedding_dim, config.embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = self.attention(x)
        return F.relu(self.feed_forward(x))


class BlocksLM(LanguageModel):
    """Depth: attention and a small network make a block, and blocks are stacked.

    Each block sees what the one below it understood. But all that a block does
    not pass on is lost, and so is much of the gradient on its way down.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.num_layers)))  # NEW
        self.head = nn.Linear(config.embedding_dim, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)
        x = self.blocks(x)
        return self.head(x)


# --- 5. Keep what was there ---------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """A block that adds to what comes in, instead of replacing it (He et al. 2015)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(config.embedding_dim, config.num_heads)
        self.projection = nn.Linear(config.embedding_dim, config.embedding_dim)
        self.feed_forward = FeedForward(config.embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.projection(self.attention(x))  # NEW: x +
        return x + self.feed_forward(x)  # NEW: x +


class ResidualBlocksLM(LanguageModel):
    """Residual connections: a straight road through all blocks, for text and gradients alike.

    A projection mixes the heads before their result is added, and the network
    in each block grows to four times the width inside.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.blocks = nn.Sequential(*(ResidualBlock(config) for _ in range(config.num_layers)))
        self.head = nn.Linear(config.embedding_dim, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)
        x = self.blocks(x)
        return self.head(x)


# --- 6. Keep the numbers in hand ----------------------------------------------------------------


class TransformerBlock(nn.Module):
    """A residual block that normalises what it reads and drops some of what it adds.

    Layer norm before each part is the pre-norm order of GPT-2; dropout falls on
    the attention weights and on both results before they are added.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.embedding_dim)
        self.attention = CausalSelfAttention(config.embedding_dim, config.num_heads, config.dropout)
        self.projection = nn.Linear(config.embedding_dim, config.embedding_dim)
        self.feed_forward_norm = nn.LayerNorm(config.embedding_dim)
        self.feed_forward = FeedForward(config.embedding_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        attended = self.projection(self.attention(self.attention_norm(x)))  # NEW: the norm
        x = x + self.dropout(attended)  # NEW: dropout
        thought = self.feed_forward(self.feed_forward_norm(x))  # NEW: the norm
        return x + self.dropout(thought)  # NEW: dropout


class TransformerLM(LanguageModel):
    """Layer norm and dropout: deep models train steadily and learn less by heart. A GPT."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.blocks = nn.Sequential(*(TransformerBlock(config) for _ in range(config.num_layers)))
        self.final_norm = nn.LayerNorm(config.embedding_dim)  # NEW
        self.head = nn.Linear(config.embedding_dim, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)
        x = self.blocks(x)
        x = self.final_norm(x)
        return self.head(x)
