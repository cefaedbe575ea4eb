"""How the steps of a run are carried out: the same mathematics, the quickest way it can repeat.

    plain  as it is written, operation by operation
    tape   a small model on a CPU: recorded once, then played (`models.tape`)
    graph  a GPU: captured once as a CUDA graph, then launched as a whole

A tape gives the numbers of the plain way bit for bit. Besides, `torch.compile`
may fuse a model's operations, and a GPU may compute in bfloat16. `choose`
decides, and says why.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from drakegpt.config import TrainConfig
from drakegpt.errors import UsageError
from drakegpt.models.kernels import kept_whole
from drakegpt.models.tape import TAPED_UP_TO, Repeating

log = logging.getLogger("drakegpt")

Way = Literal["plain", "tape", "graph"]

# Steps that run as written before one is captured: the first makes the optimizer's state, and a
# GPU's libraries need some to settle.
FIRST_STEPS = 3
# Compiling takes the time of some thousand steps on a GPU; a shorter run does not win it back.
COMPILED_FROM = 3000


@dataclass(frozen=True)
class Plan:
    """How to carry out the steps of a run, and why so, in a sentence for the user."""

    way: Way
    compiled: bool
    dtype: torch.dtype
    why: str


def choose(config: TrainConfig, device: torch.device, processes: int = 1) -> Plan:
    """The plan for a run on `device`; what the settings leave open is decided here."""
    on_gpu = device.type == "cuda"
    if processes > 1 and device.type == "mps":
        raise UsageError(
            "Several processes cannot share an Apple GPU.", "Take --device cpu, or one process."
        )
    if config.dtype == "auto":
        half = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        half = config.dtype == "bfloat16"
    compiled = config.compile
    if compiled is None:
        compiled = on_gpu and config.iters >= COMPILED_FROM and config.model != "BigramLM"
    windows = config.batch_size * config.grad_accumulation
    small = windows * config.context_length * config.embedding_dim <= TAPED_UP_TO and kept_whole(
        config.batch_size, config.context_length, config.num_heads
    )
    way: Way = "plain"
    if on_gpu and processes == 1:
        way = "graph"
    elif device.type == "cpu" and small and processes == 1 and not compiled:
        way = "tape"
    reasons = [
        "bfloat16" if half else "float32",
        {
            "plain": "steps run as written",
            "tape": "steps played from a tape, as the model is small",
            "graph": "steps launched as one CUDA graph",
        }[way],
    ]
    if compiled:
        reasons.append("compiled, which takes a while at the start")
    dtype = torch.bfloat16 if half else torch.float32
    return Plan(way, compiled, dtype, f"On {device}: {', '.join(reasons)}")


class Engine:
    """Carries out `step` again and again, recording it where that is the way."""

    def __init__(self, step: Callable[[], Tensor], way: Way, device: torch.device) -> None:
        """`step` works on tensors that stay in their place, and returns its loss."""
        self._step: Callable[[], Tensor] = lambda: step().detach()
        self._device, self.way = device, way
        self._taped = Repeating(self._step)
        self._first_steps = FIRST_STEPS
        self._graph: _Graph | None = None

    def __call__(self) -> Tensor:
        """One step; returns its loss, a scalar of its own on the device."""
        if self.way == "tape":
            return self._taped().clone()
        if self.way == "graph":
            return self._launched()
        return self._step()

    def _launched(self) -> Tensor:
        """A step on a GPU: the first few as written, the others by a CUDA graph."""
        if self._graph is not None:
            return self._graph().clone()
        if self._first_steps:
            self._first_steps -= 1
            with _beside(self._device):
                return self._step()
        return self._capture()

    def _capture(self) -> Tensor:
        """Capture a CUDA graph, which carries nothing out yet, and launch it."""
        try:
            self._graph = _Graph(self._step)
        except RuntimeError as error:
            log.warning("A step cannot be captured as a CUDA graph, so it runs plainly: %s", error)
            self.way = "plain"
            return self._step()
        return self._graph().clone()


class Compiled:
    """A model fused by `torch.compile`; where that is not possible, the model as it is."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._call: Callable[[Tensor], Tensor] | None = None

    def __call__(self, tokens: Tensor) -> Tensor:
        """The model's logits. The first call compiles, and finds out whether that works."""
        try:
            if self._call is None:
                self._call = torch.compile(self._model)
            return self._call(tokens)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self._call is self._model:
                raise
            reason = str(error).strip().splitlines()[0]
            log.warning("torch.compile does not work here, so training goes on without: %s", reason)
            self._call = self._model
            return self._model(tokens)


class _Graph:
    """A captured CUDA graph of a step."""

    def __init__(self, step: Callable[[], Tensor]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = step()

    def __call__(self) -> Tensor:
        self._graph.replay()
        return self._result


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """On a GPU, a stream of its own, where PyTorch wants the steps before a capture to run."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)
