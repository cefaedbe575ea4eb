"""The training loop, as a generator of reports.

A `Trainer` holds all state of a training run. It knows neither terminal nor disk:
callers iterate over `reports` to show or store them. Its `state_dict` and the model's
are all that is needed to resume bit-exactly.
"""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from drakegpt.compute.stopwatch import Stopwatch
from drakegpt.config import TrainConfig
from drakegpt.data.windows import EpochWindows, TrainingWindows
from drakegpt.errors import DivergedError
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import choose_batch_tokens, next_token_loss
from drakegpt.training.distributed import SINGLE_PROCESS, ProcessGroup
from drakegpt.training.flat_params import AveragedWeights, FlatParameters, WorkingCopy
from drakegpt.training.loss_estimates import LossEstimator
from drakegpt.training.optimizers import Optimizer
from drakegpt.training.parallel_step import ParallelStep
from drakegpt.training.reports import Evaluation, Report, Step, WriteSample
from drakegpt.training.schedules import LossHistory, learning_rate, weight_decay_factor
from drakegpt.training.step_runner import CompiledModel, StepRunner, force_eager, plan_execution
from drakegpt.training.time_limit import ESTIMATES_PER_EVALUATION, Estimate, TimeLimit


class Trainer:
    """Trains a model: holds the model, its optimizer, and their progress.

    `config.iters` is the length of the run. With a `limit` it is estimated anew while it trains;
    what is in `estimates`, by iteration, is taken instead of a new estimate.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: LanguageModel,
        train_tokens: Tensor,
        val_tokens: Tensor,
        device: torch.device,
        group: ProcessGroup = SINGLE_PROCESS,
        *,
        replay: bool = True,
        write_sample: WriteSample | None = None,
    ) -> None:
        """`train_tokens` and `val_tokens`, the held-out split: (N,) of any integer dtype.

        `model` must be on `device`. Without `replay` no step is recorded and replayed,
        for comparison. `write_sample` must leave PyTorch's random generator alone.
        """
        self.config = config
        self.model = model
        self.device = device
        self.group = group
        plan = plan_execution(config, device, group.size)
        self.plan = plan if replay else replace(plan, mode="eager")
        self.optimizer = Optimizer(config, model)
        self.iteration = 0
        self.limit: TimeLimit | None = None
        self.estimates: dict[int, Estimate] = {}
        self._part_start = 0
        self.evaluations: list[Evaluation] = []
        self.best: Evaluation | None = None  # the first with the lowest `val_loss`
        self._losses = LossHistory(config.plateau_patience)
        self._last_rate = 0.0
        self._write_sample = write_sample
        train_tokens, val_tokens = train_tokens.to(device), val_tokens.to(device)
        self._estimator = LossEstimator(config, train_tokens, val_tokens, device, group)
        windows = config.batch_size * config.grad_accumulation
        shard = group.shard(windows)
        drawn = EpochWindows if config.window_order == "epoch" else TrainingWindows
        self._windows = drawn(train_tokens, config.context_length, windows, config.seed, shard)
        # Each step reads its windows from the same memory, so that it can be recorded.
        shape = (shard.stop - shard.start, config.context_length)
        self._inputs = torch.zeros(shape, dtype=torch.long, device=device)
        self._targets = torch.zeros_like(self._inputs)
        self._average = AveragedWeights(self.optimizer.weights, config.ema) if config.ema else None
        self._copy = self._make_working_copy()
        self._active_model = self._copy.model if self._copy else model
        self._forward = (
            CompiledModel(self._active_model) if self.plan.compiled else self._active_model
        )
        self._runner = StepRunner(self.plan.mode, device)
        self._parallel = self._divide_step() if self.plan.shares > 1 else None
        self._step_time, self._evaluation_time = Stopwatch(), Stopwatch()
        self.spent_before, self._resumed_at = 0.0, time.monotonic()

    def reports(self) -> Iterator[Report]:
        """Train to the last iteration or early stopping; yield steps, evaluations and estimates.

        Raises `DivergedError` if a loss is not finite.
        """
        self._active_model.train()
        if self.limit:
            self.limit.pass_iteration(self.iteration)
        try:
            while True:
                if self._is_estimate_due():
                    yield from self._update_length()
                if self._is_evaluation_due():
                    yield self.evaluate()
                if self.iteration >= self.config.iters or self.out_of_patience:
                    return
                with self._step_time:
                    step = self._step()
                yield step
        finally:
            self._reset_recorded()

    @property
    def spent_seconds(self) -> float:
        """The time since the trainer was made, saving included, and before it was restored."""
        return self.spent_before + time.monotonic() - self._resumed_at

    def take_estimate(self, estimate: Estimate) -> None:
        """Set the length of the run, from the current iteration on."""
        self.estimates[estimate.iteration] = estimate
        self.config = replace(self.config, iters=estimate.iters)
        self._part_start = estimate.start

    def _is_estimate_due(self) -> bool:
        """Whether the length is estimated anew, or an earlier estimate begins to count."""
        if not self.config.minutes or not 0 < self.iteration < self.config.iters:
            return False
        interval = max(1, self.config.eval_interval // ESTIMATES_PER_EVALUATION)
        return self.iteration % interval == 0

    def _update_length(self) -> Iterator[Estimate]:
        """Take the estimate that was made after this iteration, or make one and yield it first."""
        estimate = self.estimates.get(self.iteration)
        if self.limit:
            self.limit.pass_iteration(self.iteration)
        if not estimate and self.limit:
            iters = self.limit.estimate(self.iteration, self._seconds_per_scored_token())
            estimate = Estimate(self.iteration, iters, self._part_start)
            yield estimate
        if estimate:
            self.take_estimate(estimate)

    def _seconds_per_scored_token(self) -> float:
        """Return the time of scoring a token; before an evaluation, a third of training on it."""
        config = self.config
        if self.evaluations:
            tokens = len(self.evaluations) * self._estimator.evaluated_tokens
            return self._evaluation_time.seconds / tokens
        windows = self.iteration * config.batch_size * config.grad_accumulation
        return self._step_time.seconds / (windows * config.context_length) / 3

    def _reset_recorded(self) -> None:
        self._runner.reset()
        if self._parallel:
            self._parallel.reset()

    @property
    def out_of_patience(self) -> bool:
        """Whether `val_loss` has not reached a new minimum for `patience` evaluations."""
        return 0 < self.config.patience <= self._losses.since_lowest

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that are evaluated and kept: the model's, or their average."""
        if not self._average:
            return self.model.state_dict()
        with self._average.swapped_in():
            return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state except `weights()`: plain values and tensors, safe to load."""
        trained = (
            {"trained_weights": self.optimizer.weights.values.clone()} if self._average else {}
        )
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return trained | {
            "iteration": self.iteration,
            "evaluations": [asdict(evaluation) for evaluation in self.evaluations],
            "optimizer": self.optimizer.state_dict(),
            "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
            "learning_rate": self._last_rate,
            "seconds": (self._step_time.seconds, self._evaluation_time.seconds),
            "spent": self.spent_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; load `weights()` into the model before.

        `estimates` must be known, too.

        Raises `ValueError` if it is the state of another model or recipe.
        """
        self.optimizer.load_state_dict(state["optimizer"])
        if self._average:
            self._average.average.copy_(self.optimizer.weights.values)
            self.optimizer.weights.values.copy_(state["trained_weights"])
        self.iteration = state["iteration"]
        if begun := [each for each in self.estimates if each <= self.iteration]:
            self.take_estimate(self.estimates[max(begun)])
        self.evaluations, self._losses = [], LossHistory(self.config.plateau_patience)
        for values in state["evaluations"]:
            self._record_evaluation(Evaluation(**values))
        # Stored, for a resumed run with other `iters` has another schedule; not in older states.
        before = learning_rate(self.config, self.iteration - 1, self._losses)
        self._last_rate = state.get("learning_rate", before)
        torch.set_rng_state(state["random"]["cpu"])
        if state["random"]["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
        self._step_time.seconds, self._evaluation_time.seconds = state["seconds"]
        self.spent_before, self._resumed_at = (
            state.get("spent", sum(state["seconds"])),
            time.monotonic(),
        )

    def _step(self) -> Step:
        """Draw windows, compute their loss and its gradient, update the weights."""
        rate = learning_rate(self.config, self.iteration, self._losses, self._part_start)
        self.optimizer.set_learning_rate(rate)
        self._update_weight_decay()
        self.group.seed_rank(self.config.seed, self.iteration)
        inputs, targets = self._windows.at(self.iteration)
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        loss = self._parallel() if self._parallel else self._runner(self._update)
        self.iteration, self._last_rate = self.iteration + 1, rate
        # Reading a loss waits for a GPU, so there it is read only before evaluations.
        if self.device.type == "cpu" or self._is_evaluation_due():
            self._check_finite(loss.item())
        return Step(self.iteration, loss, rate)

    def _update_weight_decay(self) -> None:
        """Set the weight decay: unlike the rate no tensor, so the step is recorded again."""
        factor = weight_decay_factor(self.config, self.iteration)
        if factor != self.optimizer.decay_factor:
            self.optimizer.decay_factor = factor
            self._reset_recorded()

    def _update(self) -> Tensor:
        """Compute the loss and gradient of the current windows, and take an optimizer step."""
        loss = self._gradient()
        self.group.average(self.optimizer.weights.gradient, loss)
        self.optimizer.weights.clip_gradient(self.config.grad_clip)
        self.optimizer.step()
        if self._average:
            self._average.update()
        return loss

    def _divide_step(self) -> ParallelStep:
        """Divide what `_update` does among threads."""
        shares, optimizer = self.plan.shares, self.optimizer
        weights = self._copy or optimizer.weights
        parts = [weights, *(weights.with_own_gradient() for _ in range(shares - 1))]
        windows = (tokens.tensor_split(shares) for tokens in (self._inputs, self._targets))
        divided = zip(parts, *windows, strict=True)

        def add_gradients() -> None:
            for part in parts[1:]:
                optimizer.weights.gradient.add_(part.gradient)
            optimizer.weights.clip_gradient(self.config.grad_clip)

        return ParallelStep(
            self.plan,
            gradients=[partial(self._share_gradient, *share) for share in divided],
            updates=[partial(optimizer.step, share, shares) for share in range(shares)],
            before=self._copy.refresh if self._copy else None,
            between=add_gradients,
            after=self._average.update if self._average else None,
        )

    def _gradient(self) -> Tensor:
        """Compute the mean loss of the current windows, and its gradient in the flat weights."""
        if self._copy:
            self._copy.refresh()
        weights = self._copy or self.optimizer.weights
        return self._share_gradient(weights, self._inputs, self._targets)

    def _share_gradient(
        self, weights: FlatParameters | WorkingCopy, inputs: Tensor, targets: Tensor
    ) -> Tensor:
        """Compute a share of the loss, that of some windows, and its gradient in `weights`."""
        rows = -(-self._count_rows_at_once() // self.plan.shares)
        losses: list[Tensor] = []
        for some, their_targets in zip(inputs.split(rows), targets.split(rows), strict=True):
            with self._autocast():
                logits = self._forward(some)
            loss = next_token_loss(logits, their_targets)
            if len(some) < len(self._inputs):
                loss = loss * (len(some) / len(self._inputs))
            (weights.add_gradient if losses else weights.set_gradient)(loss)
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _count_rows_at_once(self) -> int:
        """Return how many windows go through the model at once: a CPU's caches limit them."""
        rows = -(-len(self._inputs) // self.config.grad_accumulation)
        if self.device.type != "cpu":
            return rows
        tokens = choose_batch_tokens(self.device, self.model.config)
        return min(rows, max(1, tokens // self.config.context_length))

    def _make_working_copy(self) -> WorkingCopy | None:
        """Make the copy of the model that computes, if the plan needs one.

        Low-bit weights are quantized from float32, so that they equal those of the
        packed model: for them only the products are in bfloat16.
        """
        dtype = self.plan.dtype if self.config.bits == "full" else torch.float32
        if not self.plan.compiled and dtype == torch.float32:
            return None
        triton_norms = self.device.type == "cuda" and not self.plan.compiled
        return WorkingCopy(self.model, self.optimizer.weights, dtype, triton_norms=triton_norms)

    def _autocast(self) -> AbstractContextManager[object]:
        """Return the autocast context of low-bit models, whose products may be in bfloat16."""
        half = self.plan.dtype == torch.bfloat16 and self.config.bits != "full"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def _is_evaluation_due(self) -> bool:
        """Whether to evaluate now: every `eval_interval` iterations and at the end, once each."""
        done = bool(self.evaluations) and self.evaluations[-1].iteration == self.iteration
        at_end = self.iteration == self.config.iters
        due = self.iteration % self.config.eval_interval == 0 or at_end
        return self.iteration > 0 and not done and due

    def evaluate(self) -> Evaluation:
        """Estimate the losses of both splits now, and add them to the evaluations."""
        averaged = self._average.swapped_in() if self._average else nullcontext()
        with self._evaluation_time, averaged:
            if self._copy:
                self._copy.refresh()
            eager = force_eager() if self.plan.compiled else nullcontext()
            with self._autocast(), eager:
                train_loss, val_loss = self._estimator.estimate(self._active_model, self.iteration)
            self._check_finite(train_loss + val_loss)
            sample = self._make_sample()
        windows = self.iteration * self.config.batch_size * self.config.grad_accumulation
        tokens = windows * self.config.context_length
        evaluation = Evaluation(
            iteration=self.iteration,
            train_loss=train_loss,
            val_loss=val_loss,
            learning_rate=self._last_rate,
            tokens_per_second=tokens / self._step_time.seconds,
            seconds=self._step_time.seconds + self._evaluation_time.seconds,
            scored_on=self.config.select_on,
            sample=sample,
        )
        self._record_evaluation(evaluation)
        return evaluation

    def _make_sample(self) -> str:
        """Let the weights that are evaluated write a text, if that is asked for and due."""
        if not self._write_sample:
            return ""
        last = self.iteration >= self.config.iters
        return self._write_sample(self.model, self.iteration, self.evaluations, last=last)

    def _record_evaluation(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)
        if self._losses.add(evaluation.val_loss):
            self.best = evaluation

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss became {loss} at iteration {self.iteration}; training stopped there.",
                suggest_lower_rates(self.config),
            )


def suggest_lower_rates(config: TrainConfig) -> str:
    """Return what to do about a run that diverged: the rates that its optimizer uses, lowered."""
    rates = f"--lr {config.max_lr / 4:g}"
    if config.optimizer == "muon":
        rates += f" --muon-lr {config.muon_lr / 4:g}"
    clip = "" if 0 < config.grad_clip <= 1 else ", or --grad-clip 1"
    return (
        f"The learning rate is too high for this model: train again with {rates}{clip}. "
        "Resumed, it would diverge again."
    )
