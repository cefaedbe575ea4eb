"""Small models of each kind, trained for a moment on a text of words, for the page's engine."""

import random
from copy import deepcopy
from functools import cache

import torch
from torch import nn

from drakegpt.config import ModelConfig
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.models.bitlinear import quantize_
from drakegpt.models.registry import build_model

WORDS = "the night is long and the road is wide, oh sing it again; what we had is gone\n".split(" ")
_CHOICE = random.Random(1)
LETTERS = "".join(_CHOICE.choice(WORDS) + " " for _ in range(2000))
TOKENIZER = CharTokenizer.from_text(LETTERS)
TEXT = torch.from_numpy(TOKENIZER.encode(LETTERS).astype("int64"))
V = TOKENIZER.vocab_size


@cache
def train_model(name, bits="full", **settings):
    """A model after a few dozen steps on a text of words."""
    given = {"vocab_size": V, "context_length": 16, "embedding_dim": 24, "num_heads": 2}
    config = ModelConfig(model=name, dropout=0.0, **(given | {"num_layers": 2} | settings))
    torch.manual_seed(0)
    model = build_model(config)
    if bits != "full":
        quantize_(model, bits)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        starts = torch.randint(len(TEXT) - config.context_length - 1, (16, 1))
        windows = TEXT[starts + torch.arange(config.context_length + 1)]
        logits = model(windows[:, :-1]).flatten(0, 1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, windows[:, 1:].flatten()).backward()
        optimizer.step()
    return model.eval()


def copy_model(name, **settings):
    return deepcopy(train_model(name, **settings))


def some_tokens(count):
    return TEXT[-count:]
