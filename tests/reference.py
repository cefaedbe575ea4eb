"""The six models as textbooks write them: head by head, with a mask and explicit softmax.

Slow and plain on purpose: this is what `drakegpt.models` is checked against.
Parameters are named as in the original DrakeGPT scripts, so that their
checkpoints fit these modules.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Head(nn.Module):
    def __init__(self, C, head_size, T, dropout=0.0):
        super().__init__()
        self.key = nn.Linear(C, head_size, bias=False)
        self.query = nn.Linear(C, head_size, bias=False)
        self.value = nn.Linear(C, head_size, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("tril", torch.tril(torch.ones(T, T)))

    def forward(self, x):
        T = x.shape[1]
        k, q, v = self.key(x), self.query(x), self.value(x)
        weights = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
        weights = weights.masked_fill(self.tril[:T, :T] == 0, float("-inf"))
        weights = self.dropout(F.softmax(weights, dim=-1))
        return weights @ v


class MultiHead(nn.Module):
    def __init__(self, config, project, dropout=0.0):
        super().__init__()
        C, H = config.embedding_dim, config.num_heads
        self.heads = nn.ModuleList(
            Head(C, C // H, config.context_length, dropout) for _ in range(H)
        )
        self.dropout = nn.Dropout(dropout)
        if project:
            self.proj = nn.Linear(C, C)

    def forward(self, x):
        out = torch.cat([head(x) for head in self.heads], dim=-1)
        return self.dropout(self.proj(out)) if hasattr(self, "proj") else out


class FeedForward(nn.Module):
    def __init__(self, C, widen, dropout=0.0):
        super().__init__()
        if widen:
            layers = [nn.Linear(C, 4 * C), nn.ReLU(), nn.Linear(4 * C, C), nn.Dropout(dropout)]
        else:
            layers = [nn.Linear(C, C), nn.ReLU()]
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


class PlainBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.sa_head = MultiHead(config, project=False)
        self.ffwd = FeedForward(config.embedding_dim, widen=False)

    def forward(self, x):
        return self.ffwd(self.sa_head(x))


class ResidualBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.sa_head = MultiHead(config, project=True)
        self.ffwd = FeedForward(config.embedding_dim, widen=True)

    def forward(self, x):
        x = x + self.sa_head(x)
        return x + self.ffwd(x)


class NormBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.sa_head = MultiHead(config, project=True, dropout=config.dropout)
        self.ffwd = FeedForward(config.embedding_dim, widen=True, dropout=config.dropout)
        self.ln1 = nn.LayerNorm(config.embedding_dim)
        self.ln2 = nn.LayerNorm(config.embedding_dim)

    def forward(self, x):
        x = x + self.sa_head(self.ln1(x))
        return x + self.ffwd(self.ln2(x))


class ReferenceLM(nn.Module):
    """Any rung of the ladder; `final_norm=False` leaves it out, as the original did."""

    def __init__(self, config, final_norm=True):
        super().__init__()
        V, C, T = config.vocab_size, config.embedding_dim, config.context_length
        self.final_norm = final_norm
        if config.model == "BigramLM":
            self.token_embedding_table = nn.Embedding(V, V)
            return
        self.token_embedding_table = nn.Embedding(V, C)
        self.position_embedding_table = nn.Embedding(T, C)
        self.lm_head = nn.Linear(C, V)
        if config.model == "SingleHeadAttentionLM":
            self.sa_head = Head(C, C, T)
        elif config.model == "MultiHeadAttentionLM":
            self.sa_head = MultiHead(config, project=False)
        else:
            block = {
                "BlocksLM": PlainBlock,
                "ResidualBlocksLM": ResidualBlock,
                "TransformerLM": NormBlock,
            }[config.model]
            self.blocks = nn.Sequential(*(block(config) for _ in range(config.num_layers)))
        if config.model == "TransformerLM":
            self.ln_f = nn.LayerNorm(C)

    def forward(self, tokens):
        x = self.token_embedding_table(tokens)
        if not hasattr(self, "lm_head"):
            return x
        x = x + self.position_embedding_table(torch.arange(tokens.shape[1]))
        x = self.blocks(x) if hasattr(self, "blocks") else self.sa_head(x)
        if hasattr(self, "ln_f") and self.final_norm:
            x = self.ln_f(x)
        return self.lm_head(x)
