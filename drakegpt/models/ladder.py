"""From counting pairs of letters to a GPT, in six steps. Read it from top to bottom.

Every model here answers the same question: given some text, which character
comes next? It takes tokens (B, T) and returns logits (B, T, V): one score per
character of the vocabulary, at each position. Softmax turns the scores of one
position into probabilities.

Shapes: B windows of text in a batch, T tokens (here characters) in a window,
C numbers in the vector that stands for a token inside a model, V characters in
the vocabulary.

Each model adds one idea to the one before it, and its docstring names that
idea. From the second model on, NEW marks the lines that the one before did not
have; on a `class` line it means the whole class. `Linear` and `Dropout` are
PyTorch's own, only quicker; `CausalSelfAttention` is explained in `layers`, and
spelt out head by head in `textbook`.

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
    Dropout,
    FeedForward,
    LanguageModel,
    Linear,
    TokenAndPositionEmbedding,
)

# --- 1. Look at the last character --------------------------------------------------------------


class BigramLM(LanguageModel):
    """The next character depends on the current one alone: a table of V x V scores.

    Trained well, the softmax of row i comes close to the share of each character
    among those that follow character i, which one could as well have counted.
    Only differences within a row matter: softmax ignores a constant added to it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        return self.table(tokens)


# --- 2. Look back -------------------------------------------------------------------------------


class SingleHeadAttentionLM(LanguageModel):
    """Attention: each character gathers from itself and those before it, and chooses which.

    A character becomes a vector of C numbers, to which its position adds
    another. One causal attention head as wide as that vector mixes the past into
    the present; an output layer, linear and called `head` in the code of every
    model from here on, reads the scores of the next character off the result.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)  # NEW
        self.attention = CausalSelfAttention(config.embedding_dim, num_heads=1)  # NEW
        self.head = Linear(config.embedding_dim, config.vocab_size)  # NEW

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)  # NEW
        x = self.attention(x)  # NEW
        return self.head(x)  # NEW


# --- 3. Look back in several ways at once -------------------------------------------------------


class MultiHeadAttentionLM(LanguageModel):
    """Several attention heads: the same width, split, so that each part looks for its own thing.

    One head may follow the last vowel, another the start of the line. The
    parameters are as many as before; only the way they are used differs.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.attention = CausalSelfAttention(config.embedding_dim, config.num_heads)  # NEW
        self.head = Linear(config.embedding_dim, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)
        x = self.attention(x)
        return self.head(x)


# --- 4. Think, and look again -------------------------------------------------------------------


class Block(nn.Module):  # NEW
    """Gather from the past, then let each position think about what it gathered."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(config.embedding_dim, config.num_heads)
        self.feed_forward = Linear(config.embedding_dim, config.embedding_dim)

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
        self.head = Linear(config.embedding_dim, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)
        x = self.blocks(x)  # NEW
        return self.head(x)


# --- 5. Keep what was there ---------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """A block that adds to what comes in, instead of replacing it (He et al. 2015)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(config.embedding_dim, config.num_heads)
        self.projection = Linear(config.embedding_dim, config.embedding_dim)  # NEW
        self.feed_forward = FeedForward(config.embedding_dim)  # NEW: wider, with the ReLU inside

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.projection(self.attention(x))  # NEW: x +, projection
        return x + self.feed_forward(x)  # NEW: x +


class ResidualBlocksLM(LanguageModel):
    """Residual connections: a straight road through all blocks, for text and gradients alike.

    A residual connection adds a part's input to its output; the sum hands the
    gradient on to both unchanged, so that it reaches even the lowest block.

    Two more things come with this model, as in the transformer: a projection
    mixes the attention heads before their result is added, and the feed-forward
    network of a block becomes two layers, four times as wide between them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.blocks = nn.Sequential(
            *(ResidualBlock(config) for _ in range(config.num_layers))  # NEW
        )
        self.head = Linear(config.embedding_dim, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)
        x = self.blocks(x)
        return self.head(x)


# --- 6. Keep the numbers in hand ----------------------------------------------------------------


class TransformerBlock(nn.Module):
    """A residual block that normalises what it reads and drops some of what it adds.

    Layer norm brings the C numbers of each position to mean 0 and variance 1,
    then applies a learned scale and shift. It stands before each part, off the
    straight road: the pre-norm order of GPT-2, where the first transformer had
    it after each sum. Dropout sets numbers to zero at random while training; it
    falls on the attention weights and on both results before they are added.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.embedding_dim)  # NEW
        self.attention = CausalSelfAttention(
            config.embedding_dim,
            config.num_heads,
            config.dropout,  # NEW
        )
        self.projection = Linear(config.embedding_dim, config.embedding_dim)
        self.feed_forward_norm = nn.LayerNorm(config.embedding_dim)  # NEW
        self.feed_forward = FeedForward(config.embedding_dim)
        self.dropout = Dropout(config.dropout)  # NEW

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        attended = self.projection(self.attention(self.attention_norm(x)))  # NEW: the norm
        x = x + self.dropout(attended)  # NEW: dropout
        thought = self.feed_forward(self.feed_forward_norm(x))  # NEW: the norm
        return x + self.dropout(thought)  # NEW: dropout


class TransformerLM(LanguageModel):
    """Layer norm and dropout: deep models train steadily and learn less by heart.

    This is a small GPT, a generative pre-trained transformer: a stack of such
    blocks that looks back only, trained to predict the next token, so that it
    can write text one token at a time.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.blocks = nn.Sequential(
            *(TransformerBlock(config) for _ in range(config.num_layers))  # NEW
        )
        self.final_norm = nn.LayerNorm(config.embedding_dim)  # NEW
        self.head = Linear(config.embedding_dim, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embedding(tokens)
        x = self.blocks(x)
        x = self.final_norm(x)  # NEW
        return self.head(x)
