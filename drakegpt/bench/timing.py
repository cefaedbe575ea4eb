"""How fast this machine trains and writes: drakegpt beside the textbook, and beside the limit.

Contenders take turns: in each round every one does a little of every kind of
work, so a machine that is busy for a while slows all of them. What is reported
are medians of the rounds, and medians of the ratios within each round; and whether
the machine was busy with other programs, which the processor time of the same work
tells: on a CPU no less than the time on the clock, unless the work had to wait.

The limit of a training step is arithmetic alone: the floating-point operations
in the matrix products of the textbook's forward and backward pass, at the rate
at which this machine multiplies two large matrices.

Not here: who takes part and at what (`contenders`), the `machine`, and `memory`.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from drakegpt.bench.hardware import matmul_rate
from drakegpt.bench.memory import peak_memory
from drakegpt.bench.workloads import BUILDERS, CHARACTERS, SEED, TEXT_LENGTH, VOCAB_SIZE, Work
from drakegpt.compute.device import set_thread_count
from drakegpt.config import TrainConfig
from drakegpt.models.loss import next_token_loss
from drakegpt.models.reference import ReferenceLM
from drakegpt.training.step_runner import plan_execution
from drakegpt.wording import pluralize

OURS, TEXTBOOK, PLAIN, EXACT = "drakegpt", "textbook", "plain", "exact"
# What textbooks do: every 500 iterations, losses estimated from 200 batches of each split.
INTERVAL, BATCHES = 500, 200
# Seconds that one takes its turn, where its work comes in units that small.
REPETITION = {"default": 0.1, "scaled": 0.2}
# Times as long on the clock as on the processors: from there on other programs were busy.
BUSY = 1.15
# Units of work after which memory is measured: training reaches its peak in the second
# iteration, when the optimizer has its state.
UNITS_FOR_MEMORY = {"training": 3, "generation": 64}

Progress = Callable[[str, int, int], None]


def _silent(_what: str, _done: int, _total: int) -> None:
    """For who does not want to know how far it is."""


@dataclass(frozen=True)
class Times:
    """Seconds that each contender took for one unit of its work, round by round."""

    seconds: dict[str, list[float]]
    # The same on the processors, of all threads together; empty where that tells nothing: on a GPU.
    processor: dict[str, list[float]] = field(default_factory=dict)

    def median(self, who: str) -> float:
        """Seconds per unit in the middle round."""
        return statistics.median(self.seconds[who])

    @property
    def reference(self) -> str:
        """The textbook at the number of threads that suits it better."""
        return min((who for who in self.seconds if who.startswith(TEXTBOOK)), key=self.median)

    def ratio(self, who: str) -> float:
        """How many times longer `who` takes than drakegpt: the median of all rounds."""
        return self.times_faster(OURS, than=who)

    def spread(self, who: str, than: str) -> tuple[float, float]:
        """The lowest and the highest of the rounds' ratios of the other's time to that of `who`."""
        ratios = [b / a for a, b in zip(self.seconds[who], self.seconds[than], strict=True)]
        return min(ratios), max(ratios)

    @property
    def waited(self) -> float:
        """How many times the processor time the clock showed, of the contender who waited most."""
        shares = [
            sum(self.seconds[who]) / max(sum(processor), 1e-9)
            for who, processor in self.processor.items()
        ]
        return max(shares, default=1.0)

    def times_faster(self, who: str, than: str) -> float:
        """How many times longer the other takes than `who`: the median of all rounds."""
        pairs = zip(self.seconds[than], self.seconds[who], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    def plus(self, other: "Times", share: float) -> "Times":
        """The times of this work with a share of another, round by round."""
        return Times(
            {
                who: [one + share * two for one, two in zip(times, other.seconds[who], strict=True)]
                for who, times in self.seconds.items()
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Milliseconds of each contender, and how many times faster drakegpt is."""
        contenders: dict[str, dict[str, Any]] = {
            who: {"ms": self.median(who) * 1000, "repetitions_ms": [t * 1000 for t in times]}
            for who, times in self.seconds.items()
        }
        for who, times in self.processor.items():
            contenders[who]["processor_ms"] = [t * 1000 for t in times]
        ratios = {TEXTBOOK: self.ratio(self.reference)}
        if PLAIN in self.seconds:
            ratios[PLAIN] = self.ratio(PLAIN)
        if EXACT in self.seconds:
            ratios["textbook, window exact"] = self.times_faster(EXACT, than=self.reference)
        return {"contenders": contenders, "reference": self.reference, "times_faster": ratios}


