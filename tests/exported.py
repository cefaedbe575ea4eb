"""What the tests of exports share: the runs' settings, an odd text, and what drakegpt computes."""

import torch

from drakegpt.generation.sampling import Sampling, generate

CPU = torch.device("cpu")
SMALL = {
    "context_length": 256, "embedding_dim": 16, "num_layers": 2, "num_heads": 2,
    "batch_size": 4, "iters": 60, "eval_interval": 60, "eval_iters": 1, "recipe": "fast",
}  # fmt: skip
# A tab, quotes, backslashes, NUL, a carriage return, combining marks, an emoji of several, marks
# of direction and of byte order, special tokens of BPE and of GPT-2.
ODD = (
    "a\tb  \"q\" 'x' \\ \\n\r\n\x00 e\u0301 \u00e9 \u6f22 \U0001f469\u200d\U0001f467 \ufeff\u202e"
    " </s> <|endoftext|> ...  \n\n"
)


def take_tokens(run, count=200):
    """The first tokens of a run's validation text: int64 (1, count)."""
    return run.load_dataset().split("val")[:count].long()[None]


def compute_logits(run, tokens):
    """The logits at every position: (1, T, V)."""
    with torch.no_grad():
        return run.load_model(CPU)(tokens)


def write_greedily(run, tokens, length=100):
    """The likeliest tokens that continue a text, (1, T): a list."""
    greedy = Sampling(temperature=0)
    return list(generate(run.load_model(CPU), tokens[0].tolist(), length, greedy, 1))
