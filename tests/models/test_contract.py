"""What every model must satisfy, and its agreement with the reference implementation."""

import dataclasses

import pytest
import torch
from learning import losses_on_one_batch

from drakegpt.config import LADDER, MODEL_NAMES, preset_model
from drakegpt.config.model_facts import MODEL_FACTS
from drakegpt.models import ladder, reference
from drakegpt.models.bitlinear import BitLinear, quantize_
from drakegpt.models.ladder import TransformerBlock
from drakegpt.models.layers import CausalSelfAttention, hidden_layers
from drakegpt.models.loss import next_token_loss
from drakegpt.models.registry import MODELS, build_model
from drakegpt.runs.upstream import convert_state_dict

# facts of the published ladder: parameters for a vocabulary of 80, default and scaled
PINNED = {
    "BigramLM": (6_400, 6_400),
    "SingleHeadAttentionLM": (8_528, 602_192),
    "MultiHeadAttentionLM": (8_528, 602_192),
    "BlocksLM": (17_840, 3_701_072),
    "ResidualBlocksLM": (42_896, 10_790_480),
    "TransformerLM": (43_344, 10_800_464),
    "GPT1LM": (43_264, 10_800_384),  # TransformerLM's without the bias of the head
}
every_model = pytest.mark.parametrize("name", MODEL_NAMES)
every_rung = pytest.mark.parametrize("name", LADDER)


def build(name, seed=0, **changes):
    torch.manual_seed(seed)
    config = dataclasses.replace(preset_model(name, "default", 80), **changes)
    return build_model(config)


def tokens(model, batch=4, length=None):
    config = model.config
    return torch.randint(config.vocab_size, (batch, length or config.context_length))


def test_the_models_are_the_names():
    assert list(MODELS) == MODEL_NAMES == list(MODEL_FACTS)


def test_the_rungs_are_the_models_of_ladder():
    classes = [value for value in vars(ladder).values() if isinstance(value, type)]
    rungs = [kind.__name__ for kind in classes if kind.__module__ == ladder.__name__]
    assert [name for name in rungs if name in MODELS] == LADDER


# --- What a class says of its model (see `LanguageModel`) -----------------------------------------


@every_model
def test_settings_know_of_a_model_what_its_class_says(name):
    facts = dataclasses.asdict(MODEL_FACTS[name])
    assert facts == {key: getattr(MODELS[name], key) for key in facts}


def test_each_model_has_one_idea_of_its_own():
    ideas = [model.idea for model in MODELS.values()]
    assert all(ideas)
    assert len(set(ideas)) == len(ideas)


@every_model
def test_hidden_layers_are_those_that_are_quantized(name):
    model = build(name)
    layers = dict(hidden_layers(model))
    assert bool(layers) == model.has_hidden_layers
    assert "head" not in layers
    if layers:
        replaced = quantize_(model, "1").named_modules()
        assert list(layers) == [path for path, part in replaced if isinstance(part, BitLinear)]


@every_model
def test_heads_split_the_width_where_the_class_says_so(name):
    model = build(name)
    heads = {part.num_heads for part in model.modules() if isinstance(part, CausalSelfAttention)}
    assert (heads == {model.config.num_heads}) == model.splits_heads
    assert model.splits_heads or heads <= {1}


@every_model
@torch.no_grad()
def test_residuals_carry_the_input_past_layers_that_return_zero(name):
    model = build(name).eval()
    for _, layer in hidden_layers(model):
        for parameter in layer.parameters():
            parameter.zero_()
    logits = model(tokens(model)).flatten(0, 1)
    depends_on_input = not torch.allclose(logits, logits[:1].expand_as(logits))
    assert depends_on_input == (model.has_residuals or not model.has_hidden_layers)


@every_model
def test_embeddings_are_tied_where_the_class_says_so(name):
    def outputs(tie):
        return [p for p in build(name, tie_embeddings=tie).parameters() if p.shape == (80, 32)]

    fewer = len(outputs(tie=False)) - len(outputs(tie=True))
    assert fewer == MODELS[name].can_tie_embeddings


@every_model
def test_modules_found_by_name_are_what_they_must_be(name):
    model = build(name)
    if head := getattr(model, "head", None):
        assert isinstance(head, torch.nn.Linear)
        assert head.out_features == model.config.vocab_size
    if blocks := getattr(model, "blocks", None):
        assert isinstance(blocks, torch.nn.Sequential)
        shapes = [{n: p.shape for n, p in block.named_parameters()} for block in blocks]
        assert shapes == shapes[:1] * model.config.num_layers


