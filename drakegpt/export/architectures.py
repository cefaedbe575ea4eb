"""A trained model in the terms of another architecture: GPT-2, or GPT-NeoX for rotary positions.

The same function with other names: biases that drakegpt lacks are zero, and the bias of the
output layer, which both lack, is folded into its weights (`fold_into_head`).

Not here: files (`transformers_folder`), tokenizers (`tokenizer_files`), other models than those
with a final norm, and weights of few bits, whose activations are rounded too (`onnx_graph`).

Shapes: C width, V tokens in the vocabulary, H heads, D = C / H.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from drakegpt.compute.rotary import BASE
from drakegpt.models.layers import LanguageModel

# The models that can be translated, with the activation between their two feed-forward layers.
ACTIVATIONS = {"TransformerLM": "relu", "GPT1LM": "gelu"}

# The final norm's bias k, for all C numbers. They are normalised, so about 1: a larger k would
# push their last bits out of float32, and a smaller one would make the correction of the head
# larger, by which the rounding of their sum is multiplied. Between 1/8 and 8 errors are those of
# float32 itself; at 1,024 they are a hundred times as large.
SHIFT = 1.0


@dataclass(frozen=True)
class Translation:
    """A model as `transformers` names it: its configuration, and its weights by name."""

    config: dict[str, Any]
    weights: dict[str, Tensor]


def translate(model: LanguageModel) -> Translation:
    """Translate a model in full precision, with a final norm, on the CPU.

    Raises `ValueError` for any other.
    """
    config = model.config
    if config.model not in ACTIVATIONS or not config.final_norm or config.bits != "full":
        raise ValueError(f"{config.model} is no model with a final norm, in full precision")
    return _to_gpt_neox(model) if config.positions == "rotary" else _to_gpt2(model)


def _to_gpt2(model: Any) -> Translation:
    """Translate to GPT-2, whose linear layers are transposed."""
    config = model.config
    weights = {
        "transformer.wte.weight": model.embedding.token.weight,
        "transformer.wpe.weight": model.embedding.position.weight,
    }
    for number, block in enumerate(model.blocks):
        query_key_value = block.attention.query_key_value.weight
        layers = {
            "ln_1": _norm(block.attention_norm),
            "attn.c_attn": (query_key_value.T, query_key_value.new_zeros(len(query_key_value))),
            "attn.c_proj": (block.projection.weight.T, block.projection.bias),
            "ln_2": _norm(block.feed_forward_norm),
            "mlp.c_fc": (block.feed_forward.widen.weight.T, block.feed_forward.widen.bias),
            "mlp.c_proj": (block.feed_forward.narrow.weight.T, block.feed_forward.narrow.bias),
        }
        weights |= _name(f"transformer.h.{number}", layers)
    norm, head = _end(model)
    weights |= _name("transformer", {"ln_f": norm})
    if head is not None:
        weights["lm_head.weight"] = head
    described = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_embd": config.embedding_dim,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "activation_function": ACTIVATIONS[config.model],
        "layer_norm_epsilon": model.final_norm.eps,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.embedding_dropout,
        "tie_word_embeddings": head is None,
    }
    return Translation(described, weights)


def _to_gpt_neox(model: Any) -> Translation:
    """Translate to GPT-NeoX, whose rotation is the same: number i of the two halves of a head.

    The configuration has the rotation in the words of transformers 5, and of 4.
    """
    config = model.config
    weights = {"gpt_neox.embed_in.weight": model.embedding.token.weight}
    for number, block in enumerate(model.blocks):
        query_key_value = block.attention.query_key_value.weight
        layers = {
            "input_layernorm": _norm(block.attention_norm),
            "attention.query_key_value": (
                interleave_heads(query_key_value, config.num_heads),
                query_key_value.new_zeros(len(query_key_value)),
            ),
            "attention.dense": (block.projection.weight, block.projection.bias),
            "post_attention_layernorm": _norm(block.feed_forward_norm),
            "mlp.dense_h_to_4h": (block.feed_forward.widen.weight, block.feed_forward.widen.bias),
            "mlp.dense_4h_to_h": (
                block.feed_forward.narrow.weight,
                block.feed_forward.narrow.bias,
            ),
        }
        weights |= _name(f"gpt_neox.layers.{number}", layers)
    norm, head = _end(model)
    weights |= _name("gpt_neox", {"final_layer_norm": norm})
    if head is not None:
        weights["embed_out.weight"] = head
    described = {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.embedding_dim,
        "intermediate_size": 4 * config.embedding_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "hidden_act": ACTIVATIONS[config.model],
        "use_parallel_residual": False,
        "rotary_pct": 1.0,
        "rotary_emb_base": BASE,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": BASE,
            "partial_rotary_factor": 1.0,
        },
        "layer_norm_eps": model.final_norm.eps,
        "attention_dropout": config.dropout,
        "hidden_dropout": config.dropout,
        "tie_word_embeddings": head is None,
    }
    return Translation(described, weights)


def interleave_heads(weight: Tensor, num_heads: int) -> Tensor:
    """Reorder rows from queries, keys, values of all heads to those of each head: (3 C, C)."""
    return weight.unflatten(0, (3, num_heads, -1)).transpose(0, 1).flatten(0, 2)


def fold_into_head(norm: nn.LayerNorm, head: nn.Linear, shift: float = SHIFT) -> Tensor:
    """Fold a norm's gain and bias, and the head's bias, into the head's weights: (V, C).

    The C numbers n that a norm scales sum to 0, so a row u in all columns adds nothing to W n, and
    u k C to W (n + k). So for the norm's gain g and bias c, and the head's W and b,

        W' = W diag(g) + u 1', u = (W c + b - k W g) / (k C)  gives  W' (n + k) = W (g n + c) + b

    exactly, after a norm of gain 1 and bias k, the `shift`. Computed in float64.
    """
    weight, gain = head.weight.double(), norm.weight.double()
    constant = weight @ norm.bias.double() + head.bias.double()
    correction = (constant - shift * (weight @ gain)) / (shift * weight.shape[1])
    return (weight * gain + correction[:, None]).to(head.weight.dtype)


def _end(model: Any) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
    """Return the final norm, and the head without a bias; `None` for a tied one."""
    head: nn.Linear | None = model.head
    if head is None or head.bias is None:
        return _norm(model.final_norm), head if head is None else head.weight
    folded = fold_into_head(model.final_norm, head)
    gain = torch.ones_like(model.final_norm.weight)
    return (gain, SHIFT * gain), folded


def _norm(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    return norm.weight, norm.bias


def _name(prefix: str, layers: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Name the weight and the bias of each layer."""
    return dict(_name_each(prefix, layers))


def _name_each(
    prefix: str, layers: Mapping[str, tuple[Tensor, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    for name, (weight, bias) in layers.items():
        yield f"{prefix}.{name}.weight", weight
        yield f"{prefix}.{name}.bias", bias
