"""Flat weights, and the optimizers that work on them."""

import copy
import math

import pytest
import torch

from drakegpt.config import resolve
from drakegpt.models.loss import next_token_loss
from drakegpt.models.registry import build_model
from drakegpt.training.optimizers import Muon, Optimizer


def model_and_config(**settings):
    config = resolve("TransformerLM", "default", "x", {"dropout": 0.0, **settings})
    torch.manual_seed(0)
    return build_model(config.model_settings(20)), config


def loss_of(model, seed=1):
    chance = torch.Generator().manual_seed(seed)
    tokens = torch.randint(20, (4, 9), generator=chance)
    return next_token_loss(model(tokens[:, :-1]), tokens[:, 1:])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_flat_weights_are_the_models_and_hold_its_gradient(optimizer):
    model, config = model_and_config(optimizer=optimizer)
    twin = copy.deepcopy(model)
    weights = Optimizer(config, model).weights
    assert weights.values.numel() == sum(p.numel() for p in twin.parameters())
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    loss_of(twin).backward()
    expected = {id(p): q.grad for p, q in zip(model.parameters(), twin.parameters(), strict=True)}
    in_order = torch.cat([expected[id(p)].flatten() for p in weights.parameters])
    weights.set_gradient(loss_of(model))
    assert torch.allclose(weights.gradient, in_order, atol=1e-7)
    weights.add_gradient(loss_of(model))
    assert torch.allclose(weights.gradient, 2 * in_order, atol=1e-7)
    weights.values.zero_()
    assert all((p == 0).all() for p in model.parameters())


def test_muon_is_pytorchs_own_but_for_its_precision():
    """Three steps beside torch.optim.Muon, which iterates in bfloat16."""
    model, config = model_and_config(optimizer="muon", weight_decay=0.1, max_lr=1.0, muon_lr=0.02)
    twin = copy.deepcopy(model)
    optimizer = Optimizer(config, model)
    optimizer.set_learning_rate(1.0)
    optimizer._rate.zero_()  # leaves AdamW's part as it is
    names = [name for name, p in twin.named_parameters() if "blocks" in name and p.ndim == 2]
    matrices = [p for name, p in twin.named_parameters() if name in names]
    theirs = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95)
    before = {name: p.clone() for name, p in model.named_parameters()}
    for seed in range(3):
        optimizer.weights.set_gradient(loss_of(model, seed))
        optimizer.step()
        twin.zero_grad()
        loss_of(twin, seed).backward()
        theirs.step()
    ours = dict(model.named_parameters())
    assert names
    for name, p in twin.named_parameters():
        if name in names:
            moved, expected = ours[name] - before[name], p - before[name]
            assert (moved - expected).norm() < 0.1 * expected.norm(), name
            assert (moved * expected).sum() > 0.99 * moved.norm() * expected.norm(), name
        else:
            assert torch.equal(ours[name], before[name]), name


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 1e-3), (torch.bfloat16, 0.2)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("shape", [(128, 512), (384, 128), (64, 64)])
@pytest.mark.parametrize("condition", [1e1, 1e4])
def test_orthogonal_is_what_the_published_iteration_computes_in_float64(
    shape, condition, dtype, error
):
    """Also for a matrix that is nearly singular, as momenta are."""
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape).double(), full_matrices=False)
    scales = torch.logspace(0, -math.log10(condition), min(shape), dtype=torch.float64)
    matrix = left @ scales.diag() @ right
    expected = orthogonal_alone(matrix)
    (result,) = Muon.orthogonalize(matrix.float()[None], dtype)
    assert result.dtype == torch.float32
    assert (result - expected).norm() < error * expected.norm()


