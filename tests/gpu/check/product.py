"""What the checks use of drakegpt: no other module here names its parts."""

from drakegpt.bench.timing import count_flops
from drakegpt.cli.app import main
from drakegpt.compute.cuda_graph import capture, warm_up_stream
from drakegpt.compute.device import choose_device, set_thread_count
from drakegpt.config import resolve
from drakegpt.data.windows import sequential_windows
from drakegpt.generation.sampling import Sampling, generate_batch
from drakegpt.models.loss import choose_batch_tokens, mean_loss
from drakegpt.models.packed_linear import pack_
from drakegpt.models.registry import build_model
from drakegpt.training.reports import Step
from drakegpt.training.step_runner import plan_execution
from drakegpt.training.trainer import Trainer

__all__ = [
    "Sampling",
    "Step",
    "Trainer",
    "build_model",
    "capture",
    "choose_batch_tokens",
    "choose_device",
    "count_flops",
    "generate_batch",
    "main",
    "mean_loss",
    "pack_",
    "plan_execution",
    "resolve",
    "sequential_windows",
    "set_thread_count",
    "warm_up_stream",
]


def get_mode(trainer):
    """Return how the trainer's steps are executed now: eager, replay or graph."""
    return trainer._runner.mode


def set_mode(trainer, mode):
    """Execute steps in this mode, whatever was planned."""
    trainer._runner.mode = mode


def is_compiled(trainer):
    """Whether torch.compile works for the trainer's model; None before it was tried."""
    return getattr(trainer._forward, "_works", None)


def take_eager_step(trainer):
    """Take a step on the windows drawn last, operation by operation."""
    return trainer._update()
