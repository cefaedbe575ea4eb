"""KV cache: a copy of a model that keeps keys and values, so that each token is computed once.

The next token depends on earlier tokens only by their keys and values in attention. The
copy shares the model's weights; its attention and embedding layers, found by their type, are
replaced by ones that keep state. The model itself does not know of the cache. On a CPU,
large layers with many outputs get copies of their weights in another order.

Positions are counted from the start of the context window. When the window moves, every
token gets another position, so the cache is void and the window is read again.
`context_window` decides when.

Shapes: B texts, n tokens read together, T context length, C embedding width, H heads,
D = C / H, V tokens in the vocabulary.
"""

import copy
from contextlib import suppress

import torch
from torch import Tensor, nn

from drakegpt.compute import kernels
from drakegpt.compute.rotary import rotate, rotate_at
from drakegpt.models.layers import (
    CausalSelfAttention,
    LanguageModel,
    Linear,
    TokenAndPositionEmbedding,
)

# Tokens up to which a softmax over columns is faster on a CPU: PyTorch vectorizes rows from 16 on.
SHORT_WINDOW = 15
# Weights of a layer from which the order they are stored in matters on a CPU.
STORED_BY_COLUMN_FROM = 2**18
# Activations, B * n * C, from which the last block computes the last token separately.
MIN_SEPARATE_ACTIVATIONS = 2**13


def uses_attention(model: LanguageModel) -> bool:
    """Tell whether the model sees more than the last token: only attention mixes tokens."""
    return any(isinstance(module, CausalSelfAttention) for module in model.modules())


class CachedModel:
    """Reads B texts of equal length, up to the context length, with a model with attention."""

    def __init__(self, model: LanguageModel, texts: int) -> None:
        weight = next(model.parameters())
        self._state = CacheState(texts, weight.new_empty(model.config.context_length))
        self._model = _with_cache(model, self._state)

    @property
    def position(self) -> Tensor:
        """Position of the last token read, int64 (1,), which changes in place."""
        return self._state.position

    def restart(self, length: int) -> None:
        """Prepare to read a window of `length` tokens from its start.

        Not needed if the window read before was as long.
        """
        self._state.set(length)

    def read(self, tokens: Tensor) -> Tensor:
        """Read a window from its start, (B, n), or one for all texts, (1, n).

        Returns the logits (B, V), or (1, V), of the token after the last.
        """
        return self._model(tokens)[:, -1]

    def read_next(self, tokens: Tensor) -> Tensor:
        """Read the next token of each text, (B, 1), while there is room. Returns logits (B, V)."""
        self._state.advance()
        return self._model(tokens)[:, -1]


class CacheState:
    """How many tokens of the texts were read; shared by all layers of a model.

    Its tensors change in place, so that a step can be replayed.
    """

    def __init__(self, texts: int, mask: Tensor) -> None:
        """`mask`: (T,), is added to attention scores: -inf where no token was read yet, else 0."""
        self.texts = texts
        self.mask = mask
        self.position = torch.zeros(1, dtype=torch.int64, device=mask.device)  # of the last token

    def set(self, length: int) -> None:
        """Count the first `length` tokens as read."""
        self.position.fill_(length - 1)
        self.mask.fill_(-torch.inf)
        self.mask[:length] = 0

    def advance(self) -> None:
        """Count one more token as read."""
        self.position.add_(1)
        self.mask.index_fill_(0, self.position, 0.0)


def _with_cache(model: LanguageModel, state: CacheState) -> nn.Module:
    """Copy a model, sharing most weights, with layers that cache keys and values."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    result = copy.deepcopy(model, shared)
    for name, module in list(result.named_modules()):
        if type(module) is Linear and module.weight.is_cpu:
            _store_by_column_(module)
        if isinstance(module, TokenAndPositionEmbedding):
            result.set_submodule(name, _CachedEmbedding(module, state))
        elif isinstance(module, CausalSelfAttention):
            head_size = model.config.embedding_dim // module.num_heads
            attention = _CachedAttention(module, head_size, state)
            result.set_submodule(name, attention)
            block = _find_block(result, name)
    result.set_submodule(block, _LastBlock(result.get_submodule(block), attention))
    return result


def _store_by_column_(linear: Linear) -> None:
    """Give a layer with many outputs a copy of its weights, with which one row takes half the time.

    A row is then multiplied along longer stretches of memory. Small layers stay in the
    processor's caches, where the order makes no difference.
    """
    weight = linear.weight
    if weight.shape[0] > 2 * weight.shape[1] and weight.numel() >= STORED_BY_COLUMN_FROM:
        linear.weight = nn.Parameter(weight.detach().t().contiguous().t(), requires_grad=False)


def _find_block(model: nn.Module, name: str) -> str:
    """Find the name of the block that contains layer `name`; that name itself without blocks."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if isinstance(model.get_submodule(first), nn.Sequential) else name