# --- What a model computes ------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("length", [1, 5, 8])
def test_shapes(name, length):
    model = build(name)
    assert model(tokens(model, 3, length)).shape == (3, length, 80)


@every_model
@pytest.mark.parametrize("position", [0, 3, 7])
def test_no_position_sees_the_future(name, position):
    """The gradient of one position's logits is zero for all later inputs, and only there."""
    model = build(name).eval()
    captured = []
    embedding = model.table if name == "BigramLM" else model.embedding
    embedding.register_forward_hook(lambda *a: captured.append(a[2].requires_grad_()) or a[2])
    logits = model(tokens(model, 2))
    # A plain sum would not do: a final layer norm makes some sums constant.
    weights = torch.randn(80, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((logits[:, position] @ weights).sum(), captured)
    reach = gradient.abs().sum((0, 2))
    assert torch.all(reach[position + 1 :] == 0)
    assert reach[position] > 0
    if name != "BigramLM":
        assert torch.all(reach[: position + 1] > 0)


@every_model
def test_changing_the_future_changes_nothing_before(name):
    model = build(name).eval()
    first = tokens(model)
    second = first.clone()
    second[:, 5:] = (second[:, 5:] + 1) % 80
    assert torch.equal(model(first)[:, :5], model(second)[:, :5])


@every_model
def test_loss_falls_on_one_batch(name):
    losses = losses_on_one_batch(build(name))
    assert losses[-1] < losses[0] - 0.5


@every_model
def test_saved_and_loaded_gives_the_same_logits(name, tmp_path):
    from safetensors.torch import load_file, save_file

    model, other = build(name, 1).eval(), build(name, 2).eval()
    batch = tokens(model)
    assert not torch.equal(model(batch), other(batch))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(model(batch), other(batch))


@every_model
@pytest.mark.parametrize(("size", "column"), [("default", 0), ("scaled", 1)])
def test_parameters_are_as_many_as_published_facts_say(name, size, column):
    model = build_model(preset_model(name, size, 80))
    assert sum(p.numel() for p in model.parameters()) == PINNED[name][column]
    assert not list(model.buffers()), "masks do not belong into checkpoints"


@every_rung
@pytest.mark.parametrize(
    "changes", [{}, {"context_length": 13, "embedding_dim": 24, "num_heads": 3}]
)
def test_agrees_with_the_reference(name, changes):
    """Logits and gradients of the fused model equal those of the model written head by head."""
    model = build(name, dropout=0.0, **changes)
    torch.manual_seed(3)
    plain = reference.ReferenceLM(model.config)
    state = convert_state_dict(plain.state_dict(), model.config)
    if name == "TransformerLM":
        for part in ("weight", "bias"):
            torch.nn.init.normal_(getattr(plain.ln_f, part))
            state[f"final_norm.{part}"] = getattr(plain.ln_f, part).detach().clone()
    model.load_state_dict(state)
    inputs, targets = tokens(model), tokens(model)
    assert torch.allclose(model(inputs), plain(inputs), atol=1e-5)
    next_token_loss(model(inputs), targets).backward()
    next_token_loss(plain(inputs), targets).backward()
    table = model.table if name == "BigramLM" else model.embedding.token
    expected = plain.token_embedding_table.weight.grad
    assert torch.allclose(table.weight.grad, expected, atol=1e-6)


def test_dropout_works_in_training_only():
    model = build("TransformerLM", dropout=0.5)
    batch = tokens(model)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


def transformer_block():
    """A block whose dropout is high at every site, and something to feed it."""
    torch.manual_seed(0)
    config = dataclasses.replace(preset_model("TransformerLM", "default", 80), dropout=0.5)
    return TransformerBlock(config), torch.randn(4, config.context_length, config.embedding_dim)


def silence(layer):
    """Let a linear layer return zeros, on which dropout does nothing."""
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)


def assert_drops_in_training_only(block, x):
    block.train()
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_dropout_falls_on_the_attention_weights():
    block, x = transformer_block()
    block.dropout.p = 0.0
    assert_drops_in_training_only(block, x)


def test_dropout_falls_on_what_the_projection_returns():
    block, x = transformer_block()
    block.attention.dropout = 0.0
    silence(block.feed_forward.narrow)
    assert_drops_in_training_only(block, x)


def test_dropout_falls_on_what_the_feed_forward_returns():
    block, x = transformer_block()
    block.attention.dropout = 0.0
    silence(block.projection)
    assert_drops_in_training_only(block, x)


@pytest.mark.parametrize("name", LADDER[:5])
def test_only_the_transformer_has_dropout(name):
    model = build(name, dropout=0.9).train()
    batch = tokens(model)
    assert torch.equal(model(batch), model(batch))
