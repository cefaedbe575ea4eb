"""From weights that were stored to the model that they belong to."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from drakegpt.config import ModelConfig
from drakegpt.models.layers import LanguageModel
from drakegpt.models.packed_linear import PER_BYTE, Packing, load_packed_, prepare_packed_
from drakegpt.models.registry import build_model, without_weights
from drakegpt.models.size import count_total_parameters


def load_model(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    packing: Packing | None = None,
    dtype: torch.dtype = torch.float32,
) -> LanguageModel:
    """The model that `config` describes with these weights, on the CPU, ready to evaluate.

    `packing`: how they are packed, if they are; `dtype`: the floats that it
    computes with. Raises `ValueError` if the weights are of another model.
    """
    _check_numbers(config, weights, packing)
    with without_weights():
        model = build_model(replace(config, bits="full") if packing else config).to(dtype)
        if packing:
            prepare_packed_(model, packing.bits, normed=packing.trained)
    load_packed_(model.to_empty(device="cpu"), weights)
    return model.eval()


def _check_numbers(
    config: ModelConfig, weights: Mapping[str, Tensor], packing: Packing | None = None
) -> None:
    """Raise `ValueError` if there are too few weights for the model of `config`.

    Before it is built: what a file says of itself may be a model of any size.
    """
    there = sum(tensor.numel() for tensor in weights.values())
    if packing:
        there *= PER_BYTE[packing.bits]
    if there < (needed := count_total_parameters(replace(config, bits="full"))):
        raise ValueError(f"they are {there:,} numbers, and the model has {needed:,}")
