"""What the checks use of drakegpt: no other module here names its parts."""

from drakegpt.bench.timing import count_flops
from drakegpt.cli.app import main
from drakegpt.compute.cuda_graph import capture, warming_up
from drakegpt.config import resolve
from drakegpt.data.windows import sequential_windows
from drakegpt.generation.sampling import Sampling, generate_batch
from drakegpt.models.loss import mean_loss, tokens_at_once
from drakegpt.models.packed_linear import pack_
from drakegpt.models.registry import build_model, choose_device, choose_threads
from drakegpt.training.step_runner import plan_execution
from drakegpt.training.trainer import Step, Trainer

__all__ = [
    "Sampling",
    "Step",
    "Trainer",
    "build_model",
    "capture",
    "choose_device",
    "choose_threads",
    "count_flops",
    "generate_batch",
    "main",
    "mean_loss",
    "pack_",
    "plan_execution",
    "resolve",
    "sequential_windows",
    "tokens_at_once",
    "warming_up",
]


def way_of(trainer):
    """How the trainer's steps are carried out now: plain, tape or graph."""
    return trainer._engine.way


def set_way(trainer, way):
    """Have steps carried out in this way, whatever was planned."""
    trainer._engine.way = way


def is_compiled(trainer):
    """Whether torch.compile works for the trainer's model; None before it was tried."""
    return getattr(trainer._forward, "_works", None)


def take_plain_step(trainer):
    """A step on the windows drawn last, operation by operation."""
    return trainer._update()
