"""Checks of whole training steps: loss, gradient, update, number format and resuming.

Steps are executed as in a run: the first ones eagerly, later ones recorded and replayed or
as a CUDA graph, shared among threads where the model is wide. Before each step the
weights go to the textbook, in float64 on the CPU, which computes loss and gradient of the
same windows; so errors do not add up from step to step, and bounds can be those of
rounding.
"""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drakegpt import files
from drakegpt.bench.doctor.arithmetic import (
    advise,
    has_bfloat16,
    keep_random_state,
    measure_error,
)
from drakegpt.bench.doctor.checks import Finding, format_error, is_worse
from drakegpt.bench.doctor.textbook import Textbook, has_textbook
from drakegpt.compute.device import set_thread_count
from drakegpt.config import TrainConfig, resolve
from drakegpt.data.windows import TrainingWindows
from drakegpt.models.layers import LanguageModel
from drakegpt.models.registry import build_model
from drakegpt.runs.checkpoint import load_weights, save_checkpoint
from drakegpt.training.optimizers import BETA1, EPSILON
from drakegpt.training.reports import Report, Step
from drakegpt.training.step_runner import WARM_UP_STEPS
from drakegpt.training.trainer import Trainer

VOCAB_SIZE = 65  # characters of tiny Shakespeare
TOKENS, SEED = 4096, 1
# Settings of the steps: the default size, which is recorded; a wide model, whose products come
# from another library and whose windows are shared among threads; and one in bfloat16, small
# because a CPU without instructions for it is slow.
DEFAULT: dict[str, Any] = {}
WIDE = {
    "context_length": 64, "embedding_dim": 128, "num_heads": 4, "num_layers": 1, "batch_size": 8,
}  # fmt: skip
SHAPES = (DEFAULT, WIDE)
SHAPE_IN_BFLOAT16 = {
    "context_length": 16, "embedding_dim": 96, "num_heads": 4, "num_layers": 2, "batch_size": 8,
}  # fmt: skip
COMMON = {
    "schedule": "constant", "max_lr": 3e-3, "base_lr": 3e-3, "iters": 1000, "eval_interval": 1000,
    "eval_iters": 1, "compile": False, "seed": SEED,
}  # fmt: skip
# On a GPU sums have no fixed order, so a resumed run is the same up to rounding.
RESUMED_BOUND = 1e-3


@dataclass(frozen=True)
class _Bounds:
    """How far a step in one number format may be from the textbook, relative to it.

    `least_share`: of the whole gradient; the error of a parameter's gradient that is
    smaller is relative to that.
    """

    dtype: torch.dtype
    loss: float
    gradient: float
    update: float
    least_share: float


# float32 rounds by 2**-24 = 6e-8 of a number. A loss is a mean over many tokens. A gradient has
# gone through some ten layers, and sums over up to 512 tokens, which multiplies the error by
# sqrt(10 * 512) = 70 or so. An update is added to a weight, whose rounding is up to 2e-5 of it.
FLOAT32 = _Bounds(torch.float32, 1e-5, 1e-4, 1e-3, least_share=1e-2)
# bfloat16 rounds by 2**-9 of a number. Some 40 roundings in a row, through two or three layers
# forth and back, make the root of 40 times that, 1.2 %; the bound of the gradient is four times
# as much. The weights are rounded before, for the textbook too; updates are in float32.
BFLOAT16 = _Bounds(torch.bfloat16, 5e-3, 0.05, 1e-3, least_share=1.0)


def choose_config(model: str, **settings: Any) -> TrainConfig:
    """Return the settings of a check's training: the default size, but for `settings`."""
    given = COMMON | {"dropout": 0.0, "dtype": "float32"} | settings
    return resolve(model, "default", "", given)


