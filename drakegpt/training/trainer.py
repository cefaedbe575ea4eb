"""The training loop, as a generator of reports.

A `Trainer` holds all that changes while a model learns. It knows neither
terminal nor disk: whoever iterates over `reports` shows them, and `run` writes
them down. Its `state_dict` is all that is needed to go on later as if nothing
had happened.
"""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from drakegpt.config import TrainConfig
from drakegpt.data.windows import (
    EpochWindows,
    Stream,
    TrainingWindows,
    random_windows,
    sequential_windows,
)
from drakegpt.errors import DivergedError
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import choose_batch_tokens, mean_loss, next_token_loss
from drakegpt.training.distributed import SINGLE_PROCESS, ProcessGroup
from drakegpt.training.flat_params import WorkingCopy
from drakegpt.training.optimizers import Optimizer
from drakegpt.training.schedules import Losses, learning_rate, weight_decay
from drakegpt.training.step_runner import Compiled, StepRunner, plan_execution, run_eagerly


def whole_validation(config: TrainConfig, tokens: int) -> bool:
    """Whether evaluations score the whole of what is not trained on, of so many tokens, once.

    They do where that takes no longer than random windows, and is exact besides.
    The original's recipe draws windows, whatever the split's length.
    """
    return config.recipe != "original" and tokens <= _tokens_drawn(config)


def tokens_evaluated(config: TrainConfig, tokens: int) -> int:
    """How many tokens an evaluation scores, where so many are not trained on."""
    drawn = _tokens_drawn(config)
    return drawn + (tokens if whole_validation(config, tokens) else drawn)


def _tokens_drawn(config: TrainConfig) -> int:
    return config.eval_iters * config.batch_size * config.context_length


@dataclass(frozen=True)
class Step:
    """One iteration is done. The loss, in nats, is that of its batch, before the update."""

    iteration: int
    loss: Tensor  # a number still on the device: reading it would make a GPU wait
    learning_rate: float


@dataclass(frozen=True)
class Evaluation:
    """Losses in nats after `iteration` steps, from random windows of both parts of the text.

    The one that is not learnt may be scored whole instead (`whole_validation`). It is
    the validation split, or the tail of the training split where that is held out.
    """

    iteration: int
    train_loss: float
    val_loss: float  # of what is not learnt
    learning_rate: float  # of the last step
    tokens_per_second: float  # of training steps alone
    seconds: float  # of training and evaluating, since the run began
    scored_on: str = "validation"  # what `val_loss` is of, as the setting `select_on`