class _CachedEmbedding(nn.Module):
    """Embeds a single token at the position reached, instead of the first."""

    def __init__(self, embedding: TokenAndPositionEmbedding, state: CacheState) -> None:
        super().__init__()
        self.embedding = embedding
        self.state = state

    @property
    def token(self) -> nn.Embedding:
        """The token embedding, which the output layer may share."""
        return self.embedding.token

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, n) -> (B, n, C)."""
        if tokens.shape[1] > 1:
            return self.embedding(tokens)
        x: Tensor = self.embedding.token(tokens)
        position = self.embedding.position
        return x if position is None else x + position(self.state.position)


class _CacheFilled(Exception):  # noqa: N818 - not an error
    """Ends a forward pass of the last block once its attention has all keys and values."""


class _CachedAttention(nn.Module):
    """Attention that caches keys and values; a single token attends to the cached ones."""

    def __init__(self, attention: CausalSelfAttention, head_size: int, state: CacheState) -> None:
        super().__init__()
        self.query_key_value = attention.query_key_value
        self.num_heads, self.rotary, self.state = attention.num_heads, attention.rotary, state
        self.only_fill_cache = False
        self.context_length = len(state.mask)
        shape = (2, state.texts, self.num_heads, self.context_length, head_size)
        self.cache = state.mask.new_zeros(shape)  # keys and values, (2, B, H, T, D)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, C). Several tokens are the start of a window."""
        n = x.shape[1]
        if n == 1:
            return self._attend_to_cache(x.expand(self.state.texts, -1, -1))
        query_key_value = self.query_key_value(x)
        if self.rotary:
            query_key_value = rotate(query_key_value, self.num_heads)
        if n < self.context_length or self.only_fill_cache:  # nothing can follow a full window
            self.cache[:, :, :, :n] = self._split_heads(query_key_value)[1:]
        if self.only_fill_cache:
            raise _CacheFilled
        on_cpu = x.device.type == "cpu"
        if n <= SHORT_WINDOW and on_cpu and query_key_value.dtype == torch.float32:
            return self._attend_in_short_window(query_key_value)
        return kernels.causal_attention(query_key_value, self.num_heads)

    def _attend_in_short_window(self, query_key_value: Tensor) -> Tensor:
        """Compute `causal_attention` with the scores transposed: (B, n, 3 C) -> (B, n, C)."""
        heads = self._split_heads(query_key_value)
        B, H, n, D = heads.shape[1:]
        query, key, value = heads.reshape(3, B * H, n, D)
        future = torch.full((n, n), -torch.inf).tril(-1)  # queries are columns
        scores = torch.baddbmm(future, key, query.transpose(1, 2), alpha=D**-0.5)
        gathered = torch.bmm(scores.softmax(1).transpose(1, 2), value)
        return gathered.view(B, H, n, D).transpose(1, 2).reshape(B, n, -1)

    def _attend_to_cache(self, x: Tensor) -> Tensor:
        """Attend from one token of each text at the current position: (B, 1, C) -> (B, 1, C)."""
        query_key_value = self.query_key_value(x)
        if self.rotary:
            query_key_value = rotate_at(
                query_key_value, self.num_heads, self.state.position, self.context_length
            )
        query, *key_value = self._split_heads(query_key_value).split((1, 2))
        self.cache.index_copy_(3, self.state.position, *key_value)
        key, value = self.cache.flatten(1, 2)  # (B H, T, D)
        query = query.reshape(len(key), 1, -1)
        scale = query.shape[-1] ** -0.5
        scores = torch.baddbmm(self.state.mask, query, key.transpose(1, 2), alpha=scale)
        return torch.bmm(scores.softmax(-1), value).view(x.shape)

    def _split_heads(self, query_key_value: Tensor) -> Tensor:
        """Split into queries, keys and values by head: (B, n, 3 C) -> (3, B, H, n, D)."""
        return query_key_value.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)


class _LastBlock(nn.Module):
    """The last block, of whose output only the last token is used.

    Earlier tokens only contribute keys and values here. Their forward pass ends once
    these are cached; the last token then passes alone. For few tokens one forward pass
    of all is faster.
    """

    def __init__(self, block: nn.Module, attention: _CachedAttention) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, 1, C)."""
        if x.shape[1] > 2 and x.numel() >= MIN_SEPARATE_ACTIVATIONS:
            self.attention.only_fill_cache = True
            with suppress(_CacheFilled):
                self.block(x[:, :-1])
            self.attention.only_fill_cache = False
            x = x[:, -1:]
        return self.block(x)[:, -1:]