def draw_tokens() -> Tensor:
    """Draw the text of the checks: (N,), uint8, on the CPU."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(VOCAB_SIZE, (TOKENS,), generator=generator).to(torch.uint8)


def build_checked_model(config: TrainConfig, seed: int = SEED) -> LanguageModel:
    """Build a model on the CPU, with gains and biases that are not all ones and zeros."""
    torch.manual_seed(seed)
    model = build_model(config.model_settings(VOCAB_SIZE))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return model


def build_trainer(config: TrainConfig, device: torch.device, seed: int = SEED) -> Trainer:
    """Build a trainer as a run has it."""
    set_thread_count(config.model_settings(VOCAB_SIZE))
    model, tokens = build_checked_model(config, seed).to(device), draw_tokens()
    return Trainer(config, model, tokens, tokens, device)


def check_step(model: str, device: torch.device) -> Finding:
    """Compare the first steps of a model, of two shapes, with the textbook's."""
    if not has_textbook(model):
        return Finding("no textbook code of it", result="not tested")
    finding = _compare([choose_config(model, **shape) for shape in SHAPES], device, FLOAT32)
    error = format_error(finding.measured["gradient"])
    return finding if finding.problem else replace(finding, figure=f"gradient off by {error}")


def check_bfloat16(model: str, device: torch.device) -> Finding:
    """Compare steps in bfloat16 with the textbook's, from the same rounded weights."""
    if not has_textbook(model):
        return Finding("no textbook code of it", result="not tested")
    if not has_bfloat16(device):
        return Finding("no bfloat16 here", result="not tested")
    config = choose_config(model, **SHAPE_IN_BFLOAT16, dtype="bfloat16")
    finding = _compare([config], device, BFLOAT16)
    if finding.problem:
        return replace(finding, fix=f"Train with --dtype float32. {finding.fix}")
    return replace(finding, figure=f"in bfloat16 by {finding.measured['gradient']:.2%}")


def check_resuming(model: str, device: torch.device) -> Finding:
    """Save a checkpoint after two steps, and take two more with and without loading it."""
    config = choose_config(model, dropout=0.2)
    with keep_random_state(device):
        weights, expected = _resume(config, device)
    error = measure_error(weights, expected.double())
    measured = {"error": error, "bound": 0.0 if device.type == "cpu" else RESUMED_BOUND}
    if torch.equal(weights, expected):
        return Finding("resumed alike", measured)
    if device.type != "cpu" and error <= RESUMED_BOUND:
        return Finding(f"resumed within {format_error(error)}", measured)
    problem = (
        "after two steps, a training that was saved and resumed has other weights than one that "
        f"went on: they differ by {format_error(error)}."
    )
    return Finding("resumed otherwise", measured, "failed", problem, advise(device))