class Trainer:
    """A model in training: the model, its optimizer, and how far they are."""

    def __init__(
        self,
        config: TrainConfig,
        model: LanguageModel,
        train_tokens: Tensor,
        val_tokens: Tensor,
        device: torch.device,
        world: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """`train_tokens` and `val_tokens`: (N,) of any integer type; `model` is on `device`.

        The latter are those that evaluations score, not always of the validation split.
        """
        self.config = config
        self.model = model
        self.device = device
        self.world = world
        self.plan = plan_execution(config, device, world.size)
        self.optimizer = Optimizer(config, model)
        self.iteration = 0
        self.evaluations: list[Evaluation] = []
        self.best: Evaluation | None = None  # the first with the lowest loss of what is not learnt
        self._losses = Losses(config.plateau_patience)
        self._last_rate = 0.0
        train_tokens = train_tokens.to(device)
        self._splits = {
            Stream.ESTIMATE_TRAIN: train_tokens,
            Stream.ESTIMATE_VAL: val_tokens.to(device),
        }
        windows = config.batch_size * config.grad_accumulation
        share = world.share(windows)
        drawn = EpochWindows if config.window_order == "epoch" else TrainingWindows
        self._windows = drawn(train_tokens, config.context_length, windows, config.seed, share)
        # Where each step finds its windows: memory that stays, so that a step can be recorded.
        shape = (share.stop - share.start, config.context_length)
        self._inputs = torch.zeros(shape, dtype=torch.long, device=device)
        self._targets = torch.zeros_like(self._inputs)
        self._copy = self._working_copy()
        self._computing = self._copy.model if self._copy else model
        self._forward = Compiled(self._computing) if self.plan.compiled else self._computing
        self._engine = StepRunner(self.plan.way, device)
        self._step_seconds = 0.0
        self._evaluation_seconds = 0.0

    def reports(self) -> Iterator[Step | Evaluation]:
        """Train to the end, reporting each step and each evaluation.

        The end is the last iteration, or earlier when patience runs out. Raises
        `DivergedError` when a loss is no longer a number.
        """
        self._computing.train()
        try:
            while True:
                if self._evaluation_due():
                    yield self.evaluate()
                if self.iteration >= self.config.iters or self.out_of_patience:
                    return
                yield self._step()
        finally:
            self._engine.forget()

    @property
    def out_of_patience(self) -> bool:
        """Whether the loss of what is not learnt has not fallen for `patience` evaluations."""
        return 0 < self.config.patience <= self._losses.since_lowest

    def state_dict(self) -> dict[str, Any]:
        """All but the weights: plain values and tensors, safe to load as data."""
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {
            "iteration": self.iteration,
            "evaluations": [asdict(evaluation) for evaluation in self.evaluations],
            "optimizer": self.optimizer.state_dict(),
            "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
            "learning_rate": self._last_rate,
            "seconds": (self._step_seconds, self._evaluation_seconds),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken; the weights must be the model's already.

        Raises `ValueError` if it is the state of another model or recipe.
        """
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration = state["iteration"]
        self.evaluations, self._losses = [], Losses(self.config.plateau_patience)
        for values in state["evaluations"]:
            self._take_note(Evaluation(**values))
        # Kept, for with other `iters` the steps before had another schedule; not in older states.
        before = learning_rate(self.config, self.iteration - 1, self._losses)
        self._last_rate = state.get("learning_rate", before)
        torch.set_rng_state(state["random"]["cpu"])
        if state["random"]["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
        self._step_seconds, self._evaluation_seconds = state["seconds"]

    def _step(self) -> Step:
        """Draw windows, compute their loss, go one step against its gradient."""
        started = time.perf_counter()
        rate = learning_rate(self.config, self.iteration, self._losses)
        self.optimizer.set_learning_rate(rate)
        self._follow_weight_decay()
        self.world.seed_rank(self.config.seed, self.iteration)
        inputs, targets = self._windows.at(self.iteration)
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        loss = self._engine(self._update)
        self.iteration, self._last_rate = self.iteration + 1, rate
        # Reading a loss waits for a GPU to finish, so there it is read before evaluations only.
        if self.device.type == "cpu" or self._evaluation_due():
            self._check_finite(loss.item())
        self._step_seconds += time.perf_counter() - started
        return Step(self.iteration, loss, rate)

    def _follow_weight_decay(self) -> None:
        """A number, unlike the learning rate, so a recorded step must be recorded anew."""
        decay = weight_decay(self.config, self.iteration)
        if decay != self.optimizer.weight_decay:
            self.optimizer.weight_decay = decay
            self._engine.forget()

    def _update(self) -> Tensor:
        """What an engine repeats: the loss of the windows drawn, and a step down its gradient."""
        loss = self._gradient()
        self.world.average(self.optimizer.weights.gradient, loss)
        if self.config.grad_clip:
            gradient = self.optimizer.weights.gradient
            gradient *= (self.config.grad_clip / (gradient.norm() + 1e-6)).clamp(max=1.0)
        self.optimizer.step()
        return loss

    def _gradient(self) -> Tensor:
        """Mean loss of the windows drawn, its gradient left in the optimizer's weights."""
        weights, rows = self._copy or self.optimizer.weights, self._rows_at_once()
        if self._copy:
            self._copy.refresh()
        losses: list[Tensor] = []
        for inputs, targets in zip(
            self._inputs.split(rows), self._targets.split(rows), strict=True
        ):
            with self._arithmetic():
                logits = self._forward(inputs)
            loss = next_token_loss(logits, targets)
            if len(inputs) < len(self._inputs):
                loss = loss * (len(inputs) / len(self._inputs))
            (weights.add_gradient if losses else weights.set_gradient)(loss)
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _rows_at_once(self) -> int:
        """Windows that go through the model together: a batch, or what suits a CPU's caches."""
        rows = -(-len(self._inputs) // self.config.grad_accumulation)
        if self.device.type != "cpu":
            return rows
        return min(rows, self._windows_at_once())

    def _windows_at_once(self) -> int:
        tokens = choose_batch_tokens(self.device, self.model.config)
        return max(1, tokens // self.config.context_length)

    def _working_copy(self) -> WorkingCopy | None:
        """The copy that computes in the model's stead, where the plan needs one.

        Weights of few bits are rounded from float32, so that they are those of the
        packed model: for them products alone are in bfloat16.
        """
        dtype = self.plan.dtype if self.config.bits == "full" else torch.float32
        if not self.plan.compiled and dtype == torch.float32:
            return None
        quick_norms = self.device.type == "cuda" and not self.plan.compiled
        return WorkingCopy(self.model, self.optimizer.weights, dtype, quick_norms=quick_norms)

    def _arithmetic(self) -> AbstractContextManager[object]:
        """The number format of matrix products where it is not that of the weights."""
        half = self.plan.dtype == torch.bfloat16 and self.config.bits != "full"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def _evaluation_due(self) -> bool:
        """After every `eval_interval` iterations and after the last, once each."""
        place = self.iteration
        done = bool(self.evaluations) and self.evaluations[-1].iteration == place
        at_end = place == self.config.iters
        return place > 0 and not done and (place % self.config.eval_interval == 0 or at_end)

    def evaluate(self) -> Evaluation:
        """Estimate the losses of both splits now, and add them to the evaluations."""
        started = time.perf_counter()
        if self._copy:
            self._copy.refresh()
        train_loss, val_loss = (self._estimate(stream) for stream in self._splits)
        self._check_finite(train_loss + val_loss)
        self._evaluation_seconds += time.perf_counter() - started
        windows = self.iteration * self.config.batch_size * self.config.grad_accumulation
        tokens = windows * self.config.context_length
        evaluation = Evaluation(
            iteration=self.iteration,
            train_loss=train_loss,
            val_loss=val_loss,
            learning_rate=self._last_rate,
            tokens_per_second=tokens / self._step_seconds,
            seconds=self._step_seconds + self._evaluation_seconds,
            scored_on=self.config.select_on,
        )
        self._take_note(evaluation)
        return evaluation

    def _take_note(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)
        if self._losses.add(evaluation.val_loss):
            self.best = evaluation

    def _estimate(self, stream: Stream) -> float:
        """Mean loss of a split, from this process's share of what is scored of it."""
        size, rank = self.world.size, self.world.rank
        batches = list(self._scored(stream))[rank::size]
        as_is = run_eagerly() if self.plan.compiled else nullcontext()
        with self._arithmetic(), as_is:
            loss = mean_loss(self._computing, batches, self.device) if batches else 0.0
        if size == 1:
            return loss
        tokens = sum(targets.numel() for _, targets in batches)
        weighted = torch.tensor([loss * tokens, tokens], device=self.device)
        self.world.average(weighted)
        return float(weighted[0] / weighted[1])

    def _scored(self, stream: Stream) -> Iterator[tuple[Tensor, Tensor]]:
        """The windows of a split that an evaluation scores, inputs and targets, many at once."""
        config, tokens = self.config, self._splits[stream]
        share = max(1, config.eval_iters * config.batch_size // self.world.size)
        at_once = min(self._windows_at_once(), share)
        if stream is Stream.ESTIMATE_VAL and whole_validation(config, len(tokens)):
            # Its first token is predicted too, from the last that was trained on.
            tokens = torch.cat([self._splits[Stream.ESTIMATE_TRAIN][-1:], tokens])
            return sequential_windows(tokens, config.context_length, at_once)
        windows = random_windows(
            tokens,
            config.context_length,
            config.eval_iters * config.batch_size,
            config.seed,
            stream,
            self.iteration,
        )
        return zip(*(part.split(at_once) for part in windows), strict=True)

    def _muon_remedy(self) -> str:
        muon = self.config.optimizer == "muon"
        return f"--muon-lr {self.config.muon_lr / 4:g} " if muon else ""

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss became {loss} at iteration {self.iteration}; training stopped there.",
                "The learning rate is too high for this model: "
                f"try --base-lr {self.config.base_lr / 4:g} --max-lr {self.config.max_lr / 4:g} "
                f"{self._muon_remedy()}"
                "or --grad-clip 1, under another --name.",
            )
