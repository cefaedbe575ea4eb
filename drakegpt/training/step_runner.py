"""How the steps of a run are carried out: the same mathematics, the quickest way it can repeat.

    plain  as it is written, operation by operation
    tape   a small model on a CPU: recorded once, then played (`models.tape`)
    graph  a GPU: captured once as a CUDA graph, then launched as a whole

A tape gives the numbers of the plain way bit for bit. Besides, `torch.compile`
may fuse the operations of a model's blocks, and a GPU may compute in bfloat16.
`plan_execution` decides, and says why.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from drakegpt.compute.cuda_graph import CaptureRefusedError, capture, warming_up
from drakegpt.compute.kernels import kept_whole
from drakegpt.compute.replay import REPLAYED_UP_TO, KernelTrace
from drakegpt.config import TrainConfig
from drakegpt.config.presets import WIDE
from drakegpt.errors import UsageError

log = logging.getLogger("drakegpt")

ExecutionMode = Literal["plain", "tape", "graph"]

# Steps that run as written before one is recorded: the first makes the optimizer's state, and a
# GPU's libraries need some to settle.
FIRST_STEPS: dict[ExecutionMode, int] = {"tape": 1, "graph": 3}
# To compile takes 5 to 9 seconds on an H200, which longer runs win back: it saves 0.5 of 5.6 ms of
# a step of the scaled model, and 10.8 of 18.9 ms with weights of 1.58 bits, which are rounded anew
# in each step by many operations. A small model's step takes 0.4 ms, compiled or not.
COMPILED_FROM, COMPILED_FROM_FEW_BITS = 20_000, 1000
# What the compiler shall not do on a GPU: fuse the sums of a norm's gradients with its rows' work,
# which takes a step of the scaled model from 5.15 to 5.61 ms.
GPU_OPTIONS = {"triton.mix_order_reduction": False}


@dataclass(frozen=True)
class ExecutionPlan:
    """How to carry out the steps of a run, and why so, in a sentence for the user."""

    way: ExecutionMode
    compiled: bool
    dtype: torch.dtype
    why: str


def plan_execution(config: TrainConfig, device: torch.device, processes: int = 1) -> ExecutionPlan:
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
        wide = config.embedding_dim >= WIDE
        least = COMPILED_FROM if config.bits == "full" else COMPILED_FROM_FEW_BITS
        compiled = on_gpu and wide and config.iters >= least
    windows = config.batch_size * config.grad_accumulation
    small = windows * config.context_length * config.embedding_dim <= REPLAYED_UP_TO and kept_whole(
        config.batch_size, config.context_length, config.num_heads
    )
    way: ExecutionMode = "plain"
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
        reasons.append("compiled, which takes some seconds at the start")
    dtype = torch.bfloat16 if half else torch.float32
    return ExecutionPlan(way, compiled, dtype, f"On {device}: {', '.join(reasons)}")


class StepRunner:
    """Carries out a step again and again, recording it where that is the way."""

    def __init__(self, way: ExecutionMode, device: torch.device) -> None:
        self._device, self.way = device, way
        self._done = 0
        self._recorded: Callable[[], Tensor] | None = None

    def __call__(self, step: Callable[[], Tensor]) -> Tensor:
        """One step; returns its loss, a scalar of its own on the device.

        `step`, the same at each call, works on tensors that stay in their place.
        The first steps run as written, the next is recorded.
        """
        if self.way == "plain":
            return step().detach()
        if self._recorded is None:
            if self._done < FIRST_STEPS[self.way]:
                self._done += 1
                with warming_up(self._device):
                    return step().detach().clone()
            return self._record(step)
        return self._recorded().clone()

    def forget(self) -> None:
        """Give back what was recorded and the memory it holds; the next step is recorded anew.

        To be called when training ends: a graph's memory is the GPU's, of which
        Python's collector of garbage knows nothing.
        """
        self._done, self._recorded = 0, None

    def _record(self, step: Callable[[], Tensor]) -> Tensor:
        if self.way == "tape":
            self._recorded = tape = KernelTrace(
                lambda: step().detach()
            )  # recording it carries it out
            return tape.result.clone()
        try:
            self._recorded = graph = _Graph(lambda: step().detach())
        except CaptureRefusedError as refused:
            log.warning(
                "A step cannot be captured as a CUDA graph, so it runs plainly: %s", refused
            )
            self.way = "plain"
            return step().detach()
        return graph().clone()


class Compiled:
    """A model whose blocks `torch.compile` fuses; where that is not possible, as they are.

    Blocks are alike, so that one is compiled for all; a model without blocks is
    compiled whole.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._works: bool | None = None  # not known before it was tried
        blocks = getattr(model, "blocks", None)
        on_gpu = next(model.parameters()).is_cuda
        options: dict[str, Any] = {"options": GPU_OPTIONS} if on_gpu else {}
        with _without_warnings():
            for part in blocks if isinstance(blocks, nn.Sequential) else [model]:
                part.compile(dynamic=False, **options)

    def __call__(self, tokens: Tensor) -> Tensor:
        """The model's logits. The first call compiles, and finds out whether that works."""
        if self._works is None:
            try:
                with _without_warnings():
                    logits: Tensor = self._model(tokens)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._works, reason = False, _innermost(error)
            else:
                self._works = True
                return logits
            log.warning("torch.compile does not work here, so training goes on without: %s", reason)
        with nullcontext() if self._works else run_eagerly():
            return self._model(tokens)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Without those of the compiler about its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _innermost(error: BaseException) -> str:
    """The first line of what was at the root of a compiler's error."""
    while inner := getattr(error, "inner_exception", None) or error.__cause__:
        error = inner
    return str(error).strip().splitlines()[0]


def run_eagerly() -> AbstractContextManager[object]:
    """Within this, what was compiled runs as written: for shapes that come seldom."""
    return torch.compiler.set_stance("force_eager")


class _Graph:
    """A captured CUDA graph of a step."""

    def __init__(self, step: Callable[[], Tensor]) -> None:
        results: list[Tensor] = []
        self._graph = capture(lambda: results.append(step()))
        (self._result,) = results

    def __call__(self) -> Tensor:
        self._graph.replay()
        return self._result
