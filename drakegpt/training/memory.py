"""Whether this machine has the memory to train a run, told from its settings alone.

What is counted are tensors that are in memory at the same time, without what
PyTorch takes on the way: a lower bound, so that no run is refused that fits.
"""

import torch
import torch.distributed as dist

from drakegpt.config import TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.data.windows import ITERATIONS_PER_DRAW
from drakegpt.models.loss import tokens_at_once
from drakegpt.models.memory import check_fits
from drakegpt.models.registry import choose_device
from drakegpt.models.size import blocks_of, module_bytes, total_parameters

FLOAT, HALF, INTEGER = 4, 2, 8  # bytes of a float32, a bfloat16, an int64
# Vectors as long as all weights: these, their gradient, and what the optimizer remembers.
VECTORS = {"adamw": 4, "muon": 3}
# Numbers for each of the C of a token that a block keeps for its gradient: what comes in, and
# the queries, keys and values.
KEPT = 4

_SMALLER_MODEL = "Take a smaller --embedding-dim, --num-layers or --context-length."
_FEWER_WINDOWS = "Take a smaller --batch-size or --grad-accumulation."
_FEWER_AT_ONCE = "Take a smaller --context-length, or a smaller --batch-size with more "
_FEWER_AT_ONCE += "--grad-accumulation."
_FEWER_SCORED = "Take fewer --eval-iters, or a smaller --batch-size."


def check_memory(config: TrainConfig, data: Dataset) -> None:
    """Raise `NotEnoughMemoryError` if a run cannot be trained here, and say what to make smaller.

    Raises `CorpusError` if `data` is too short for its context.
    """
    data.check_context(config.context_length)
    device, cpu = choose_device(config.device), torch.device("cpu")
    model = config.model_settings(data.tokenizer.vocab_size)
    purpose = f"to train {config.model} with these settings"
    on_host = {_SMALLER_MODEL: FLOAT * total_parameters(model) + module_bytes(model)}
    check_fits(on_host, cpu, purpose)
    needed = needed_to_train(config, data.tokenizer.vocab_size, device)
    check_fits(needed if device.type != "cpu" else on_host | needed, device, purpose)


def needed_to_train(config: TrainConfig, vocab_size: int, device: torch.device) -> dict[str, int]:
    """Bytes on `device`, at least, by the advice that makes them fewer."""
    model = config.model_settings(vocab_size)
    weights = VECTORS[config.optimizer] * FLOAT * total_parameters(model)
    if device.type == "cpu":
        weights += module_bytes(model)
    windows = config.batch_size * config.grad_accumulation
    share = windows // (dist.get_world_size() if _several() else 1)
    batch = share * config.context_length * 2 * INTEGER  # inputs and targets
    if config.windows == "random":
        batch += windows * ITERATIONS_PER_DRAW * INTEGER  # where they start
    # What follows comes one after the other.
    step, scored = _step(config, vocab_size, device, share), _scored(config)
    largest = {_FEWER_AT_ONCE: step} if step > scored else {_FEWER_SCORED: scored}
    return {_SMALLER_MODEL: weights, _FEWER_WINDOWS: batch} | largest


def _step(config: TrainConfig, vocab_size: int, device: torch.device, windows: int) -> int:
    """Activations of the windows that go through the model together."""
    model = config.model_settings(vocab_size)
    at_once = -(-windows // config.grad_accumulation)
    if device.type == "cpu":
        at_once = min(at_once, max(1, tokens_at_once(device, model) // config.context_length))
    kept = blocks_of(model) * KEPT * config.embedding_dim * HALF
    scores = vocab_size * (HALF + FLOAT)  # and their logarithms of probabilities
    return at_once * config.context_length * (kept + scores)


def _scored(config: TrainConfig) -> int:
    """The windows that an evaluation draws, at once: their places in the text, and their tokens."""
    windows = config.eval_iters * config.batch_size
    return windows * (config.context_length + 1) * (INTEGER + 1)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()
