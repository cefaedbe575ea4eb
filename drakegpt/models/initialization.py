"""GPT-2's random initial weights, for any model."""

import math

from torch import nn

from drakegpt.models.layers import LanguageModel

# Standard deviation of the weights (Radford et al. 2018, section 4.1).
STD = 0.02
# The two layers of a block whose results are added to its input.
ADDED = (".projection", ".narrow")


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
