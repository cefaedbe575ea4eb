"""nanoGPT's published settings, and a model that is GPT-2's."""

import pytest
import torch

from drakegpt.bench import nanogpt
from drakegpt.bench.workloads import VOCAB_SIZE

CPU = torch.device("cpu")


def test_the_number_of_parameters_is_the_one_it_prints():
    """0.80 million for this shape, which leaves out the positions."""
    model = nanogpt.build_nanogpt(VOCAB_SIZE, CPU, 1)
    C, L = 128, 4
    counted = sum(p.numel() for p in model.parameters()) - 64 * C
    assert counted == L * (12 * C * C + 2 * C) + C + VOCAB_SIZE * C
    assert f"{counted / 1e6:.2f}" == "0.80"
    assert model.head.weight is model.token.weight
    into_residual = torch.cat([block.narrow.weight.flatten() for block in model.blocks])
    assert into_residual.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.02)


def test_the_rate_rises_and_then_falls_along_a_cosine():
    rates = [nanogpt.learning_rate(i) for i in (0, 99, 100, 1050, 2000)]
    assert rates == pytest.approx([1e-3 / 101, 100e-3 / 101, 1e-3, 5.5e-4, 1e-4])


def test_no_token_sees_those_after_it():
    model = nanogpt.build_nanogpt(VOCAB_SIZE, CPU, 1)
    one, other = torch.randint(VOCAB_SIZE, (1, 64)), torch.randint(VOCAB_SIZE, (1, 64))
    other[:, :40] = one[:, :40]
    difference = (model(one) - model(other)).abs().amax(-1)[0]
    assert difference[:40].max() < 1e-5
    assert difference[40:].min() > 1e-4


def test_logits_are_those_of_another_implementation():
    transformers = pytest.importorskip("transformers")
    model = nanogpt.build_nanogpt(VOCAB_SIZE, CPU, 1)
    shape = transformers.GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=64, n_embd=128, n_layer=4, n_head=4,
        activation_function="gelu",
    )  # fmt: skip
    gpt2 = transformers.GPT2LMHeadModel(shape).eval()
    theirs = gpt2.transformer
    with torch.no_grad():
        for name, parameter in gpt2.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        theirs.wte.weight.copy_(model.token.weight)
        theirs.wpe.weight.copy_(model.position.weight)
        for block, other in zip(model.blocks, theirs.h, strict=True):
            other.attn.c_attn.weight.copy_(block.query_key_value.weight.T)
            other.attn.c_proj.weight.copy_(block.projection.weight.T)
            other.mlp.c_fc.weight.copy_(block.widen.weight.T)
            other.mlp.c_proj.weight.copy_(block.narrow.weight.T)
        tokens = torch.randint(VOCAB_SIZE, (2, 64))
        assert torch.allclose(model(tokens), gpt2(tokens).logits, atol=1e-5)


def test_a_loss_falls(monkeypatch):
    monkeypatch.setattr(nanogpt, "SHAPE", nanogpt.SHAPE | {"context_length": 8, "num_layers": 1})
    monkeypatch.setattr(nanogpt, "ITERS", 30)
    monkeypatch.setattr(nanogpt, "WARMUP_ITERS", 5)
    tokens = torch.arange(1000) % 7
    losses = list(nanogpt.train(nanogpt.build_nanogpt(7, CPU, 1), tokens))
    assert len(losses) == 30
    assert losses[-1] < 1.0 < losses[0]
