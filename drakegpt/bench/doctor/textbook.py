"""The textbook's models in float64 on a CPU: what a device's arithmetic is compared with.

`models.reference` is written head by head, with PyTorch's plain operations and its own
derivatives, and float64 has another library's routines than float32. So it shares with
the models that are trained neither kernels, nor number format, nor recorded steps, and
what a fast kernel or a library computes wrongly differs from it.

Here are names: which matrices of the textbook one matrix of drakegpt consists of.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from drakegpt.config import LADDER, ModelConfig
from drakegpt.models import reference

# The textbook's names for parts of a block, and of the whole model.
_NAMES = {
    "table": "token_embedding_table",
    "embedding.token": "token_embedding_table",
    "embedding.position": "position_embedding_table",
    "head": "lm_head",
    "final_norm": "ln_f",
    "projection": "sa_head.proj",
    "feed_forward": "ffwd.net.0",
    "feed_forward.widen": "ffwd.net.0",
    "feed_forward.narrow": "ffwd.net.2",
    "attention_norm": "ln1",
    "feed_forward_norm": "ln2",
}
_FUSED = "attention.query_key_value"


def has_textbook(model: str) -> bool:
    """Tell whether there is textbook code of a model: not of one that a user registered."""
    return model in _BUILDERS


class Textbook:
    """A model of the textbook, float64 on the CPU, without dropout."""

    def __init__(self, config: ModelConfig) -> None:
        """`config`: that of drakegpt's model, with learned positions and full precision."""
        self._heads = config.num_heads if config.model != "SingleHeadAttentionLM" else 0
        # Initial weights are not drawn from the generator that dropout draws from.
        with torch.random.fork_rng(devices=[]):
            self._model = _BUILDERS[config.model](replace(config, dropout=0.0)).double()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of drakegpt's model, by their names there, from any device."""
        state: dict[str, Tensor] = {}
        for name, tensor in weights.items():
            names = self._list_names(name)
            parts = tensor.detach().cpu().double().chunk(len(names))
            state |= dict(zip(names, parts, strict=True))
        # The masks of attention are no weights; all else must be there.
        missing, unknown = self._model.load_state_dict(state, strict=False)
        if unknown or any(not name.endswith("tril") for name in missing):
            raise ValueError(f"the textbook has other weights: {missing}, {unknown}")

    def compute_gradients(
        self, inputs: Tensor, targets: Tensor, names: list[str]
    ) -> tuple[float, dict[str, Tensor]]:
        """Compute the loss, and its gradient by drakegpt's names: inputs, targets (B, T)."""
        self._model.zero_grad()
        loss = reference.compute_loss(self._model(inputs.cpu().long()), targets.cpu().long())
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in self._model.named_parameters()}
        return loss.item(), {
            name: torch.cat([gradients[part] for part in self._list_names(name)])  # type: ignore[misc]
            for name in names
        }

    @torch.no_grad()
    def compute_next(self, tokens: list[int]) -> Tensor:
        """Compute the logits of the token after these, (V,), from the last T of them."""
        window = tokens[-self._model.context_length :]
        logits: Tensor = self._model(torch.tensor([window]))[0, -1]
        return logits

    def _list_names(self, name: str) -> list[str]:
        """List the textbook's names for one parameter, in the order of its rows."""
        path, _, kind = name.rpartition(".")
        prefix = ""
        if path.startswith("blocks."):
            _, number, path = path.split(".", 2)
            prefix = f"blocks.{number}."
        if path != _FUSED:
            return [f"{prefix}{_NAMES[path]}.{kind}"]
        heads = [f".heads.{head}" for head in range(self._heads)] or [""]
        parts = ("query", "key", "value")
        return [f"{prefix}sa_head{head}.{part}.weight" for part in parts for head in heads]


def _build_gpt1(config: ModelConfig) -> reference.ReferenceLM:
    """Build GPT1LM: the textbook's TransformerLM with GELU, and an output layer without bias."""
    model = reference.ReferenceLM(replace(config, model="TransformerLM"))
    for module in model.modules():
        if isinstance(module, reference.FeedForward):
            module.net[1] = nn.GELU()
    model.lm_head = nn.Linear(config.embedding_dim, config.vocab_size, bias=False)
    return model


_BUILDERS = dict.fromkeys(LADDER, reference.ReferenceLM) | {"GPT1LM": _build_gpt1}
