"""The forms of TransformerLM that `compare --bits` sets side by side, and the runs they take.

A form is how a model was trained and what was done to it afterwards.
Not here: measuring them, which is in `few_bits`.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from drakegpt.config import ModelConfig, TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.evaluation.selection import find_finished, runs_on
from drakegpt.models.build import build_model, without_weights
from drakegpt.models.layers import LanguageModel
from drakegpt.models.load import load_model
from drakegpt.models.packed import PackedBits, packed_skeleton_, quantized_after_training_, sizes
from drakegpt.models.size import total_parameters
from drakegpt.training.checkpoint import load_weights
from drakegpt.training.run import Run
from drakegpt.training.start import resolve_run

MODEL = "TransformerLM"


@dataclass(frozen=True)
class Form:
    """One row of the table."""

    name: str
    trained: str = "full"  # which of `TRAINED` it is
    rounded: PackedBits | None = None  # to so many bits, after training
    dtype: torch.dtype = torch.float32


FORMS = (
    Form("float32"),
    Form("bfloat16", dtype=torch.bfloat16),
    Form("8 bits, rounded after training", rounded="8"),
    Form("1.58 bits, rounded after training", rounded="1.58"),
    Form("1 bit, rounded after training", rounded="1"),
    Form("1.58 bits", "1.58"),
    Form("1 bit", "1"),
    Form("1.58 bits, begun from float32", "from full"),
    Form("1.58 bits, twice as wide", "wide"),
    Form("float32, in as many bytes", "small"),
)
TRAINED = tuple(dict.fromkeys(form.trained for form in FORMS))


def plan(given: Mapping[str, Any], size: str, data: Dataset) -> dict[str, TrainConfig]:
    """The settings of each of `TRAINED`; with `given` over the `fast` recipe of each.

    But for "from full": which run that begins with, `find_runs` knows.
    """
    common = {"recipe": "fast", **given}

    def resolved(**changes: Any) -> TrainConfig:
        return resolve_run(MODEL, size, data, common, changes)

    base, few = resolved(), resolved(bits="1.58")
    vocab_size = data.tokenizer.vocab_size
    return {
        "full": base,
        "1.58": few,
        "1": resolved(bits="1"),
        "wide": resolved(bits="1.58", embedding_dim=2 * base.embedding_dim),
        "small": resolved(embedding_dim=as_small_as(few.model_settings(vocab_size))),
    }


def as_small_as(few: ModelConfig) -> int:
    """The width at which a model in float32 has about as many bytes as `few` when packed."""
    one, two = (_packed_bytes(replace(few, num_layers=depth)) for depth in (1, 2))
    goal = one + (few.num_layers - 1) * (two - one)
    full = replace(few, bits="full")

    def stored(width: int) -> int:
        return 4 * total_parameters(replace(full, embedding_dim=width))

    widths = range(few.num_heads, few.embedding_dim + 1, few.num_heads)
    first = bisect_left(widths, goal, key=stored)  # as large, or larger
    return min(widths[max(0, first - 1) : first + 1], key=lambda width: abs(stored(width) - goal))


def _packed_bytes(few: ModelConfig) -> int:
    """The bytes of the model's file when it is packed."""
    with without_weights():
        model = build_model(replace(few, bits="full"))
        packed = sizes(packed_skeleton_(model, few.bits, normed=True))  # type: ignore[arg-type]
    return packed.packed + packed.remainder


def find_runs(given: Mapping[str, Any], size: str, data: Dataset) -> dict[str, Run | TrainConfig]:
    """For each of `TRAINED` its finished run, or the settings to train it with.

    What begins from full precision comes last, and only once that is trained.
    """
    runs = runs_on(data)  # read once: each is a folder of files
    plans = plan(given, size, data)
    fulls = find_finished(runs, plans["full"])
    beginnings = [replace(plans["1.58"], init_from=full.name) for full in fulls]
    begun = [run for config in beginnings for run in find_finished(runs, config)]
    found: dict[str, Run | TrainConfig] = {
        name: next(iter(find_finished(runs, config)), config) for name, config in plans.items()
    }
    if fulls:
        found["from full"] = next(iter(begun), beginnings[0])
    return found


def form_of(run: Run, form: Form) -> LanguageModel:
    """The model of `run` in this form, on the CPU."""
    if form.rounded is None and form.dtype == torch.float32:
        return run.load_model(torch.device("cpu"))
    weights, _ = load_weights(run.last_checkpoint().weights)
    model = load_model(run.model_config, weights).to(form.dtype)
    if form.rounded:
        quantized_after_training_(model, form.rounded)
    return model
