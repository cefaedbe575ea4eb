"""A model with its random initial weights: its own, or GPT-2's for any model."""

import math

from torch import nn

from drakegpt.config import ModelConfig
from drakegpt.config.schema import InitialWeights
from drakegpt.models.layers import LanguageModel
from drakegpt.models.registry import build_model

# Standard deviation of the weights (Radford et al. 2018, section 4.1).
STD = 0.02
# The two layers of a block whose results are added to its input.
ADDED = (".projection", ".narrow")


def build_initial_model(config: ModelConfig, init: InitialWeights) -> LanguageModel:
    """Build the model that `config` describes, with the initial weights that `init` names."""
    model = build_model(config)
    if init == "gpt2":
        initialize_gpt2_(model)
    return model


def initialize_gpt2_(model: LanguageModel) -> None:
    """Draw new weights near zero, in place; norms keep their ones and zeros, biases are 0.

    The layers whose results are added up over all blocks get a standard deviation that is
    smaller by sqrt(2 num_layers), so that the sum does not grow with depth (Radford et al.
    2019, section 2.3).
    """
    smaller = STD / math.sqrt(2 * model.config.num_layers)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=smaller if name.endswith(ADDED) else STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
