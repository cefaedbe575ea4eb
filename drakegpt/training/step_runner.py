"""How training steps are executed: the same mathematics, repeated as fast as possible.

    eager   operation by operation
    replay  a small model on a CPU: kernel calls recorded once, then replayed
            (`compute.replay`)
    graph   a GPU: captured once as a CUDA graph, then launched as a whole

Replay and eager execution give bit-identical results. In addition, `torch.compile` may
fuse the operations of a model's blocks, and a GPU may compute in bfloat16.
`plan_execution` chooses, and describes its choice.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from drakegpt.compute.cuda_graph import CaptureRefusedError, capture, warm_up_stream
from drakegpt.compute.device import choose_dtype, choose_thread_count
from drakegpt.compute.kernels import fits_whole_attention
from drakegpt.compute.replay import REPLAYED_UP_TO, KernelTrace
from drakegpt.config import TrainConfig
from drakegpt.config.presets import WIDE
from drakegpt.errors import UsageError

log = logging.getLogger("drakegpt")

ExecutionMode = Literal["eager", "replay", "graph"]
DESCRIPTIONS: dict[ExecutionMode, str] = {
    "eager": "eager steps",
    "replay": "one step is recorded and replayed, because the model is small",
    "graph": "each step is one CUDA graph",
}

# Eager steps before one is recorded: the first initializes the optimizer's state, and a GPU's
# libraries need a few to initialize themselves.
WARM_UP_STEPS: dict[ExecutionMode, int] = {"replay": 1, "graph": 3}
# Iterations from which compiling pays. It takes 5 to 9 seconds on an H200, and saves 0.5 of 5.6 ms
# per step of the scaled model, or 10.8 of 18.9 ms with weights of 1.58 bits, which are quantized in
# each step by many operations. A step of a small model takes 0.4 ms, compiled or not.
COMPILED_FROM, COMPILED_FROM_LOW_BIT = 20_000, 1000
# Fewer tokens than this make matrices too small for a thread to multiply them fast.
TOKENS_PER_SHARE = 256
# On a GPU the compiler must not fuse the sums for a norm's gradients with the work on its rows:
# that slows a step of the scaled model from 5.15 to 5.61 ms.
GPU_OPTIONS = {"triton.mix_order_reduction": False}


@dataclass(frozen=True)
class ExecutionPlan:
    """How to execute the steps of a run, with a description for the user."""

    mode: ExecutionMode
    compiled: bool
    dtype: torch.dtype
    shares: int  # of the windows, for as many threads (`parallel_step`)
    description: str


def plan_execution(config: TrainConfig, device: torch.device, processes: int = 1) -> ExecutionPlan:
    """Choose what the settings leave open: mode, dtype, and whether to compile.

    Raises `UsageError` for several processes on an Apple GPU.
    """
    on_gpu = device.type == "cuda"
    if processes > 1 and device.type == "mps":
        raise UsageError(
            "Several processes cannot share an Apple GPU.", "Use --device cpu, or one process."
        )
    dtype = choose_dtype(config.dtype, device)
    compiled = config.compile
    if compiled is None:
        wide = config.embedding_dim >= WIDE
        min_iters = COMPILED_FROM if config.bits == "full" else COMPILED_FROM_LOW_BIT
        compiled = on_gpu and wide and config.iters >= min_iters
    windows = config.batch_size * config.grad_accumulation
    small = (
        windows * config.context_length * config.embedding_dim <= REPLAYED_UP_TO
        and fits_whole_attention(config.batch_size, config.context_length, config.num_heads)
    )
    mode: ExecutionMode = "eager"
    if on_gpu and processes == 1:
        mode = "graph"
    elif device.type == "cpu" and small and processes == 1 and not compiled:
        mode = "replay"
    parallel = device.type == "cpu" and processes == 1 and not compiled
    shares = _count_shares(config) if parallel else 1
    details = [str(dtype).removeprefix("torch."), DESCRIPTIONS[mode]]
    if compiled:
        details.append("compiled, which takes a few seconds at the start")
    if shares > 1:
        details.append(f"the windows shared among {shares} threads")
    return ExecutionPlan(mode, compiled, dtype, shares, f"On {device}: {', '.join(details)}")


def _count_shares(config: TrainConfig) -> int:
    """Return among how many threads to share the windows of a step; 1 if it does not pay.

    Low-bit weights would be quantized by each of them.
    """
    if config.bits != "full":
        return 1
    threads = min(torch.get_num_threads(), choose_thread_count(config.model_settings(1)))
    windows = config.batch_size * config.grad_accumulation
    return max(1, min(threads, windows, windows * config.context_length // TOKENS_PER_SHARE))


class StepRunner:
    """Executes a step again and again, recording it unless the mode is eager."""

    def __init__(self, mode: ExecutionMode, device: torch.device) -> None:
        self._device, self.mode = device, mode
        self._done = 0
        self._recorded: Callable[[], Tensor] | None = None

    def __call__(self, step: Callable[[], Tensor]) -> Tensor:
        """Execute one step; return its loss, a new scalar on the device.

        `step` must be the same at each call, and keep its tensors in place. The first
        calls are eager, the next one is recorded.
        """
        if self.mode == "eager":
            return step().detach()
        if self._recorded is None:
            if self._done < WARM_UP_STEPS[self.mode]:
                self._done += 1
                with warm_up_stream(self._device):
                    return step().detach().clone()
            return self._record(step)
        return self._recorded().clone()

    def reset(self) -> None:
        """Free the recorded step and its memory; the next steps record it again.

        Call it when training ends: a graph holds GPU memory, which does not make
        Python collect garbage.
        """
        self._done, self._recorded = 0, None

    def _record(self, step: Callable[[], Tensor]) -> Tensor:
        if self.mode == "replay":
            self._recorded = trace = KernelTrace(lambda: step().detach())  # recording executes it
            return trace.result.clone()
        try:
            self._recorded = graph = _CapturedStep(lambda: step().detach())
        except CaptureRefusedError as refused:
            log.warning(
                "A step cannot be captured as a CUDA graph, so steps run eagerly: %s", refused
            )
            self.mode = "eager"
            return step().detach()
        return graph().clone()


class CompiledModel:
    """A model with blocks compiled by `torch.compile`, or eager where that does not work.

    The blocks have equal code, which is compiled once; a model without `blocks` is
    compiled as a whole.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._works: bool | None = None  # unknown until the first call
        blocks = getattr(model, "blocks", None)
        on_gpu = next(model.parameters()).is_cuda
        options: dict[str, Any] = {"options": GPU_OPTIONS} if on_gpu else {}
        with _ignore_warnings():
            for part in blocks if isinstance(blocks, nn.Sequential) else [model]:
                part.compile(dynamic=False, **options)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return the logits. The first call compiles, and finds out whether that works."""
        if self._works is None:
            try:
                with _ignore_warnings():
                    logits: Tensor = self._model(tokens)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._works, reason = False, _find_root_message(error)
            else:
                self._works = True
                return logits
            log.warning("torch.compile does not work here, so steps run without it: %s", reason)
        with nullcontext() if self._works else force_eager():
            return self._model(tokens)


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    """Ignore warnings of the compiler about its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _find_root_message(error: BaseException) -> str:
    """Return the first line of the error at the root of a compiler's error."""
    while inner := getattr(error, "inner_exception", None) or error.__cause__:
        error = inner
    return str(error).strip().splitlines()[0]


def force_eager() -> AbstractContextManager[object]:
    """Return a context in which compiled code runs eagerly: for shapes that are rare."""
    return torch.compiler.set_stance("force_eager")


class _CapturedStep:
    """A captured CUDA graph of a step."""

    def __init__(self, step: Callable[[], Tensor]) -> None:
        results: list[Tensor] = []
        self._graph = capture(lambda: results.append(step()))
        (self._result,) = results

    def __call__(self) -> Tensor:
        self._graph.replay()
        return self._result