@pytest.mark.parametrize("shape", [(4, 16), (24, 8), (300, 200), (96, 384)])
def test_orthogonal_brings_singular_values_near_one_and_turns_nothing(shape):
    torch.manual_seed(0)
    matrices = torch.randn(2, *shape) * torch.tensor([100.0, 0.01]).view(2, 1, 1)
    for matrix, result in zip(matrices, Muon.orthogonalize(matrices), strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        turned = left.T @ result @ right.T  # diagonal where directions are kept
        assert (turned - turned.diag().diag()).abs().max() < 1e-3
        assert turned.diag().min() > 0.3
        assert turned.diag().max() < 1.3


def test_decays_of_muon_and_adamw_are_apart_and_end_together():
    model, config = model_and_config(
        optimizer="muon", weight_decay=0.3, muon_weight_decay=0.5, weight_decay_on="matrices"
    )
    before = copy.deepcopy(model)
    optimizer = Optimizer(config, model)
    optimizer.set_learning_rate(0.01)
    optimizer._muon_rate.fill_(0.01)
    optimizer.step()  # without a gradient only decay moves anything
    optimizer.decay_factor = 0.0
    optimizer.step()
    for (name, now), old in zip(model.named_parameters(), before.parameters(), strict=True):
        hidden = "blocks" in name and now.ndim == 2
        decay = 0.5 if hidden else 0.3 if now.ndim == 2 else 0.0
        torch.testing.assert_close(now, old * (1 - 0.01 * decay), msg=name)


def test_beta2_is_the_one_that_is_set():
    models = [model_and_config(adam_beta2=0.99) for _ in range(2)]
    (model, config), (twin, _) = models
    optimizer = Optimizer(config, model)
    theirs = torch.optim.AdamW(twin.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.01)
    optimizer.set_learning_rate(0.01)
    for seed in range(3):
        optimizer.weights.set_gradient(loss_of(model, seed))
        optimizer.step()
        theirs.zero_grad()
        loss_of(twin, seed).backward()
        theirs.step()
    for ours, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


def test_a_zero_gradient_is_no_trouble_for_muon():
    assert torch.equal(Muon.orthogonalize(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))


def orthogonal_alone(matrix):
    """Newton and Schulz' iteration as published, for one matrix."""
    x = matrix.t() if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.t()
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.t() if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_stacks_take_the_steps_that_each_matrix_would_take_alone(weight_decay, split):
    model, config = model_and_config(
        optimizer="muon", muon_weight_decay=weight_decay, max_lr=0.02, muon_split_qkv=split
    )
    twin = copy.deepcopy(model)
    optimizer = Optimizer(config, model)
    optimizer.set_learning_rate(0.02)
    names = [name for name, p in twin.named_parameters() if "blocks" in name and p.ndim == 2]
    momenta = [torch.zeros_like(twin.get_parameter(name)) for name in names]
    for seed in range(3):
        optimizer.weights.set_gradient(loss_of(model, seed))
        gradients = torch.autograd.grad(
            loss_of(model, seed), [model.get_parameter(name) for name in names]
        )
        optimizer.step()
        for name, momentum, gradient in zip(names, momenta, gradients, strict=True):
            momentum.lerp_(gradient, 1 - config.muon_momentum)
            parts = 3 if split and name.endswith("query_key_value.weight") else 1
            rows, columns = momentum.shape[0] / parts, momentum.shape[1]
            directions = gradient.lerp(momentum, config.muon_momentum).chunk(parts)
            update = torch.cat([orthogonal_alone(direction) for direction in directions])
            update = update * max(1, rows / columns) ** 0.5
            with torch.no_grad():
                weight = twin.get_parameter(name)
                weight -= config.muon_lr * (update + weight_decay * weight)
    for name, momentum, saved in zip(names, momenta, optimizer.state_dict()["muon"], strict=True):
        weight, expected = model.get_parameter(name), twin.get_parameter(name)
        # Of the update's rounding, which differs between processors.
        assert (weight - expected).norm() < 3e-5 * expected.norm(), name
        assert torch.allclose(momentum, saved, rtol=1e-5, atol=1e-8), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 96, 32), (3, 32, 128)])
