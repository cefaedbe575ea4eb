"""GPT-1's model: its count, its beginning, its arithmetic written out, its two heads."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from drakegpt.config import preset_model, resolve
from drakegpt.errors import UsageError
from drakegpt.generation.sampling import Sampling, generate
from drakegpt.models.gpt1 import GPT1LM
from drakegpt.models.registry import build_model
from drakegpt.models.size import count_parameters
from drakegpt.runs.checkpoint import load_weights, save_weights


def build(**changes):
    torch.manual_seed(0)
    config = dataclasses.replace(preset_model("GPT1LM", "default", 80), **changes)
    return build_model(config)


def test_the_described_size_by_component():
    """116 million: the table of 20,000 tokens and its like at the other end are a quarter."""
    V, T, C, blocks = 20_000, 512, 768, 12
    config = preset_model("GPT1LM", "default", V, "gpt1")
    assert (config.context_length, config.embedding_dim, config.num_heads) == (T, C, 12)
    assert count_parameters(config) == {
        "embedding.token": V * C,
        "embedding.position": T * C,
        "attention_norm": blocks * 2 * C,
        "attention.query_key_value": blocks * 3 * C * C,
        "projection": blocks * (C * C + C),
        "feed_forward_norm": blocks * 2 * C,
        "feed_forward.widen": blocks * (4 * C * C + 4 * C),
        "feed_forward.narrow": blocks * (4 * C * C + C),
        "final_norm": 2 * C,
        "head": V * C,
    }
    assert sum(count_parameters(config).values()) == 116_141_568
    tied = dataclasses.replace(config, tie_embeddings=True)
    assert sum(count_parameters(tied).values()) == 116_141_568 - V * C


def test_weights_start_as_the_paper_draws_them():
    model = build(embedding_dim=128, vocab_size=500)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            assert parameter.mean().abs() < 0.002, name
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
        else:
            assert torch.all(parameter == ("norm" in name and name.endswith("weight"))), name


def written_out(model, tokens):
    """The logits by the formulas, head by head, with weights of `model` and nothing else of it."""
    w = dict(model.named_parameters())
    config = model.config
    C, H, T = config.embedding_dim, config.num_heads, tokens.shape[1]
    D = C // H
    norm = lambda x, name: F.layer_norm(x, (C,), w[f"{name}.weight"], w[f"{name}.bias"])  # noqa: E731
    x = w["embedding.token.weight"][tokens] + w["embedding.position.weight"][:T]
    for block in (f"blocks.{i}" for i in range(config.num_layers)):
        y = norm(x, f"{block}.attention_norm")
        query, key, value = w[f"{block}.attention.query_key_value.weight"].split(C)
        heads = []
        for h in range(H):
            rows = slice(h * D, (h + 1) * D)
            scores = (y @ query[rows].T) @ (y @ key[rows].T).transpose(1, 2) / math.sqrt(D)
            future = torch.ones(T, T, dtype=torch.bool).triu(1)
            weights = scores.masked_fill(future, -math.inf).softmax(-1)
            heads.append(weights @ (y @ value[rows].T))
        together = torch.cat(heads, -1) @ w[f"{block}.projection.weight"].T
        x = x + together + w[f"{block}.projection.bias"]
        y = norm(x, f"{block}.feed_forward_norm")
        y = y @ w[f"{block}.feed_forward.widen.weight"].T + w[f"{block}.feed_forward.widen.bias"]
        y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
        y = y @ w[f"{block}.feed_forward.narrow.weight"].T + w[f"{block}.feed_forward.narrow.bias"]
        x = x + y
    head = w.get("head.weight", w["embedding.token.weight"])
    return norm(x, "final_norm") @ head.T


@pytest.mark.parametrize("tied", [False, True])
def test_it_computes_what_the_formulas_say(tied):
    model = build(tie_embeddings=tied).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(80, (3, 8))
    assert torch.allclose(model(tokens), written_out(model, tokens), atol=1e-4)


def test_dropout_falls_on_the_embeddings_too():
    assert resolve("GPT1LM", "default", "x", {"dropout": 0.5}).embedding_dropout == 0.5
    model = build(dropout=0.5, embedding_dropout=0.5)
    for block in model.blocks:
        block.dropout.p = block.attention.dropout = 0.0
    tokens = torch.randint(80, (2, 8))
    assert not torch.equal(model(tokens), model(tokens))
    model.embedding.dropout.p = 0.0
    assert torch.equal(model(tokens), model(tokens))


def test_a_tied_model_learns_is_saved_and_writes(tmp_path):
    model = build(tie_embeddings=True)
    assert "head.weight" not in model.state_dict()
    save_weights(tmp_path / "w.safetensors", model.state_dict(), {})
    weights, _ = load_weights(tmp_path / "w.safetensors")
    other = build(tie_embeddings=True)
    other.load_state_dict(weights)
    texts = [
        list(generate(m.eval(), [1, 2], 30, Sampling(), 0, window))
        for m in (model, other)
        for window in ("exact", "cached")
    ]
    assert texts[0] == texts[2]
    assert texts[1] == texts[3]
    assert texts[0][:7] == texts[1][:7]  # the same window until it moves


def test_only_this_model_can_be_tied():
    config = resolve("GPT1LM", "scaled", "x", {"tie_embeddings": True})
    assert isinstance(build_model(config.model_settings(65)), GPT1LM)
    with pytest.raises(UsageError, match="TransformerLM cannot tie its embeddings"):
        resolve("TransformerLM", "default", "x", {"tie_embeddings": True})
