import math
from dataclasses import replace

import pytest
import torch

from drakegpt.config import preset_model
from drakegpt.models.initialization import initialize_gpt2_
from drakegpt.models.registry import build_model


@pytest.mark.parametrize("name", ["TransformerLM", "GPT1LM"])
def test_weights_are_near_zero_and_smaller_before_each_sum(name):
    torch.manual_seed(0)
    config = replace(preset_model(name, "default", 200), embedding_dim=128, num_layers=3)
    model = build_model(config)
    initialize_gpt2_(model)
    for parameter_name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            norm = "norm" in parameter_name and parameter_name.endswith("weight")
            assert torch.all(parameter == norm), parameter_name
            continue
        added = parameter_name.endswith(("projection.weight", "narrow.weight"))
        expected = 0.02 / math.sqrt(6) if added else 0.02
        assert parameter.std().item() == pytest.approx(expected, rel=0.05), parameter_name