def test_stacks_on_a_gpu_are_those_of_a_cpu_but_for_their_precision(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    expected = Muon.orthogonalize(matrices)
    result = Muon.orthogonalize(matrices.cuda()).cpu()
    assert result.dtype == torch.float32
    assert (result - expected).norm() < 0.1 * expected.norm()
    assert (result * expected).sum() > 0.99 * result.norm() * expected.norm()


def test_muons_state_is_in_the_order_of_the_model_not_of_the_stacks():
    """As in checkpoints written when each matrix had a momentum of its own."""
    model, config = model_and_config(optimizer="muon")
    matrices = [p for name, p in model.named_parameters() if "blocks" in name and p.ndim == 2]
    optimizer = Optimizer(config, model)
    state = optimizer.state_dict()
    assert [momentum.shape for momentum in state["muon"]] == [p.shape for p in matrices]
    places = [p.data_ptr() for p in matrices]
    assert places != sorted(places)  # equal shapes lie side by side
    saved = [torch.full_like(p, number) for number, p in enumerate(matrices)]
    optimizer.load_state_dict({**state, "muon": saved})
    optimizer.weights.gradient.zero_()
    kept = config.muon_momentum
    optimizer.set_learning_rate(0.0)
    optimizer.step()
    for momentum, before in zip(optimizer.state_dict()["muon"], saved, strict=True):
        assert torch.allclose(momentum, kept * before)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_goes_on_exactly(optimizer):
    model, config = model_and_config(optimizer=optimizer)
    first = Optimizer(config, model)

    def steps(optimizer, model, count):
        optimizer.set_learning_rate(1e-3)
        for _ in range(count):
            optimizer.weights.set_gradient(loss_of(model))
            optimizer.step()

    steps(first, model, 3)
    twin = copy.deepcopy(model)
    state = copy.deepcopy(first.state_dict())
    steps(first, model, 3)
    second = Optimizer(config, twin)
    second.load_state_dict(state)
    steps(second, twin, 3)
    assert torch.equal(first.weights.values, second.weights.values)


def test_the_state_of_another_recipe_is_refused():
    model, config = model_and_config(optimizer="muon")
    state = Optimizer(config, model).state_dict()
    other, plain = model_and_config()
    with pytest.raises(ValueError, match="another"):
        Optimizer(plain, other).load_state_dict(state)


@pytest.mark.parametrize("model", ["BigramLM", "SingleHeadAttentionLM"])
def test_muon_takes_what_matrices_there_are(model):
    config = resolve(model, "default", "x", {"optimizer": "muon"})
    built = build_model(config.model_settings(20))
    optimizer = Optimizer(config, built)
    optimizer.set_learning_rate(1e-2)
    before = optimizer.weights.values.clone()
    optimizer.weights.set_gradient(loss_of(built))
    optimizer.step()
    assert not torch.equal(before, optimizer.weights.values)
    assert optimizer.weights.values.isfinite().all()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_norms_and_biases_can_be_left_alone(optimizer):
    """With a gradient of zero only the pull remains: who shrinks is pulled."""
    model, config = model_and_config(
        optimizer=optimizer, weight_decay_on="matrices", weight_decay=0.1
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    training = Optimizer(config, model)
    training.set_learning_rate(0.5)
    training.step()
    shrunk = {name for name, p in model.named_parameters() if (p < 1).all()}
    assert shrunk == {name for name, p in model.named_parameters() if p.ndim > 1}
    assert all((p == 1).all() for name, p in model.named_parameters() if name not in shrunk)
    training.decay_factor = 0.0
    before = training.weights.values.clone()
    training.step()
    assert torch.equal(training.weights.values, before)


def test_decay_in_two_parts_is_pytorchs_with_two_groups():
    model, config = model_and_config(weight_decay_on="matrices", weight_decay=0.1)
    twin = copy.deepcopy(model)
    ours = Optimizer(config, model)
    groups = [
        {"params": [p for p in twin.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in twin.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    for seed in range(3):
        ours.set_learning_rate(1e-2)
        ours.weights.set_gradient(loss_of(model, seed))
        ours.step()
        twin.zero_grad()
        loss_of(twin, seed).backward()
        theirs.step()
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-5)
    # and what it remembers is taken up
    again = Optimizer(config, copy.deepcopy(model))
    again.load_state_dict(ours.state_dict())
    for mine, other in zip(again._adamw, ours._adamw, strict=True):
        assert mine.state["step"] == 3
        assert all(torch.equal(mine.state[key], other.state[key]) for key in other.state)
