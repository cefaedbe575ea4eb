"""A model that remembers what it has read, so that each token passes through it once.

For the next token, attention asks all tokens before it for their keys and
values; the rest of the model looks at one token alone. So a copy of the model
is made that shares its weights and keeps keys and values: to go on, only the
new token is computed. The parts are replaced by their type, whatever model they
make up; the model itself knows nothing of this.

Positions are counted from the start of the window. Where the window moves,
every token gets another position and all that was kept is void: it is read
again from its start. When that happens is decided in `window`.

Shapes: B texts, n tokens read at once, T tokens at most, C width of the
embedding, H heads, D = C / H, V tokens in the vocabulary.
"""

import copy
from contextlib import suppress

import torch
from torch import Tensor, nn

from drakegpt.compute import kernels
from drakegpt.models.layers import CausalSelfAttention, LanguageModel, TokenAndPositionEmbedding

# Activations, B * n * C, from which the last block takes the last token apart from the others.
MIN_SEPARATE_ACTIVATIONS = 2**13


def uses_attention(model: LanguageModel) -> bool:
    """Whether the model sees more than the last token: only attention mixes tokens."""
    return any(isinstance(module, CausalSelfAttention) for module in model.modules())


class CachedModel:
    """A model with attention that reads B texts of equal length, up to its context length."""

    def __init__(self, model: LanguageModel, texts: int) -> None:
        weight = next(model.parameters())
        self._place = Position(texts, weight.new_empty(model.config.context_length))
        self._model = _with_cache(model, self._place)

    @property
    def position(self) -> Tensor:
        """Of the token read last, int64 (1,): changed in place."""
        return self._place.position

    def start_over(self, length: int) -> None:
        """To be called before `length` tokens are read, unless the window had that many before."""
        self._place.set(length)

    def read(self, tokens: Tensor) -> Tensor:
        """Read a window from its start, (B, n), or one for all texts, (1, n).

        Returns the logits (B, V), or (1, V), of the token after the last.
        """
        return self._model(tokens)[:, -1]

    def read_on(self, tokens: Tensor) -> Tensor:
        """Read one more token of each text, (B, 1), while there is room. Returns logits (B, V)."""
        self._place.advance()
        return self._model(tokens)[:, -1]


class Position:
    """How far the texts have been read; shared by all parts of a model.

    Tensors that change in place, so that a step can be played from a tape or a CUDA graph.
    """

    def __init__(self, texts: int, unread: Tensor) -> None:
        """`unread` (T,): to be added to attention scores, -inf where no token was read yet."""
        self.texts = texts
        self.unread = unread
        self.position = torch.zeros(1, dtype=torch.int64, device=unread.device)  # the last one's

    def set(self, length: int) -> None:
        """The first `length` tokens are read, or about to be."""
        self.position.fill_(length - 1)
        self.unread.fill_(-torch.inf)
        self.unread[:length] = 0

    def advance(self) -> None:
        """One more is about to be."""
        self.position.add_(1)
        self.unread.index_fill_(0, self.position, 0.0)


def _with_cache(model: LanguageModel, place: Position) -> nn.Module:
    """A copy of the model, with the same weights, whose parts keep what they will need again."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    result = copy.deepcopy(model, shared)
    for name, module in list(result.named_modules()):
        if isinstance(module, TokenAndPositionEmbedding):
            result.set_submodule(name, _CachedEmbedding(module, place))
        elif isinstance(module, CausalSelfAttention):
            head_size = model.config.embedding_dim // module.num_heads
            attention = _CachedAttention(module, head_size, place)
            result.set_submodule(name, attention)
            block = _find_block(result, name)
    result.set_submodule(block, _LastBlock(result.get_submodule(block), attention))
    return result


def _find_block(model: nn.Module, name: str) -> str:
    """The name of the block that the layer `name` belongs to; its own where there are no blocks."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if isinstance(model.get_submodule(first), nn.Sequential) else name


class _CachedEmbedding(nn.Module):
    """Gives a single token the position that has been reached, instead of the first."""

    def __init__(self, embedding: TokenAndPositionEmbedding, place: Position) -> None:
        super().__init__()
        self.embedding = embedding
        self.place = place

    @property
    def token(self) -> nn.Embedding:
        """The table of tokens, which may also score them."""
        return self.embedding.token

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, n) -> (B, n, C)."""
        if tokens.shape[1] > 1:
            return self.embedding(tokens)
        return self.embedding.token(tokens) + self.embedding.position(self.place.position)


class _CacheFilled(Exception):  # noqa: N818 - nothing went wrong
    """Ends a pass through the last block once its attention knows all keys and values."""


class _CachedAttention(nn.Module):
    """Attention that keeps all keys and values; a single token attends to those kept."""

    def __init__(self, attention: CausalSelfAttention, head_size: int, place: Position) -> None:
        super().__init__()
        self.query_key_value = attention.query_key_value
        self.num_heads, self.place = attention.num_heads, place
        self.only_remember = False
        self.room = len(place.unread)
        shape = (2, place.texts, self.num_heads, self.room, head_size)
        self.memory = place.unread.new_zeros(shape)  # keys and values, (2, B, H, T, D)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, C). Several tokens stand at the start of the window."""
        n = x.shape[1]
        if n == 1:
            return self._next(x.expand(self.place.texts, -1, -1))
        query_key_value = self.query_key_value(x)
        if n < self.room or self.only_remember:  # after a full window nothing can follow
            self.memory[:, :, :, :n] = self._heads(query_key_value)[1:]
        if self.only_remember:
            raise _CacheFilled
        return kernels.causal_attention(query_key_value, self.num_heads)

    def _next(self, x: Tensor) -> Tensor:
        """One token of each text, where the place is: (B, 1, C) -> (B, 1, C)."""
        query, *key_value = self._heads(self.query_key_value(x)).split((1, 2))
        self.memory.index_copy_(3, self.place.position, *key_value)
        key, value = self.memory.flatten(1, 2)  # (B H, T, D)
        query = query.reshape(len(key), 1, -1)
        scale = query.shape[-1] ** -0.5
        scores = torch.baddbmm(self.place.unread, query, key.transpose(1, 2), alpha=scale)
        return torch.bmm(scores.softmax(-1), value).view(x.shape)

    def _heads(self, query_key_value: Tensor) -> Tensor:
        """(B, n, 3 C) -> queries, keys and values, (3, B, H, n, D)."""
        return query_key_value.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)


class _LastBlock(nn.Module):
    """The last block: of what it makes only the last token's part is read.

    Of the tokens before, its attention needs keys and values, and nobody more.
    So these pass through it until their keys and values are known; the last
    token then follows on its own. Where they are few, one pass of all is quicker.
    """

    def __init__(self, block: nn.Module, attention: _CachedAttention) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, 1, C)."""
        if x.shape[1] > 2 and x.numel() >= MIN_SEPARATE_ACTIVATIONS:
            self.attention.only_remember = True
            with suppress(_CacheFilled):
                self.block(x[:, :-1])
            self.attention.only_remember = False
            x = x[:, -1:]
        return self.block(x)[:, -1:]