@dataclass(frozen=True)
class Measurement:
    """All figures of one model."""

    config: TrainConfig
    threads: dict[str, int]  # of each contender
    dtype: str  # that drakegpt multiplies in; the others take float32
    training: Times  # of an iteration
    with_evaluations: Times  # of an iteration and its share of an evaluation
    generation: Times  # of a character
    flops: int  # of an iteration
    matmul_rate: float  # floating-point operations in a second
    memory: dict[str, dict[str, int | None]]  # bytes, by kind of work and contender

    @property
    def waited(self) -> float:
        """How many times the processor time the clock showed, at the work that waited most."""
        return max(self.training.waited, self.generation.waited)

    @property
    def busy(self) -> bool:
        """Whether other programs took so much of the machine that the times are not its own."""
        return self.waited > BUSY

    @property
    def limit(self) -> float:
        """Seconds that the arithmetic of an iteration takes at least."""
        return self.flops / self.matmul_rate

    @property
    def times_limit(self) -> float | None:
        """How many times the limit drakegpt takes; `None` for a model without products."""
        return self.training.median(OURS) / self.limit if self.flops else None

    def to_json(self) -> dict[str, Any]:
        """All medians, and the repetitions they are made of."""
        generation = self.generation.to_json()
        for figures in generation["contenders"].values():
            figures["characters_per_second"] = 1000 / figures["ms"]
        return {
            "model": self.config.model,
            "size": self.config.size,
            "threads": self.threads,
            "dtype": self.dtype,
            "waited": self.waited,
            "busy": self.busy,
            "training": self.training.to_json(),
            "training_with_evaluations": self.with_evaluations.to_json(),
            "generation": generation,
            "limit": {
                "flops_per_iteration": self.flops,
                "matmul_flops_per_second": self.matmul_rate,
                "ms": self.limit * 1000,
                "times_limit": self.times_limit,
            },
            "memory_bytes": self.memory,
        }


@dataclass(frozen=True)
class Entry:
    """One contender at one kind of work: `work(n)` does n units of it."""

    who: str
    kind: str
    threads: int
    work: Work


def measure(
    config: TrainConfig,
    rounds: int,
    device: torch.device,
    *,
    memory: bool = False,
    progress: Progress = _silent,
) -> Measurement:
    """Measure one model; `progress` hears what is measured, how many of all are done."""
    with _threads_put_back():
        entries = _entries(config, device)
        units = {}
        total = len(entries) * (rounds + 1)
        for done, entry in enumerate(entries):
            progress(f"warming up: {entry.who}, {entry.kind}", done, total)
            count = warm_up(entry, device, REPETITION[config.size])
            if (entry.who, entry.kind) == (OURS, "generation"):
                # Where the window moves by halves, some characters cost more: whole windows.
                count = -(-count // config.context_length) * config.context_length
            units[entry.who, entry.kind] = count
        times = measure_in_turns(entries, units, rounds, device, progress)
        threads = {entry.who: entry.threads for entry in entries}
        dtype = plan_execution(config, device).dtype
        rate = matmul_rate(device, dtype, threads[OURS])
    peaks = _peaks(config, device, progress) if memory else {}
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
    entries: list[Entry],
    units: dict[tuple[str, str], int],
    rounds: int,
    device: torch.device,
    progress: Progress = _silent,
) -> dict[str, Times]:
    """Let the entries take turns; the seconds per unit of each kind of work."""
    times: dict[str, Times] = {entry.kind: Times({}) for entry in entries}
    for number in range(rounds):
        for place, entry in enumerate(entries):
            done = (number + 1) * len(entries) + place
            what = f"round {number + 1} of {rounds}: {entry.who}, {entry.kind}"
            progress(what, done, len(entries) * (rounds + 1))
            count = units[entry.who, entry.kind]
            seconds, processor = _timed(entry, count, device)
            of_kind = times[entry.kind]
            of_kind.seconds.setdefault(entry.who, []).append(seconds / count)
            if device.type == "cpu":
                of_kind.processor.setdefault(entry.who, []).append(processor / count)
    return times


