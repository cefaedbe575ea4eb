"""A model as text that the page's engine reads: its weights in base64, and its tokenizer.

Weights keep the names that they have in a state dict. Numbers that half precision holds
exactly take two bytes, others four, and weights of few bits stay packed: so a model is
rounded first (`round_weights_`), and what is stored is exactly the model that is left.

Not here: what the engine does with them (`engine/weights.js`, `engine/models.js`).
"""

import base64
import zlib
from typing import Any, Literal

import torch
from torch import Tensor

from drakegpt.config import ModelConfig
from drakegpt.config.model_facts import MODEL_FACTS
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.data.tokenizers.bpe import BPETokenizer
from drakegpt.models.layers import LanguageModel
from drakegpt.models.packed_linear import PackedLinear, quantize_after_training_

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")

# What the engine calls weights of few bits.
PACKED_TYPES = {"8": "int8", "1.58": "ternary", "1": "binary"}


@torch.no_grad()
def round_weights_(model: LanguageModel, precision: Precision) -> LanguageModel:
    """Round the weights of a model as the page will store them, in place; return `model`.

    With "int8" the hidden layers compute as a run that was packed to 8 bits does
    (`quantize_after_training_`), and all other numbers are rounded to half precision. A
    model that is packed already stays as it is.
    """
    is_packed = any(isinstance(module, PackedLinear) for module in model.modules())
    if precision == "float32" or is_packed:
        return model
    if precision == "int8" and MODEL_FACTS[type(model).__name__].has_hidden_layers:
        quantize_after_training_(model, "8")
    for parameter in model.parameters():
        parameter.copy_(parameter.half())
    return model


def embed_model(model: LanguageModel) -> dict[str, Any]:
    """Return the settings and the weights of a model, which is on the CPU, as plain values."""
    shapes = {f"{name}.packed": module for name, module in model.named_modules()
              if isinstance(module, PackedLinear)}  # fmt: skip
    tensors, parts = [], []
    for name, tensor in model.state_dict().items():
        if layer := shapes.get(name):
            kind, shape = PACKED_TYPES[layer.bits], layer.codes.shape
        else:
            tensor = tensor.half() if is_half(tensor) else tensor
            kind, shape = str(tensor.dtype).removeprefix("torch."), tensor.shape
        data = tensor.contiguous().numpy().tobytes()
        tensors.append({"name": name, "shape": list(shape), "type": kind, "bytes": len(data)})
        parts.append(data)
    weights = b"".join(parts)
    return {
        "config": _list_settings(model.config),
        "tensors": tensors,
        "checksum": zlib.crc32(weights),
        "base64": base64.b64encode(weights).decode(),
    }


def _list_settings(config: ModelConfig) -> dict[str, Any]:
    names = ("model", "vocab_size", "context_length", "embedding_dim", "num_heads", "num_layers")
    return {name: getattr(config, name) for name in (*names, "positions", "bits")}


def is_half(tensor: Tensor) -> bool:
    """Whether half precision holds these numbers exactly."""
    return torch.equal(tensor.half().to(tensor.dtype), tensor)


def embed_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what the engine needs of a tokenizer: characters, or tokens and their merges."""
    if isinstance(tokenizer, BPETokenizer):
        return {
            "kind": "bpe",
            "bytes": [tokenizer.to_bytes([token]).hex() for token in range(tokenizer.vocab_size)],
            "merges": tokenizer.list_merges(),
            "start": int(tokenizer.encode("\n")[-1]),
            "end": tokenizer.end,
        }
    return {
        "kind": "char",
        "characters": tokenizer.decode(range(tokenizer.vocab_size)),
    }
