"""A GPT of the same shape as drakegpt's TransformerLM, written as is usual in PyTorch."""

from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A pre-norm block, with one product for queries, keys and values."""

    def __init__(self, C, num_heads, dropout):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.query_key_value, self.out = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, C)
        self.up, self.down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x):
        """(B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        query, key, value = (
            part.view(B, T, self.num_heads, -1).transpose(1, 2)
            for part in self.query_key_value(self.norm1(x)).split(C, 2)
        )
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
        x = x + F.dropout(self.out(y.transpose(1, 2).reshape(B, T, C)), p)
        return x + F.dropout(self.down(F.relu(self.up(self.norm2(x)))), p)


class GPT(nn.Module):
    """Takes tokens and targets, (B, T), and returns their mean loss."""

    def __init__(self, config, vocab_size):
        super().__init__()
        T, C = config.context_length, config.embedding_dim
        self.token, self.position = nn.Embedding(vocab_size, C), nn.Embedding(T, C)
        self.blocks = nn.ModuleList(
            Block(C, config.num_heads, config.dropout) for _ in range(config.num_layers)
        )
        self.norm, self.head = nn.LayerNorm(C), nn.Linear(C, vocab_size)

    def forward(self, tokens, targets):
        """(B, T), (B, T) -> scalar."""
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x)).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