def count_flops(config: TrainConfig) -> int:
    """Floating-point operations of an iteration's matrix products, in the textbook's model."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # shapes alone
        tokens = torch.zeros(config.batch_size, config.context_length, dtype=torch.long)
        model = ReferenceLM(config.model_settings(VOCAB_SIZE))
        next_token_loss(model(tokens), tokens).backward()
    return counter.get_total_flops()


def describe_settings(rounds: int) -> dict[str, Any]:
    """What was done, for whoever wants to do it again."""
    return {
        "rounds": rounds,
        "text": f"{CHARACTERS:,} random characters",
        "vocab_size": VOCAB_SIZE,
        "seed": SEED,
        "generated_text_length": TEXT_LENGTH,
        "evaluation_interval": INTERVAL,
        "evaluation_batches_of_each_split": BATCHES,
    }


def _entries(config: TrainConfig, device: torch.device) -> list[Entry]:
    """Who takes part: drakegpt, the textbook at one thread and at all; two more at scaled size."""
    all_threads = torch.get_num_threads()
    set_thread_count(config.model_settings(VOCAB_SIZE))
    our_threads = torch.get_num_threads()
    contenders = [(OURS, our_threads, OURS)]
    for threads in sorted({1, all_threads}):
        contenders.append((TEXTBOOK, threads, f"{TEXTBOOK} at {pluralize(threads, 'thread')}"))
    if config.size == "scaled":
        contenders += [(PLAIN, our_threads, PLAIN), (EXACT, our_threads, EXACT)]
    return [
        Entry(who, kind, threads, build(config, device))
        for name, threads, who in contenders
        for kind, build in BUILDERS[name].items()
    ]


def warm_up(entry: Entry, device: torch.device, repetition: float) -> int:
    """Work until the first, slower units are over; how many units take `repetition` seconds.

    Small steps are recorded and a GPU's captured before they are quick; on a CPU,
    where one unit takes seconds, that weighs nothing.
    """
    done, units, spent = 0, 1, 0.0
    while True:
        seconds, _ = _timed(entry, units, device)
        done, spent = done + units, spent + seconds
        heavy = device.type == "cpu" and (spent >= 2.0 or (spent >= 0.5 and done >= 2))
        if (heavy or done >= 5) and seconds >= repetition / 2:
            return max(1, round(units * repetition / seconds))
        if seconds < repetition / 2:
            units *= 2


def _timed(entry: Entry, units: int, device: torch.device) -> tuple[float, float]:
    """How long so many units take, from idle to idle: by the clock, and on the processors."""
    if torch.get_num_threads() != entry.threads:
        torch.set_num_threads(entry.threads)
        torch.ones(2**20).add_(1)  # wakes them
    synchronize = torch.get_device_module(device).synchronize
    synchronize()
    started, processor = time.perf_counter(), time.process_time()
    entry.work(units)
    synchronize()
    return time.perf_counter() - started, time.process_time() - processor


def _peaks(
    config: TrainConfig, device: torch.device, progress: Progress
) -> dict[str, dict[str, int | None]]:
    names = [OURS, TEXTBOOK, *([PLAIN] if config.size == "scaled" else [])]
    todo = [(kind, who) for kind in UNITS_FOR_MEMORY for who in names if kind in BUILDERS[who]]
    peaks: dict[str, dict[str, int | None]] = {kind: {} for kind in UNITS_FOR_MEMORY}
    for done, (kind, who) in enumerate(todo):
        progress(f"memory: {who}, {kind}", done, len(todo))
        what = f"The {kind} of {who}, {config.model}"
        peaks[kind][who] = peak_memory(what, work_once, [who, kind, asdict(config)], device)
    return peaks


def work_once(who: str, kind: str, settings: dict[str, Any], device: torch.device) -> None:
    """What a process does whose memory is measured: a few units of a contender's work."""
    config = TrainConfig(**settings)
    set_thread_count(config.model_settings(VOCAB_SIZE))
    BUILDERS[who][kind](config, device)(UNITS_FOR_MEMORY[kind])


@contextmanager
def _threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
