"""Build a model from stored weights."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

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
    """Return the model of `config` with these weights, on the CPU, in evaluation mode.

    `packing`: how the weights are packed, if they are; `dtype`: of all other weights.
    Raises `ValueError` if the weights belong to another model.
    """
    _check_weight_count(config, weights, packing)
    with without_weights():
        model = build_model(replace(config, bits="full") if packing else config).to(dtype)
        if packing:
            prepare_packed_(model, packing.bits, normed=packing.trained)
    _allocate_(model)
    load_packed_(model, weights)
    return model.eval()


def _allocate_(model: nn.Module) -> None:
    """Give a model on the meta device uninitialized memory on the CPU, in place; ties stay.

    As `model.to_empty(device="cpu")`, for which PyTorch would import its compiler and SymPy.
    """
    allocated: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for name, tensor in (
            *module.named_parameters(recurse=False, remove_duplicate=False),
            *module.named_buffers(recurse=False, remove_duplicate=False),
        ):
            if tensor not in allocated:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                trained = isinstance(tensor, nn.Parameter)
                allocated[tensor] = nn.Parameter(empty, tensor.requires_grad) if trained else empty
            setattr(module, name, allocated[tensor])


def _check_weight_count(
    config: ModelConfig, weights: Mapping[str, Tensor], packing: Packing | None = None
) -> None:
    """Raise `ValueError` if there are fewer weights than the model of `config` has.

    Done before building it: a file's metadata may describe a model of any size.
    """
    count = sum(tensor.numel() for tensor in weights.values())
    if packing:
        count *= PER_BYTE[packing.bits]
    if count < (needed := count_total_parameters(replace(config, bits="full"))):
        raise ValueError(f"they are {count:,} numbers, and the model has {needed:,}")
