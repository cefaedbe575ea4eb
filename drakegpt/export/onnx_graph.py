"""A model as an ONNX graph, written node by node as `models.reference` computes it.

PyTorch's exporter would trace the fast kernels, or need a package of its own, and fix shapes;
here each line is one operator of ONNX, with dynamic batch and length. Weights of few bits are
stored as one byte each. Their activations are rounded as drakegpt rounds them, and the products
of integers are summed in float32, which is exact up to 1024 of 8 bits, and more of fewer bits.

`onnx` is an optional dependency: it is imported in functions.

Shapes: B texts, T tokens, C width, V tokens in the vocabulary, H heads, D = C / H.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from drakegpt.compute.rotary import make_tables
from drakegpt.models import ladder
from drakegpt.models.bitlinear import MAX_CODE, MIN_SCALE
from drakegpt.models.gpt1 import GPT1LM, GELUFeedForward
from drakegpt.models.layers import (
    CausalSelfAttention,
    FeedForward,
    LanguageModel,
    TokenAndPositionEmbedding,
)
from drakegpt.models.packed_linear import PackedLinear

if TYPE_CHECKING:
    from onnx import GraphProto

# The oldest set of operators with layer norm, and its file format: what reads newer ones reads it.
OPSET, IR_VERSION = 17, 8
TOKENS, LOGITS = "tokens", "logits"


def make_graph(model: LanguageModel) -> "GraphProto":
    """Make the graph of a model that comes with drakegpt, on the CPU, not trained with gradients.

    Input `tokens`: int64 (batch, length), of 1 to `context_length` tokens. Output `logits`:
    float32 (batch, V), for the token after the last. Raises `ValueError` for another model.
    """
    from onnx import TensorProto, helper

    graph = _Graph(model.config.context_length)
    graph.end_with(_write_model(graph, model, TOKENS))
    return helper.make_graph(
        graph.nodes,
        model.config.model,
        [helper.make_tensor_value_info(TOKENS, TensorProto.INT64, ["batch", "length"])],
        [
            helper.make_tensor_value_info(
                LOGITS, TensorProto.FLOAT, ["batch", model.config.vocab_size]
            )
        ],
        initializer=graph.weights,
    )


# --- The models ---------------------------------------------------------------------------------


def _write_model(graph: "_Graph", model: Any, tokens: str) -> str:
    """Write a model: tokens (B, T) -> logits (B, V) of the last position."""
    if isinstance(model, ladder.BigramLM):
        return graph.node("Gather", graph.weight("table", model.table.weight), graph.last(tokens))
    x = _write_embedding(graph, model.embedding, tokens)
    if isinstance(model, ladder.SingleHeadAttentionLM | ladder.MultiHeadAttentionLM):
        x = _write_attention(graph, "attention", model.attention, x)
    elif isinstance(model, _MODELS_OF_BLOCKS):
        for number, block in enumerate(model.blocks):
            x = _write_block(graph, f"blocks.{number}", block, x)
    else:
        raise ValueError(f"{model.config.model} is not a model that comes with drakegpt")
    x = graph.last(x)
    if isinstance(model, ladder.TransformerLM | GPT1LM):
        x = _write_norm(graph, "final_norm", model.final_norm, x)
    if model.head is None:  # tied: the token table, which is in the file once
        table = graph.node("Transpose", "embedding.token", perm=[1, 0])
        return graph.node("MatMul", x, table)
    return _write_linear(graph, "head", model.head, x)


_MODELS_OF_BLOCKS = (ladder.BlocksLM, ladder.ResidualBlocksLM, ladder.TransformerLM, GPT1LM)


def _write_block(graph: "_Graph", name: str, block: Any, x: str) -> str:
    """Write one block of any of the models: (B, T, C) -> (B, T, C)."""
    normed = hasattr(block, "attention_norm")
    residual = hasattr(block, "projection")
    read = _write_norm(graph, f"{name}.attention_norm", block.attention_norm, x) if normed else x
    attended = _write_attention(graph, f"{name}.attention", block.attention, read)
    if not residual:
        return graph.node(
            "Relu", _write_linear(graph, f"{name}.feed_forward", block.feed_forward, attended)
        )
    x = graph.node("Add", x, _write_linear(graph, f"{name}.projection", block.projection, attended))
    read = x
    if normed:
        read = _write_norm(graph, f"{name}.feed_forward_norm", block.feed_forward_norm, x)
    thought = _write_feed_forward(graph, f"{name}.feed_forward", block.feed_forward, read)
    return graph.node("Add", x, thought)


# --- The layers ---------------------------------------------------------------------------------


def _write_embedding(graph: "_Graph", embedding: TokenAndPositionEmbedding, tokens: str) -> str:
    """Write the embedding: (B, T) -> (B, T, C)."""
    x = graph.node("Gather", graph.weight("embedding.token", embedding.token.weight), tokens)
    if embedding.position is None:
        return x
    positions = graph.weight("embedding.position", embedding.position.weight)
    return graph.node("Add", x, graph.first_rows(positions))


def _write_attention(graph: "_Graph", name: str, layer: CausalSelfAttention, x: str) -> str:
    """Write causal attention: (B, T, C) -> (B, T, C)."""
    all_three = _write_linear(graph, f"{name}.query_key_value", layer.query_key_value, x)
    C = _count_outputs(layer.query_key_value) // 3
    D = C // layer.num_heads
    split = graph.shape(0, 0, layer.num_heads, D)
    query, key, value = (
        graph.node("Transpose", graph.node("Reshape", part, split), perm=[0, 2, 1, 3])
        for part in graph.nodes_of("Split", 3, all_three, graph.shape(C, C, C), axis=2)
    )  # (B, H, T, D)
    if layer.rotary:
        query, key = (_write_rotation(graph, part, D) for part in (query, key))
    scaled = graph.node("Mul", query, graph.number(1 / math.sqrt(D)))
    scores = graph.node("MatMul", scaled, graph.node("Transpose", key, perm=[0, 1, 3, 2]))
    masked = graph.node("Where", graph.future(), graph.number(-math.inf), scores)
    gathered = graph.node("MatMul", graph.node("Softmax", masked, axis=-1), value)
    merged = graph.node("Transpose", gathered, perm=[0, 2, 1, 3])
    return graph.node("Reshape", merged, graph.shape(0, 0, C))


def _write_rotation(graph: "_Graph", x: str, D: int) -> str:
    """Write the rotation of queries or keys by their positions: (B, H, T, D)."""
    cosines, sines = graph.rotations(D)
    first, second = graph.nodes_of("Split", 2, x, graph.shape(D // 2, D // 2), axis=3)
    turned = graph.node("Mul", graph.node("Concat", second, first, axis=3), sines)
    return graph.node("Add", graph.node("Mul", x, cosines), turned)


def _write_feed_forward(graph: "_Graph", name: str, layer: Any, x: str) -> str:
    """Write the two layers of a feed-forward network: (..., C) -> (..., C)."""
    x = _write_linear(graph, f"{name}.widen", layer.widen, x)
    if isinstance(layer, GELUFeedForward):
        # x (1 + erf(x / √2)) / 2: an operator of its own in newer sets only
        error = graph.node("Erf", graph.node("Mul", x, graph.number(1 / math.sqrt(2))))
        half = graph.node("Mul", x, graph.number(0.5))
        x = graph.node("Mul", half, graph.node("Add", error, graph.number(1.0)))
    else:
        assert isinstance(layer, FeedForward)
        x = graph.node("Relu", x)
    return _write_linear(graph, f"{name}.narrow", layer.narrow, x)


def _write_norm(graph: "_Graph", name: str, norm: Any, x: str) -> str:
    """Write a layer norm, if it is one."""
    if not isinstance(norm, nn.LayerNorm):
        return x
    weight = graph.weight(f"{name}.weight", norm.weight)
    bias = graph.weight(f"{name}.bias", norm.bias)
    return graph.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps)


def _write_linear(graph: "_Graph", name: str, layer: Any, x: str) -> str:
    """Write a linear layer: (..., K) -> (..., N)."""
    if isinstance(layer, PackedLinear):
        x = _write_packed(graph, name, layer, x)
    else:
        x = graph.node("MatMul", x, graph.weight(f"{name}.weight", layer.weight.T))
    if layer.bias is None:
        return x
    return graph.node("Add", x, graph.weight(f"{name}.bias", layer.bias))


def _write_packed(graph: "_Graph", name: str, layer: PackedLinear, x: str) -> str:
    """Write the product of rounded activations and codes, scaled back: `bitlinear.rescale`."""
    x = _write_norm(graph, f"{name}.norm", layer.norm, x)
    largest = graph.node("ReduceMax", graph.node("Abs", x), axes=[-1], keepdims=1)
    bounded = graph.node("Max", largest, graph.number(MIN_SCALE))
    token = graph.node("Div", graph.number(float(MAX_CODE)), bounded)  # (..., 1)
    rounded = graph.node("Round", graph.node("Mul", x, token))
    codes = graph.node("Cast", graph.weight(f"{name}.codes", layer.codes.T), to=1)  # to float32
    rows = layer.scales.repeat_interleave(len(layer.codes) // len(layer.scales))
    factors = graph.node("Div", graph.weight(f"{name}.scales", rows), token)
    return graph.node("Mul", graph.node("MatMul", rounded, codes), factors)


def _count_outputs(layer: Any) -> int:
    return len(layer.codes if isinstance(layer, PackedLinear) else layer.weight)


# --- The graph ----------------------------------------------------------------------------------


class _Graph:
    """Nodes and weights as they are written; values are called by their names."""

    def __init__(self, context_length: int) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._context_length = context_length
        self._known: dict[Any, str] = {}  # what is needed in several places, and written once

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Write a node with one output; returns the output's name."""
        return self.nodes_of(operator, 1, *inputs, **attributes)[0]

    def nodes_of(self, operator: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Write a node with several outputs; returns their names."""
        from onnx import helper

        name = f"{operator}_{len(self.nodes)}"
        outputs = [name] if count == 1 else [f"{name}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs

    def weight(self, name: str, values: Tensor) -> str:
        """Store a tensor, as it is."""
        from onnx import numpy_helper

        array = values.detach().contiguous().numpy()
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def number(self, value: float) -> str:
        """Store a number in float32."""
        return self._once(("number", value), torch.tensor(value))

    def shape(self, *sizes: int) -> str:
        """Store a few integers."""
        return self._once(("shape", sizes), torch.tensor(sizes))

    def last(self, x: str) -> str:
        """Write the last position: (B, T, ...) -> (B, ...)."""
        return self.node("Gather", x, self._once(("last",), torch.tensor(-1)), axis=1)

    def first_rows(self, table: str) -> str:
        """Write the first T rows of a table."""
        key = ("first rows", table)
        if key not in self._known:
            length = self.node("Unsqueeze", self._length(), self.shape(0))
            self._known[key] = self.node("Slice", table, self.shape(0), length, self.shape(0))
        return self._known[key]

    def future(self) -> str:
        """Write what a position must not see: bool (T, T), those after it."""
        if "future" not in self._known:
            zero, one = (self._once(("integer", n), torch.tensor(n)) for n in (0, 1))
            places = self.node("Range", zero, self._length(), one)
            rows = self.node("Unsqueeze", places, self.shape(1))
            self._known["future"] = self.node("Less", rows, places)
        return self._known["future"]

    def rotations(self, D: int) -> tuple[str, str]:
        """Write the cosines and the signed sines of all positions: (T, D) each."""
        if "cosines" not in self._known:
            cosines, sines = make_tables(self._context_length, D, torch.float32, _CPU)
            both = cosines[:, 0, 0].expand(-1, 2, -1).flatten(1)
            self._known["cosines"] = self.first_rows(self.weight("rotation.cosines", both))
            turned = self.weight("rotation.sines", sines[:, 0, 0].flatten(1))
            self._known["sines"] = self.first_rows(turned)
        return self._known["cosines"], self._known["sines"]

    def end_with(self, x: str) -> None:
        """Call a value the output."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [x], [LOGITS], name=LOGITS))

    def _length(self) -> str:
        """Write T: int64, a single number."""
        if "length" not in self._known:
            one = self._once(("integer", 1), torch.tensor(1))
            self._known["length"] = self.node("Gather", self.node("Shape", TOKENS), one)
        return self._known["length"]

    def _once(self, key: Any, values: Tensor) -> str:
        """Store a constant; returns its name, the same for the same key."""
        if key not in self._known:
            self._known[key] = self.weight(f"constant_{len(self.weights)}", values)
        return self._known[key]


_CPU = torch.device("cpu")
