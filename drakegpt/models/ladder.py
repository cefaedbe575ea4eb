"""From a table of character pairs to a GPT, in six steps. Read it from top to bottom.

Every model here answers the same question: given some text, which character
comes next? It takes tokens (B, T) and returns logits (B, T, V): one score per
character of the vocabulary, at each position. Softmax turns the scores of one
position into probabilities.

Shapes: B windows of text in a batch, T tokens (here characters) in a window,
C numbers in the vector that represents a token inside a model, V characters in
the vocabulary.

Each model adds one idea to the one before it, and its docstring explains that
idea. From the second model on, NEW marks the lines that the model before did not
have; on a `class` line it means the whole class. `Linear` and `Dropout` compute
what PyTorch's own do, faster. `CausalSelfAttention` is explained in `layers`, and
written out head by head in `reference`. Class attributes such as `idea` and
`splits_heads` are read by other packages and change nothing in the computation;
`LanguageModel` in `layers` lists them.

    BigramLM               look at the last character
    SingleHeadAttentionLM  look back at the characters before it
    MultiHeadAttentionLM   look back in several ways at once
    BlocksLM               think about what was seen, and look again
    ResidualBlocksLM       keep what was there, add what is new
    TransformerLM          bring numbers to a common size, and drop some at random
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

    Row i of the table holds the scores of all characters that may follow character i.
    After training, the softmax of the row is close to the frequencies with which they
    follow it in the text; counting pairs of characters gives the same numbers.
    """

    idea = "look at the last character"
    limit = "sees one character, so it makes no words"
    has_hidden_layers = False
    splits_heads = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        return self.table(tokens)


# --- 2. Look back -------------------------------------------------------------------------------


class SingleHeadAttentionLM(LanguageModel):
    """Attention: each position gathers information from itself and the ones before it.

    Each character becomes a vector of C numbers, and a vector for its position is
    added. One causal attention head replaces the vector at each position by a weighted
    mean over the positions so far; which ones weigh most depends on the text and is
    learned. The output layer, named `head` in every model from here on, turns the
    result into scores of the next character.
    """

    idea = "look back at the characters before it"
    limit = "looks back in one way at a time"
    splits_heads = False

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
    """Several attention heads: the C numbers are split among them, and each has its own weights.

    One head may follow the last vowel, another the start of the line. The number of
    parameters stays the same, because each head is narrower.
    """

    idea = "look back in several ways at once"
    limit = "gathers what it sees, but computes nothing with it"

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
    """Attention between positions, then a small network at each position by itself."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(config.embedding_dim, config.num_heads)
        self.feed_forward = Linear(config.embedding_dim, config.embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = self.attention(x)
        return F.relu(self.feed_forward(x))


class BlocksLM(LanguageModel):
    """Depth: attention and a small network form a block, and blocks are stacked.

    Each block works on the results of the block below it. But a block replaces its
    input, so what it does not pass on is lost, and gradients shrink on their way down
    to the lowest block.
    """

    idea = "think about what was seen, and look again"
    limit = "each block replaces what the one before knew, so depth can hurt"

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
    """A block that adds to its input instead of replacing it (He et al. 2015)."""

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
    """Residual connections: each part of a block computes a change, which is added to x.

    What one block does not need passes through unchanged, and so does the gradient,
    which reaches the lowest block undiminished.

    Two more changes come with this model, as in the transformer. A projection, a linear
    layer, mixes the results of the attention heads before they are added. And the
    network of a block has two layers, with 4 C numbers between them.
    """

    idea = "keep what was there, add what is new"
    limit = "nothing bounds its numbers, so its learning rate has to stay low"
    has_residuals = True

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
    """A residual block with layer norm before, and dropout after, each of its two parts.

    Layer norm brings the C numbers of each position to mean 0 and variance 1, then
    applies a learned scale and shift. It normalises what a part reads, while x itself
    is passed on as it is: the "pre-norm" order of GPT-2 (the first transformer
    normalised each sum instead). Dropout sets random numbers to zero in training:
    attention weights, and the result of each part before it is added.
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
    """Layer norm and dropout: deep models train steadily and memorize less.

    With normalised inputs, higher learning rates work; with dropout, the model cannot
    rely on any single number, and so overfits less. A last norm comes before the output
    layer.

    This is a small GPT, a generative pre-trained transformer: a stack of such blocks
    that looks only backwards, trained to predict the next token, so that it can
    generate text one token at a time.
    """

    idea = "bring numbers to a common size, and drop some at random"
    limit = "knows nothing from before its context"
    has_residuals = True
    has_dropout = True

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
