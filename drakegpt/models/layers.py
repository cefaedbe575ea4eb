"""The parts that the rungs of the ladder share: embeddings, causal attention, feed-forward.

These are the hot path, so each is written the fast way: one matrix product for
the queries, keys and values of all heads, and the arithmetic in `kernels`.
What the same attention looks like head by head, as textbooks draw it, is in
`textbook`, and a test proves that both agree.

Not here: losses, sampling, optimizers. A model turns tokens into logits, no more.

Shapes: B windows in a batch, T tokens in a window, C width of the embedding,
H heads, D = C / H width of one head, V tokens in the vocabulary.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from drakegpt.compute import kernels
from drakegpt.config import ModelConfig


class LanguageModel(nn.Module):
    """What every model is: tokens (B, T) in, logits (B, T, V) for each next token out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens`: int64 (B, T) with T up to the context length. Returns float (B, T, V)."""
        raise NotImplementedError


class Linear(nn.Linear):
    """`nn.Linear`, x @ weight.T + bias, by the quicker of PyTorch's two libraries for products."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return kernels.linear(x, self.weight, self.bias)


class Dropout(nn.Dropout):
    """`nn.Dropout`: sets numbers to zero at random while training; draws four at a time."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return kernels.dropout(x, self.p) if self.training and self.p else x


class TokenAndPositionEmbedding(nn.Module):
    """A learned vector for what a token is plus a learned vector for where it stands."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.embedding_dim)
        self.position = nn.Embedding(config.context_length, config.embedding_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, C). Position t takes row t of the table of positions."""
        return self.token(tokens) + self.position.weight[: tokens.shape[1]]


class CausalSelfAttention(nn.Module):
    """Every token gathers from itself and the tokens before it, in `num_heads` ways at once.

    Scaled dot-product attention of Vaswani et al. 2017, section 3.2: each token
    asks a query, each offers a key and a value; it takes the mean of the values,
    weighted by softmax(query . key / sqrt(D)), never looking ahead. Queries,
    keys and values have no bias. In each head, with all three as (B, T, D):

        scores = query @ key.transpose(-2, -1) / math.sqrt(D)       (B, T, T)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)         column after row
        weights = scores.masked_fill(future, -math.inf).softmax(-1)
        result = F.dropout(weights, dropout) @ value                (B, T, D)

    and the heads' results are laid side by side, (B, T, H D) = (B, T, C). Written
    out head by head, this is `Head` and `MultiHead` in `textbook`.
    """

    def __init__(self, embedding_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_key_value = Linear(embedding_dim, 3 * embedding_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        query_key_value = self.query_key_value(x)  # (B, T, 3 C)
        dropout = self.dropout if self.training else 0.0
        return kernels.causal_attention(query_key_value, self.num_heads, dropout)


class FeedForward(nn.Module):
    """Each token on its own: widen four times, keep what is positive, narrow again."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.widen = Linear(embedding_dim, 4 * embedding_dim)
        self.narrow = Linear(4 * embedding_dim, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.narrow(F.relu(self.widen(x)))
