"""Check from its settings whether a run fits in memory.

Counts tensors that are in memory at the same time, without PyTorch's temporary ones: a
lower bound, so that no run that fits is refused.
"""

import torch
import torch.distributed as dist

from drakegpt.compute.device import choose_device
from drakegpt.compute.memory import check_memory_fits
from drakegpt.config import TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.data.windows import ITERATIONS_PER_DRAW
from drakegpt.models.loss import choose_batch_tokens
from drakegpt.models.size import count_blocks, count_total_parameters, estimate_module_bytes

FLOAT, HALF, INTEGER = 4, 2, 8  # bytes of a float32, a bfloat16, an int64
# Vectors as long as all weights: weights, gradient, and optimizer state.
VECTORS = {"adamw": 4, "muon": 3}
# Vectors of C numbers per token that a block keeps for its gradient: its input, and the queries,
# keys and values.
KEPT_VECTORS = 4

_SMALLER_MODEL = "Use a smaller --embedding-dim, --num-layers or --context-length."
_FEWER_WINDOWS = "Use a smaller --batch-size or --grad-accumulation."
_FEWER_AT_ONCE = "Use a smaller --context-length, or a smaller --batch-size with more "
_FEWER_AT_ONCE += "--grad-accumulation."
_FEWER_SCORED = "Use fewer --eval-iters, or a smaller --batch-size."


def check_memory(config: TrainConfig, data: Dataset) -> None:
    """Raise `NotEnoughMemoryError` if a run does not fit here; it says what to make smaller.

    Raises `CorpusError` if `data` is too short for its context.
    """
    data.check_context(config.context_length)
    device, cpu = choose_device(config.device), torch.device("cpu")
    model = config.model_settings(data.tokenizer.vocab_size)
    purpose = f"to train {config.model} with these settings"
    on_host = {_SMALLER_MODEL: FLOAT * count_total_parameters(model) + estimate_module_bytes(model)}
    check_memory_fits(on_host, cpu, purpose)
    needed = estimate_training_memory(config, data.tokenizer.vocab_size, device)
    check_memory_fits(needed if device.type != "cpu" else on_host | needed, device, purpose)


def estimate_training_memory(
    config: TrainConfig, vocab_size: int, device: torch.device
) -> dict[str, int]:
    """Return the bytes needed on `device`, at least, by the advice that reduces them."""
    model = config.model_settings(vocab_size)
    vectors = VECTORS[config.optimizer] + bool(config.ema)
    weights = vectors * FLOAT * count_total_parameters(model)
    if device.type == "cpu":
        weights += estimate_module_bytes(model)
    windows = config.batch_size * config.grad_accumulation
    share = windows // (dist.get_world_size() if _is_distributed() else 1)
    batch = share * config.context_length * 2 * INTEGER  # inputs and targets
    if config.window_order == "random":
        batch += windows * ITERATIONS_PER_DRAW * INTEGER  # their starts
    # Steps and evaluations alternate: the larger one counts.
    step, scored = _estimate_step(config, vocab_size, device, share), _estimate_evaluation(config)
    largest = {_FEWER_AT_ONCE: step} if step > scored else {_FEWER_SCORED: scored}
    return {_SMALLER_MODEL: weights, _FEWER_WINDOWS: batch} | largest


def _estimate_step(config: TrainConfig, vocab_size: int, device: torch.device, windows: int) -> int:
    """Estimate the activations of the windows that a step computes at once."""
    model = config.model_settings(vocab_size)
    at_once = -(-windows // config.grad_accumulation)
    if device.type == "cpu":
        at_once = min(at_once, max(1, choose_batch_tokens(device, model) // config.context_length))
    kept = count_blocks(model) * KEPT_VECTORS * config.embedding_dim * HALF
    scores = vocab_size * (HALF + FLOAT)  # logits and log-probabilities
    return at_once * config.context_length * (kept + scores)


def _estimate_evaluation(config: TrainConfig) -> int:
    """Estimate the windows of an evaluation, drawn at once: their indices and tokens."""
    windows = config.eval_iters * config.batch_size
    return windows * (config.context_length + 1) * (INTEGER + 1)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
