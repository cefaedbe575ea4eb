"""Other programs that `bench` measures on request: the usual loop with other models.

    plain PyTorch, compiled  the model of "plain PyTorch" compiled as a whole by
                             `torch.compile`, which needs a C++ compiler on a CPU
    transformers GPT-2       the GPT-2 of Hugging Face's transformers, where that is
                             installed, in the shape of TransformerLM

Only training is measured. What does not work on this machine is left out with a warning.
"""

import logging
import warnings
from importlib.util import find_spec

import torch
from torch import Tensor

from drakegpt.bench.workloads import (
    SEED,
    VOCAB_SIZE,
    Builder,
    Work,
    build_plain_model,
    usual_loop,
)
from drakegpt.config import TrainConfig

log = logging.getLogger("drakegpt")

COMPILED, GPT2 = "plain PyTorch, compiled", "transformers GPT-2"


def build_peers(config: TrainConfig, device: torch.device) -> dict[str, Work]:
    """Build the training of each program that works here, ready to be timed."""
    built = {}
    for name, build in _list_builders(config).items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other programs, about their own code
                work = build(config, device)
                work(2)  # compiles forward and backward
        except Exception as error:  # a compiler can fail in any way
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("%s does not work here, so it is not measured: %s", name, reason)
        else:
            built[name] = work
    return built


def _list_builders(config: TrainConfig) -> dict[str, Builder]:
    builders: dict[str, Builder] = {COMPILED: _compiled_training}
    if config.model == "TransformerLM" and find_spec("transformers") is not None:
        builders[GPT2] = _gpt2_training
    return builders


def _compiled_training(config: TrainConfig, device: torch.device) -> Work:
    model = build_plain_model(config, device)
    torch.compiler.reset()  # what was compiled for another model counts towards a limit
    return usual_loop(model, torch.compile(model), config, device)


def _gpt2_training(config: TrainConfig, device: torch.device) -> Work:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(SEED)
    shape = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=config.context_length,
        n_embd=config.embedding_dim,
        n_layer=config.num_layers,
        n_head=config.num_heads,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
        **dict.fromkeys(("bos_token_id", "eos_token_id"), 0),
    )
    model = GPT2LMHeadModel(shape).to(device)

    def forward(tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        logits: Tensor = model(tokens, use_cache=False).logits
        return logits

    return usual_loop(model, forward, config, device)
