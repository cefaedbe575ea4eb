"""Time training and generation: drakegpt beside reference code and the hardware limit.

The workloads take turns: in each round every implementation does a little of every kind
of work, so that a machine that is busy for a while slows all of them. Reported are
medians over the rounds, and medians of the ratios within each round. A machine that was
busy with other programs is detected by processor time: on a CPU it is no less than the
time on the clock, unless the work had to wait.

The lower bound of a training step is its arithmetic alone: the floating-point operations
in the matrix products of the textbook's forward and backward pass, at the rate at which
this machine multiplies two large matrices.

Not here: the implementations (`workloads`), the machine (`hardware`), and `memory`.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from drakegpt.bench.hardware import measure_matmul_rate
from drakegpt.bench.memory import peak_memory
from drakegpt.bench.peers import COMPILED, GPT2, build_peers
from drakegpt.bench.workloads import (
    BUILDERS,
    CHARACTERS,
    EXACT,
    OURS,
    PLAIN,
    SEED,
    TEXT_LENGTH,
    TEXTBOOK,
    UNREPLAYED,
    VOCAB_SIZE,
    Work,
)
from drakegpt.compute.device import set_thread_count
from drakegpt.config import TrainConfig
from drakegpt.generation.context_window import resolve_window
from drakegpt.models.loss import next_token_loss
from drakegpt.models.reference import ReferenceLM
from drakegpt.progress import Progress, silent
from drakegpt.training.step_runner import plan_execution
from drakegpt.wording import pluralize

# The textbook's evaluations: every 500 iterations, losses of 200 batches of each split.
INTERVAL, BATCHES = 500, 200
# Seconds of a turn, if units of the work are that short.
REPETITION = {"default": 0.1, "scaled": 0.2}
# Other programs were busy if the clock shows this many times the processor time.
BUSY = 1.15
# Units of work after which peak memory is measured: training reaches it in the second
# iteration, when the optimizer has its state.
UNITS_FOR_MEMORY = {"training": 3, "generation": 64}

# Settings that say how large the work of a step is.
SHAPE = ("batch_size", "context_length", "embedding_dim", "num_heads", "num_layers", "dropout")


@dataclass(frozen=True)
class Times:
    """Seconds for one unit of one kind of work, by implementation, round by round."""

    seconds: dict[str, list[float]]
    # Processor time of all threads together; empty on a GPU, where it does not measure the work.
    processor: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Return the median seconds per unit."""
        return statistics.median(self.seconds[name])

    @property
    def textbook(self) -> str:
        """The textbook with the number of threads that makes it faster."""
        return min((name for name in self.seconds if name.startswith(TEXTBOOK)), key=self.median)

    def speedup(self, name: str, over: str) -> float:
        """Return how many times faster `name` is than `over`: the median of the rounds' ratios."""
        return statistics.median(self._ratios(name, over))

    def speedup_range(self, name: str, over: str) -> tuple[float, float]:
        """Return the lowest and the highest of the rounds' speedups."""
        ratios = self._ratios(name, over)
        return min(ratios), max(ratios)

    def _ratios(self, name: str, over: str) -> list[float]:
        pairs = zip(self.seconds[over], self.seconds[name], strict=True)
        return [slow / fast for slow, fast in pairs]

    @property
    def wait_ratio(self) -> float:
        """Time on the clock over processor time, of the implementation that waited most."""
        ratios = [
            sum(self.seconds[name]) / max(sum(processor), 1e-9)
            for name, processor in self.processor.items()
        ]
        return max(ratios, default=1.0)

    def plus(self, other: "Times", share: float) -> "Times":
        """Add a share of another work's times, round by round, where both were measured."""
        return Times(
            {
                name: [a + share * b for a, b in zip(times, other.seconds[name], strict=True)]
                for name, times in self.seconds.items()
                if name in other.seconds
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Return milliseconds of each implementation, and drakegpt's speedups over them."""
        implementations: dict[str, dict[str, Any]] = {
            name: {"ms": self.median(name) * 1000, "repetitions_ms": [t * 1000 for t in times]}
            for name, times in self.seconds.items()
        }
        for name, times in self.processor.items():
            implementations[name]["processor_ms"] = [t * 1000 for t in times]
        speedup = {TEXTBOOK: self.speedup(OURS, over=self.textbook)}
        speedup |= {
            name: self.speedup(OURS, over=name)
            for name in (UNREPLAYED, PLAIN, COMPILED, GPT2)
            if name in self.seconds
        }
        if EXACT in self.seconds:
            speedup["textbook, exact window"] = self.speedup(EXACT, over=self.textbook)
        return {"implementations": implementations, "textbook": self.textbook, "speedup": speedup}


@dataclass(frozen=True)
class Measurement:
    """All figures of one model."""

    config: TrainConfig
    threads: dict[str, int]  # by implementation
    dtype: str  # of drakegpt's matrix products; the others use float32 unless it was asked for
    training: Times  # of an iteration
    with_evaluations: Times  # of an iteration and its share of an evaluation
    generation: Times  # of a character
    flops: int  # of an iteration
    matmul_rate: float  # floating-point operations a second
    memory: dict[str, dict[str, int | None]]  # bytes, by kind of work and implementation

    @property
    def wait_ratio(self) -> float:
        """Time on the clock over processor time, of the work that waited most."""
        return max(self.training.wait_ratio, self.generation.wait_ratio)

    @property
    def busy(self) -> bool:
        """Whether other programs used so much of the machine that the times are unreliable."""
        return self.wait_ratio > BUSY

    @property
    def lower_bound(self) -> float:
        """Seconds that the arithmetic of an iteration takes at least."""
        return self.flops / self.matmul_rate

    @property
    def times_lower_bound(self) -> float | None:
        """Drakegpt's time over the lower bound; `None` for a model without matrix products."""
        return self.training.median(OURS) / self.lower_bound if self.flops else None

    def to_json(self) -> dict[str, Any]:
        """Return all medians, and the repetitions that they are made of."""
        generation = self.generation.to_json()
        for figures in generation["implementations"].values():
            figures["characters_per_second"] = 1000 / figures["ms"]
        return {
            "model": self.config.model,
            "size": self.config.size,
            "threads": self.threads,
            "dtype": self.dtype,
            "shape": {name: getattr(self.config, name) for name in SHAPE},
            "wait_ratio": self.wait_ratio,
            "busy": self.busy,
            "training": self.training.to_json(),
            "training_with_evaluations": self.with_evaluations.to_json(),
            "generation": generation,
            "lower_bound": {
                "flops_per_iteration": self.flops,
                "matmul_flops_per_second": self.matmul_rate,
                "ms": self.lower_bound * 1000,
                "times": self.times_lower_bound,
            },
            "memory_bytes": self.memory,
        }


@dataclass(frozen=True)
class Workload:
    """One implementation at one kind of work: `work(n)` does n units of it."""

    name: str  # of the implementation
    kind: str
    threads: int
    work: Work


def measure(
    config: TrainConfig,
    rounds: int,
    device: torch.device,
    *,
    memory: bool = False,
    peers: bool = False,
    progress: Progress = silent,
) -> Measurement:
    """Measure one model; `progress` is called with what is measured, and steps done and in all."""
    with restore_threads():
        workloads = _build_workloads(config, device)
        if peers:
            progress("compiling", 0, 1)
            for name, work in build_peers(config, device).items():
                workloads.append(Workload(name, "training", workloads[0].threads, work))
        units = {}
        total = len(workloads) * (rounds + 1)
        for done, workload in enumerate(workloads):
            progress(f"warming up: {workload.name}, {workload.kind}", done, total)
            count = warm_up(workload, device, REPETITION[config.size])
            if (workload.name, workload.kind) == (OURS, "generation"):
                # Where the window moves by halves, some characters cost more: whole windows.
                count = -(-count // config.context_length) * config.context_length
            units[workload.name, workload.kind] = count
        times = measure_in_turns(workloads, units, rounds, device, progress)
        threads = {workload.name: workload.threads for workload in workloads}
        dtype = plan_execution(config, device).dtype
        rate = measure_matmul_rate(device, dtype, threads[OURS])
    peaks = _measure_peaks(config, device, progress) if memory else {}
    share = BATCHES / config.eval_iters / INTERVAL
    return Measurement(
        config=config,
        threads=threads,
        dtype=str(dtype).removeprefix("torch."),
        training=times["training"],
        with_evaluations=times["training"].plus(times["evaluation"], share),
        generation=times["generation"],
        flops=count_flops(config),
        matmul_rate=rate,
        memory=peaks,
    )


def measure_in_turns(
    workloads: list[Workload],
    units: dict[tuple[str, str], int],
    rounds: int,
    device: torch.device,
    progress: Progress = silent,
) -> dict[str, Times]:
    """Time the workloads in turns; returns the seconds per unit of each kind of work."""
    times: dict[str, Times] = {workload.kind: Times({}) for workload in workloads}
    for number in range(rounds):
        for place, workload in enumerate(workloads):
            done = (number + 1) * len(workloads) + place
            what = f"round {number + 1} of {rounds}: {workload.name}, {workload.kind}"
            progress(what, done, len(workloads) * (rounds + 1))
            count = units[workload.name, workload.kind]
            seconds, processor = _time_work(workload, count, device)
            of_kind = times[workload.kind]
            of_kind.seconds.setdefault(workload.name, []).append(seconds / count)
            if device.type == "cpu":
                of_kind.processor.setdefault(workload.name, []).append(processor / count)
    return times


def count_flops(config: TrainConfig) -> int:
    """Count the operations of an iteration's matrix products, in the textbook's model."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # shapes alone
        tokens = torch.zeros(config.batch_size, config.context_length, dtype=torch.long)
        model = ReferenceLM(config.model_settings(VOCAB_SIZE))
        next_token_loss(model(tokens), tokens).backward()
    return counter.get_total_flops()


def describe_settings(rounds: int) -> dict[str, Any]:
    """Describe how the measurements were made, so that they can be repeated."""
    return {
        "rounds": rounds,
        "text": f"{CHARACTERS:,} random characters",
        "vocab_size": VOCAB_SIZE,
        "seed": SEED,
        "generated_text_length": TEXT_LENGTH,
        "evaluation_interval": INTERVAL,
        "evaluation_batches_of_each_split": BATCHES,
    }


def _build_workloads(config: TrainConfig, device: torch.device) -> list[Workload]:
    """Build all workloads; the textbook runs with one thread and with all.

    "without replay" is left out where no step is replayed, and "exact window" where the
    window is exact, as at default size.
    """
    all_threads = torch.get_num_threads()
    set_thread_count(config.model_settings(VOCAB_SIZE))
    our_threads = torch.get_num_threads()
    runs = [(OURS, our_threads, OURS)]
    for threads in sorted({1, all_threads}):
        runs.append((TEXTBOOK, threads, f"{TEXTBOOK} at {pluralize(threads, 'thread')}"))
    runs.append((PLAIN, our_threads, PLAIN))
    if plan_execution(config, device).mode != "eager":
        runs.append((UNREPLAYED, our_threads, UNREPLAYED))
    if resolve_window("auto", config.context_length) != "exact":
        runs.append((EXACT, our_threads, EXACT))
    return [
        Workload(name, kind, threads, build(config, device))
        for implementation, threads, name in runs
        for kind, build in BUILDERS[implementation].items()
    ]


def warm_up(workload: Workload, device: torch.device, repetition: float) -> int:
    """Work until the first, slower units are over; returns the units that take `repetition` s.

    Small steps are recorded, and a GPU's captured, before they are fast. On a CPU where one
    unit takes seconds, a few units are enough.
    """
    done, units, spent = 0, 1, 0.0
    while True:
        seconds, _ = _time_work(workload, units, device)
        done, spent = done + units, spent + seconds
        heavy = device.type == "cpu" and (spent >= 2.0 or (spent >= 0.5 and done >= 2))
        if (heavy or done >= 5) and seconds >= repetition / 2:
            return max(1, round(units * repetition / seconds))
        if seconds < repetition / 2:
            units *= 2


def _time_work(workload: Workload, units: int, device: torch.device) -> tuple[float, float]:
    """Return the wall and processor seconds of `units` units, from idle to idle."""
    if torch.get_num_threads() != workload.threads:
        torch.set_num_threads(workload.threads)
        torch.ones(2**20).add_(1)  # starts the threads
    synchronize = torch.get_device_module(device).synchronize
    synchronize()
    started, processor = time.perf_counter(), time.process_time()
    workload.work(units)
    synchronize()
    return time.perf_counter() - started, time.process_time() - processor


def _measure_peaks(
    config: TrainConfig, device: torch.device, progress: Progress
) -> dict[str, dict[str, int | None]]:
    """Measure peak memory, each in a new process: by kind of work and implementation."""
    names = (OURS, TEXTBOOK, PLAIN)
    todo = [(kind, name) for kind in UNITS_FOR_MEMORY for name in names if kind in BUILDERS[name]]
    peaks: dict[str, dict[str, int | None]] = {kind: {} for kind in UNITS_FOR_MEMORY}
    for done, (kind, name) in enumerate(todo):
        progress(f"memory: {name}, {kind}", done, len(todo))
        what = f"The {kind} of {name}, {config.model}"
        peaks[kind][name] = peak_memory(what, work_briefly, [name, kind, asdict(config)], device)
    return peaks


def work_briefly(name: str, kind: str, settings: dict[str, Any], device: torch.device) -> None:
    """Do a few units of an implementation's work, in the process whose memory is measured."""
    config = TrainConfig(**settings)
    set_thread_count(config.model_settings(VOCAB_SIZE))
    BUILDERS[name][kind](config, device)(UNITS_FOR_MEMORY[kind])


@contextmanager
def restore_threads() -> Iterator[None]:
    """Restore PyTorch's number of threads at the end of a `with` statement."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
