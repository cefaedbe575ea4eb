"""Time until a loss: drakegpt beside nanoGPT with its published settings for a CPU.

Both train on the same split, and every few iterations both are scored on the whole
validation split by the same code. The seconds of training and those of scoring are kept
apart. They train one after the other, for a machine has no room for both at once; further
rounds have other seeds and the reverse order, so that a machine that slows down does not
favour one of them.

drakegpt's default length, `LAPTOP`, was chosen for the target that nanoGPT's README
states, by trials on tiny Shakespeare: another target or text needs another one.

Not here: the other program (`nanogpt`), and steps timed one by one (`timing`).
"""

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from drakegpt.bench import nanogpt
from drakegpt.bench.timing import restore_threads
from drakegpt.bench.workloads import OURS
from drakegpt.compute.device import default_thread_count, set_thread_count
from drakegpt.compute.stopwatch import Stopwatch
from drakegpt.config import TrainConfig
from drakegpt.config.files import to_command
from drakegpt.data.dataset import Dataset
from drakegpt.evaluation.scoring import score_validation_split
from drakegpt.models.initialization import build_initial_model
from drakegpt.models.layers import LanguageModel
from drakegpt.progress import Progress, silent
from drakegpt.training.reports import Evaluation
from drakegpt.training.step_runner import plan_execution
from drakegpt.training.trainer import Trainer

NANOGPT = "plain PyTorch, nanoGPT's settings"
# drakegpt's settings where no others are given: nanoGPT's shape, and a recipe for it. That recipe
# does not depend on evaluations, so they are as small as possible.
LAPTOP: dict[str, Any] = {
    **nanogpt.SHAPE, "batch_size": nanogpt.BATCH_SIZE, "recipe": "fast", "positions": "rotary",
    "iters": 325, "eval_iters": 1,
}  # fmt: skip
CHECK_EVERY = 25  # iterations


@dataclass(frozen=True)
class Check:
    """The loss of the whole validation split, in nats, after some training."""

    iteration: int
    loss: float
    training_seconds: float


@dataclass(frozen=True)
class Program:
    """A program in training: its steps are `Evaluation`s or anything else."""

    name: str
    seed: int
    dtype: str  # of its matrix products
    threads: int
    iters: int
    model: LanguageModel  # that is scored
    weights: Callable[[], dict[str, torch.Tensor]]  # for it, at this moment
    steps: Iterator[object]


@dataclass(frozen=True)
class Attempt:
    """One training of one program, until the loss was reached, or it or the time ended."""

    name: str
    seed: int
    dtype: str
    threads: int
    reached: bool
    checks: list[Check]
    evaluation_seconds: float  # of these checks, and of the program's own evaluations

    @property
    def last(self) -> Check:
        """The check that ended it."""
        return self.checks[-1]

    def to_json(self) -> dict[str, Any]:
        """Return its figures, and all checks."""
        return {**asdict(self), **asdict(self.last)}


def measure_to_loss(
    config: TrainConfig,
    data: Dataset,
    target: float,
    device: torch.device,
    *,
    rounds: int = 1,
    seconds: float = 600.0,
    progress: Progress = silent,
) -> list[Attempt]:
    """Train both programs until a loss of at most `target`, in nats, in each round.

    `config`: drakegpt's settings. `seconds`: the most that one attempt may take. Raises
    `DivergedError` if drakegpt's loss is not finite.
    """
    attempts = []
    with restore_threads():
        for number in range(rounds):
            seeded = replace(config, seed=config.seed + number, patience=0)
            order = (_start_ours, _start_nanogpt)
            for start in order if number % 2 == 0 else reversed(order):
                program = start(seeded, data, device)
                attempts.append(train_until(program, target, seconds, data, device, progress))
    return attempts


def describe_settings(
    config: TrainConfig, target: float, *, rounds: int, seconds: float
) -> dict[str, Any]:
    """Describe how the measurement was made, so that it can be repeated."""
    return {
        "target": target,
        "data": config.data,
        "rounds": rounds,
        "seconds_at_most": seconds,
        "check_interval": CHECK_EVERY,
        "command": to_command(config),
        "nanogpt": nanogpt.describe_settings(),
    }


def compare_medians(attempts: Sequence[Attempt]) -> float | None:
    """Return how many times less training drakegpt took; `None` if not all reached the loss."""
    if not all(attempt.reached for attempt in attempts):
        return None
    ours, theirs = (
        statistics.median(a.last.training_seconds for a in attempts if a.name == name)
        for name in (OURS, NANOGPT)
    )
    return theirs / ours


def _start_ours(config: TrainConfig, data: Dataset, device: torch.device) -> Program:
    shape = config.model_settings(data.tokenizer.vocab_size)
    set_thread_count(shape)
    torch.manual_seed(config.seed)
    model = build_initial_model(shape, config.init).to(device)
    scored = copy.deepcopy(model)
    trainer = Trainer(config, model, *data.select_splits(tail=False), device)
    dtype = str(plan_execution(config, device).dtype).removeprefix("torch.")
    threads = torch.get_num_threads()
    return Program(OURS, config.seed, dtype, threads, config.iters, scored, trainer.weights,
                   trainer.reports())  # fmt: skip


def _start_nanogpt(config: TrainConfig, data: Dataset, device: torch.device) -> Program:
    """Build nanoGPT; of `config` it takes the seed."""
    torch.set_num_threads(threads := default_thread_count())
    model = nanogpt.build_nanogpt(data.tokenizer.vocab_size, device, config.seed)
    steps = nanogpt.train(model, data.split("train").long().to(device))
    scored = copy.deepcopy(model)
    return Program(NANOGPT, config.seed, "float32", threads, nanogpt.ITERS, scored,
                   model.state_dict, steps)  # fmt: skip


def train_until(
    program: Program,
    target: float,
    seconds: float,
    data: Dataset,
    device: torch.device,
    progress: Progress = silent,
) -> Attempt:
    """Train a program, and score it every few iterations, until the loss or an end is reached."""
    training, evaluating = Stopwatch(), Stopwatch()
    synchronize = torch.get_device_module(device).synchronize
    checks: list[Check] = []
    for done in range(1, program.iters + 1):
        _take_step(program.steps, training, evaluating)
        over = training.seconds + evaluating.seconds >= seconds or done == program.iters
        if done % CHECK_EVERY and not over:
            continue
        with training:
            synchronize()
        with evaluating:
            program.model.load_state_dict(program.weights())
            loss = score_validation_split(program.model, data, device).loss
        checks.append(Check(done, loss, training.seconds))
        progress(f"{program.name}: loss {loss:.3f}", done, program.iters)
        if loss <= target or over:
            break
    p = program
    return Attempt(p.name, p.seed, p.dtype, p.threads, loss <= target, checks, evaluating.seconds)


def _take_step(steps: Iterator[object], training: Stopwatch, evaluating: Stopwatch) -> None:
    """Take one step of training, and an evaluation that comes before it."""
    while True:
        with training:
            report = next(steps)
        if not isinstance(report, Evaluation):
            return
        training.seconds -= training.last
        evaluating.seconds += training.last
