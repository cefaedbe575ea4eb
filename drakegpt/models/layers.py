"""Layers that the models share: embeddings, causal self-attention, feed-forward.

They run in every training step, so each is written to be fast: one matrix product
for the queries, keys and values of all heads, and the arithmetic in
`drakegpt.compute.kernels`. `reference` computes the same head by head; a test
proves that both agree.

Not here: losses, sampling, optimizers. A model turns tokens into logits.

Shapes: B windows in a batch, T tokens in a window, C width of the embedding,
H heads, D = C / H width of one head, V tokens in the vocabulary.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drakegpt.compute import kernels
from drakegpt.compute.rotary import rotate
from drakegpt.config import ModelConfig


class LanguageModel(nn.Module):
    """A causal language model: tokens (B, T) in, logits (B, T, V) for each next token out.

    The logits at a position depend on the tokens up to that position only. A model's
    name is the name of its class. Class attributes say what other packages need to
    know about the architecture:

        idea                what the model adds to the one before it, in a few words
        limit               what it cannot do yet
        has_hidden_layers   it has linear layers besides the output layer
        splits_heads        its attention has `num_heads` heads, which must divide
                            `embedding_dim` evenly
        has_residuals       its blocks add to their input, which Muon needs
        can_tie_embeddings  it supports `tie_embeddings`
        has_dropout         its blocks apply `dropout`
        drops_embeddings    its embeddings have the same dropout by default

    Some modules are found by name, wherever a model has them:

        head                the output layer; it stays in full precision, and is
                            trained by AdamW
        blocks              an `nn.Sequential` of blocks with equal parameters; one is
                            compiled for all, and two tell the size of any number
        query_key_value     its rows are queries, keys and values, a third each;
                            quantized, each third has its own scale
        projection, narrow  no layer norm comes before these; quantized, they get one

    The KV cache finds `CausalSelfAttention` and `TokenAndPositionEmbedding` by type:
    no other module may mix tokens or depend on positions.
    """

    idea: ClassVar[str]
    limit: ClassVar[str] = ""
    has_hidden_layers: ClassVar[bool] = True
    splits_heads: ClassVar[bool] = True
    has_residuals: ClassVar[bool] = False
    can_tie_embeddings: ClassVar[bool] = False
    has_dropout: ClassVar[bool] = False
    drops_embeddings: ClassVar[bool] = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens`: int64 (B, T) with T up to the context length. Returns float (B, T, V)."""
        raise NotImplementedError


def hidden_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the name and module of each linear layer except `head`, in the model's order."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "head":
            yield name, module


class Linear(nn.Linear):
    """`nn.Linear`, x @ weight.T + bias, computed by the faster of two libraries."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return kernels.linear(x, self.weight, self.bias)


class Dropout(nn.Dropout):
    """`nn.Dropout`: sets random activations to zero in training; four per random number."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return kernels.dropout(x, self.p) if self.training and self.p else x


class TokenAndPositionEmbedding(nn.Module):
    """A learned vector for each token plus a learned vector for each position.

    In training, `token_dropout` zeroes the vectors of random tokens, and the result has
    `embedding_dropout`. With rotary positions there is no position table:
    see `drakegpt.compute.rotary`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.embedding_dim)
        self.position: nn.Embedding | None = None
        if config.positions == "learned":
            self.position = nn.Embedding(config.context_length, config.embedding_dim)
        self.token_dropout = config.token_dropout
        self.dropout = Dropout(config.embedding_dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, C). Position t adds row t of the position table."""
        x = self.token(tokens)
        if self.training and self.token_dropout:
            generator = kernels.get_generator()
            drawn = torch.rand(tokens.shape, device=tokens.device, generator=generator)
            x = x * (drawn >= self.token_dropout).unsqueeze(-1).to(x.dtype)
        if self.position is not None:
            x = x + self.position.weight[: tokens.shape[1]]
        return self.dropout(x)


class CausalSelfAttention(nn.Module):
    """Each token gathers information from itself and the tokens before it.

    Scaled dot-product attention of Vaswani et al. 2017, section 3.2: each token has
    a query, a key and a value, each a linear function of its vector, without bias.
    Its result is the mean of the values of the tokens up to it, weighted by
    softmax(query . key / sqrt(D)). In each head, with all three as (B, T, D):

        scores = query @ key.transpose(-2, -1) / math.sqrt(D)       (B, T, T)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)         column after row
        weights = scores.masked_fill(future, -math.inf).softmax(-1)
        result = F.dropout(weights, dropout) @ value                (B, T, D)

    The results of the heads are concatenated: (B, T, H D) = (B, T, C). `Head` and
    `MultiHead` in `reference` do the same, one head at a time.
    """

    def __init__(self, embedding_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.rotary = False  # see `use_rotary_positions_`
        self.query_key_value = Linear(embedding_dim, 3 * embedding_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        query_key_value = self.query_key_value(x)  # (B, T, 3 C)
        if self.rotary:
            query_key_value = rotate(query_key_value, self.num_heads)
        dropout = self.dropout if self.training else 0.0
        return kernels.causal_attention(query_key_value, self.num_heads, dropout)


def use_rotary_positions_(model: nn.Module) -> None:
    """Let all attention of a model rotate its queries and keys by their positions, in place."""
    for module in model.modules():
        if isinstance(module, CausalSelfAttention):
            module.rotary = True


class FeedForward(nn.Module):
    """A two-layer network applied to each position separately, 4 C wide in between."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.widen = Linear(embedding_dim, 4 * embedding_dim)
        self.narrow = Linear(4 * embedding_dim, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.narrow(F.relu(self.widen(x)))
