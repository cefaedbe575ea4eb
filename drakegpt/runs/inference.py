"""Loads the model of a run or of a weights file for inference, on any device."""

from collections.abc import Callable, Mapping

import torch

from drakegpt.compute.device import set_thread_count
from drakegpt.config import ModelConfig
from drakegpt.errors import RunError, is_out_of_memory
from drakegpt.models.layers import LanguageModel
from drakegpt.models.load import load_model
from drakegpt.models.packed_linear import Packing, pack_


def load_for_inference(
    config: ModelConfig,
    weights: Mapping[str, torch.Tensor],
    packing: Packing | None,
    device: torch.device,
    explain: Callable[[Exception], RunError],
) -> LanguageModel:
    """Load a model onto `device`, in evaluation mode; raises `explain(error)` for other weights."""
    set_thread_count(config)
    try:
        model = load_model(config, weights, packing)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise explain(error) from error
    if config.bits != "full" and not packing:
        pack_(model)  # computes the same without quantizing its weights in each forward pass
    return model.to(device)
