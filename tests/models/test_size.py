"""Models are counted before they are built: from one block and two, as if all were there."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from drakegpt.config import LARGEST_SIZE, MODEL_NAMES, preset_model
from drakegpt.models.load import load_model
from drakegpt.models.packed_linear import Packing
from drakegpt.models.registry import build_model
from drakegpt.models.size import (
    count_blocks,
    count_parameters,
    count_total_parameters,
    estimate_module_bytes,
)


@pytest.mark.parametrize("bits", ["full", "1.58"])
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_any_depth_is_counted_as_it_is_built(name, depth, bits):
    if name == "BigramLM":
        bits = "full"
    config = replace(preset_model(name, "default", 30), num_layers=depth, bits=bits)
    model = build_model(config)
    counted = Counter()
    for path, parameter in model.named_parameters():
        parts = [p for p in path.split(".")[:-1] if p != "blocks" and not p.isdigit()]
        counted[".".join(parts)] += parameter.numel()
    assert count_parameters(config) == counted
    assert count_blocks(config) == (len(model.blocks) if hasattr(model, "blocks") else 0)
    assert estimate_module_bytes(config) == 1024 * sum(1 for _ in model.modules())


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_models_that_nobody_can_build_are_counted_at_once(name):
    config = preset_model(name, "default", LARGEST_SIZE)
    sizes = dict.fromkeys(("context_length", "embedding_dim", "num_layers"), LARGEST_SIZE)
    assert count_total_parameters(replace(config, **sizes, num_heads=1)) >= LARGEST_SIZE**2


@pytest.mark.parametrize("packing", [None, Packing("1.58", trained=True), Packing("8", False)])
def test_a_model_larger_than_its_weights_is_not_built(packing):
    config = replace(preset_model("TransformerLM", "default", 30), num_layers=10**12)
    with pytest.raises(ValueError, match="numbers, and the model has"):
        load_model(config, {"embedding.token.weight": torch.zeros(30, 32)}, packing)