def _resume(config: TrainConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the weights after four steps: saved and resumed in between, and not."""
    with files.temporary_folder(Path(tempfile.gettempdir())) as folder:
        trainer = build_trainer(config, device)
        reports = trainer.reports()
        _take_steps(reports, 2)
        saved = save_checkpoint(folder, 2, trainer.weights(), trainer.state_dict(), {})
        _take_steps(reports, 2)
        resumed = build_trainer(config, device, seed=SEED + 1)  # its weights are overwritten
        resumed.model.load_state_dict(load_weights(saved.weights)[0])
        resumed.load_state_dict(saved.state())
        _take_steps(resumed.reports(), 2)
    weights, expected = (each.optimizer.weights.values.cpu() for each in (resumed, trainer))
    return weights, expected


def _compare(configs: list[TrainConfig], device: torch.device, bounds: _Bounds) -> Finding:
    """Compare the first steps of trainings with the textbook's; the first that is wrong counts."""
    worst = dict.fromkeys(("loss", "gradient", "update"), 0.0)
    limits = {f"{name}_bound": getattr(bounds, name) for name in worst}
    for config in configs:
        for number, (errors, place) in enumerate(_measure_steps(config, device, bounds), 1):
            worst = {name: max(worst[name], error) for name, error in errors.items()}
            wrong = [name for name in errors if not errors[name] <= getattr(bounds, name)]
            if wrong:
                problem = _describe_errors(errors, wrong, place, bounds, config, number)
                figure = f"{wrong[0]} off by {format_error(errors[wrong[0]])}"
                return Finding(figure, errors | limits, "failed", problem, advise(device))
    return Finding("", worst | limits)


def _describe_errors(
    errors: dict[str, float],
    wrong: list[str],
    place: str,
    bounds: _Bounds,
    config: TrainConfig,
    number: int,
) -> str:
    """Say in a sentence what is wrong with a step, and which step it was."""
    parts = [
        f"the {name}{f' (of {place})' if name == 'gradient' else ''} is off by "
        f"{format_error(errors[name])}, where rounding explains "
        f"{format_error(getattr(bounds, name))}"
        for name in wrong
    ]
    return (
        f"in training step {number}, in {config.dtype}, with {config.batch_size} windows of "
        f"{config.context_length} tokens and width {config.embedding_dim}, {', and '.join(parts)}."
    )


def _measure_steps(
    config: TrainConfig, device: torch.device, bounds: _Bounds
) -> Iterator[tuple[dict[str, float], str]]:
    """Take steps until one is recorded and replayed; yield how far each is from the textbook.

    That is relative, of loss, gradient and update; and the parameter whose gradient is worst.
    """
    with keep_random_state(device):
        yield from _compare_steps(build_trainer(config, device), bounds)


def _compare_steps(trainer: Trainer, bounds: _Bounds) -> Iterator[tuple[dict[str, float], str]]:
    """Do what `_measure_steps` says, with a trainer."""
    config = trainer.config
    textbook, update = Textbook(trainer.model.config), _TextbookUpdate(trainer)
    windows = TrainingWindows(draw_tokens(), config.context_length, config.batch_size, config.seed)
    reports = trainer.reports()
    for number in range(WARM_UP_STEPS.get(trainer.plan.mode, 0) + 2):
        weights = trainer.model.state_dict()
        textbook.load({name: tensor.to(bounds.dtype) for name, tensor in weights.items()})
        update.begin()
        (step,) = _take_steps(reports, 1)
        gradients = _get_gradients(trainer)
        loss, exact = textbook.compute_gradients(*windows.at(number), list(gradients))
        error, place = _compare_gradients(gradients, exact, bounds)
        errors = {"loss": abs(step.loss.item() - loss) / loss, "gradient": error}
        yield errors | {"update": update.measure_error(step.learning_rate)}, place


class _TextbookUpdate:
    """AdamW in float64 as Loshchilov and Hutter 2019 write it, algorithm 2, on all weights.

    It goes by the gradient of the trainer, so that it checks the update alone.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._mean, self._square = (torch.zeros_like(self._read()) for _ in range(2))
        self._steps = 0

    def begin(self) -> None:
        """Keep the weights before a step."""
        self._before = self._read()

    def measure_error(self, rate: float) -> float:
        """Return the error of the step that was taken, relative to how far weights moved."""
        config, self._steps = self._trainer.config, self._steps + 1
        gradient = self._trainer.optimizer.weights.gradient.cpu().double()
        self._mean.lerp_(gradient, 1 - BETA1)
        self._square.lerp_(gradient.square(), 1 - config.adam_beta2)
        mean = self._mean / (1 - BETA1**self._steps)
        square = self._square / (1 - config.adam_beta2**self._steps)
        decay = rate * config.weight_decay * self._trainer.optimizer.decay_factor
        move = -rate * mean / (square.sqrt() + EPSILON) - decay * self._before
        return float((self._read() - self._before - move).norm() / move.norm())

    def _read(self) -> Tensor:
        return self._trainer.optimizer.weights.values.detach().cpu().double()


def _get_gradients(trainer: Trainer) -> dict[str, Tensor]:
    """Return the gradient of the last step, by parameter, on the CPU."""
    weights = trainer.optimizer.weights
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    parts = weights.gradient.cpu().split([parameter.numel() for parameter in weights.parameters])
    return {
        names[id(parameter)]: part.view(parameter.shape)
        for parameter, part in zip(weights.parameters, parts, strict=True)
    }


def _compare_gradients(
    gradients: dict[str, Tensor], exact: dict[str, Tensor], bounds: _Bounds
) -> tuple[float, str]:
    """Return the largest relative error of a parameter's gradient, and the parameter.

    Where it is nearly 0, the error is relative to a share of the whole gradient.
    """
    whole = math.sqrt(sum(float(gradient.square().sum()) for gradient in exact.values()))
    worst, place = 0.0, ""
    for name, expected in exact.items():
        length = max(float(expected.norm()), bounds.least_share * whole)
        error = float((gradients[name].double() - expected).norm()) / length
        if is_worse(error, worst):
            worst, place = error, name
    return worst, place


def _take_steps(reports: Iterator[Report], count: int) -> list[Step]:
    """Take steps of a trainer that neither evaluates nor ends meanwhile."""
    return [report for report in islice(reports, count) if isinstance(report, Step)]
