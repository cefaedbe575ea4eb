"""Compare low-bit variants of TransformerLM: loss, size, speed and memory of ten variants.

A variant is a way to train a model and a way to convert it afterwards. Losses are exact,
over the whole validation split, for all seeds; bytes are counted; memory and speed are
measured on the first seed's model. Training time is the measured time of a step times
the number of steps.

Not here: training missing runs (`experiment`), and the measurements (`low_bit_costs`).
"""

import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from drakegpt.compute.device import set_thread_count
from drakegpt.config import ModelConfig, TrainConfig
from drakegpt.config.schema import PackedBits
from drakegpt.data.dataset import Dataset
from drakegpt.errors import UsageError
from drakegpt.evaluation.noise import Difference, compare_losses, find_lowest
from drakegpt.evaluation.score import Score
from drakegpt.experiments.experiment import Experiment
from drakegpt.experiments.low_bit_costs import (
    BATCHES,
    measure_storage,
    time_generation,
    time_training_steps,
)
from drakegpt.models.layers import LanguageModel
from drakegpt.models.load import load_model
from drakegpt.models.packed_linear import (
    Packing,
    count_bytes,
    prepare_packed_,
    quantize_after_training_,
)
from drakegpt.models.registry import build_model, without_weights
from drakegpt.models.size import count_total_parameters
from drakegpt.progress import Progress, silent
from drakegpt.runs.checkpoint import load_weights
from drakegpt.runs.run import Run
from drakegpt.runs.scores import score_and_count, score_run
from drakegpt.runs.start import resolve_run

MODEL = "TransformerLM"


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    trained: str = "full"  # one of `TRAINED`
    rounded: PackedBits | None = None  # the bits it is rounded to after training
    dtype: torch.dtype = torch.float32


VARIANTS = (
    Variant("float32"),
    Variant("bfloat16", dtype=torch.bfloat16),
    Variant("8 bits, rounded after training", rounded="8"),
    Variant("1.58 bits, rounded after training", rounded="1.58"),
    Variant("1 bit, rounded after training", rounded="1"),
    Variant("1.58 bits", "1.58"),
    Variant("1 bit", "1"),
    Variant("1.58 bits, initialized from float32", "from full"),
    Variant("1.58 bits, twice as wide", "wide"),
    Variant("float32, same size in bytes", "small"),
)
TRAINED = tuple(dict.fromkeys(variant.trained for variant in VARIANTS))


def plan(given: Mapping[str, Any], size: str, data: Dataset, seeds: Sequence[int]) -> Experiment:
    """Plan the experiment with the variants `TRAINED`; `given` changes the `fast` recipe of all.

    Raises `UsageError` for a length in minutes.
    """
    if given.get("minutes"):
        raise UsageError(
            "minutes would give each variant a different number of iterations.",
            "Give --iters instead.",
        )
    common = {"recipe": "fast", **given}

    def resolved(**changes: Any) -> TrainConfig:
        # Low-bit weights are trained in float32 on a CPU, and so are the others here.
        config = resolve_run(MODEL, size, data, common, changes)
        return replace(config, dtype=given.get("dtype") or "auto")

    # Only the number of bits is to differ: dropout is the same for all.
    base = resolved()
    common = common | {"dropout": base.dropout}
    ternary = resolved(bits="1.58")
    small_width = find_width_of_equal_bytes(ternary.model_settings(data.tokenizer.vocab_size))
    variants = {
        "full": base,
        "1.58": ternary,
        "1": resolved(bits="1"),
        "from full": ternary,
        "wide": resolved(bits="1.58", embedding_dim=2 * base.embedding_dim),
        "small": resolved(embedding_dim=small_width),
    }
    return Experiment(variants, seeds, {"from full": "full"})


def find_width_of_equal_bytes(low_bit: ModelConfig) -> int:
    """Find the width of a float32 model with about as many bytes as `low_bit` has packed."""
    one, two = (_count_packed_bytes(replace(low_bit, num_layers=depth)) for depth in (1, 2))
    goal = one + (low_bit.num_layers - 1) * (two - one)
    full = replace(low_bit, bits="full")

    def count_float_bytes(width: int) -> int:
        return 4 * count_total_parameters(replace(full, embedding_dim=width))

    widths = range(low_bit.num_heads, low_bit.embedding_dim + 1, low_bit.num_heads)
    first = bisect_left(widths, goal, key=count_float_bytes)  # the first that is at least as large
    nearest = widths[max(0, first - 1) : first + 1]
    return min(nearest, key=lambda width: abs(count_float_bytes(width) - goal))


def _count_packed_bytes(low_bit: ModelConfig) -> int:
    """Count the bytes of the model's weights when packed."""
    with without_weights():
        model = build_model(replace(low_bit, bits="full"))
        packed = count_bytes(prepare_packed_(model, low_bit.bits, normed=True))  # type: ignore[arg-type]
    return packed.packed + packed.remainder


def build_variant(run: Run, variant: Variant) -> LanguageModel:
    """Load the model of a run and convert it to a variant, on the CPU."""
    if variant.rounded is None and variant.dtype == torch.float32:
        return run.load_model(torch.device("cpu"))
    weights, _ = load_weights(run.last_checkpoint().weights)
    model = load_model(run.model_config, weights).to(variant.dtype)
    if variant.rounded:
        quantize_after_training_(model, variant.rounded)
    return model


@dataclass(frozen=True, kw_only=True)
class LowBitRow:
    """The figures of one variant. Losses in nats per token over the whole validation split."""

    name: str
    runs: tuple[str, ...]  # one for each seed
    embedding_dim: int
    val_losses: tuple[float, ...]
    bits_per_character: float
    difference: float  # of the mean loss to that of the first row
    noise: float  # of that difference
    paired: bool  # whether the noise is that of differences paired by seed
    file_bytes: int
    packed_bytes: int
    remainder_bytes: int
    resident_bytes: int
    peak_memory: int | None  # bytes of a process that loads the weights and generates
    tokens_per_second: dict[int, float]  # for each of `BATCHES`
    speedup: dict[int, float]  # over the first row
    training_seconds: float  # of all its steps, with those of the run that it starts from

    @property
    def val_loss(self) -> float:
        """The mean over all seeds."""
        return statistics.fmean(self.val_losses)

    @property
    def spread(self) -> float | None:
        """The sample standard deviation over seeds; `None` for a single one."""
        return statistics.stdev(self.val_losses) if len(self.val_losses) > 1 else None

    @property
    def below_first(self) -> Difference:
        """The decrease of the mean loss from the first row, with its noise."""
        counts = (len(self.val_losses), len(self.val_losses))
        return Difference(-self.difference, self.noise, counts, self.paired)


def measure(
    data: Dataset,
    runs: Sequence[Mapping[str, Run]],
    device: torch.device,
    progress: Progress = silent,
) -> list[LowBitRow]:
    """Measure all variants that can be made of `runs`: for each seed, the run of each `TRAINED`."""
    variants = [v for v in VARIANTS if all(v.trained in of_seed for of_seed in runs)]
    first = variants[0].name
    models = {v.name: build_variant(runs[0][v.trained], v).to(device) for v in variants}
    scores = _score_variants(variants, runs, data, device, progress)
    prompt = data.split("val")[: models[first].config.context_length].tolist()
    times = time_generation(models, prompt, device, progress)
    steps = time_training_steps(runs[0], data, device, progress)
    rows: list[LowBitRow] = []
    for done, variant in enumerate(variants):
        name = variant.name
        progress(f"memory: {name}", done, len(variants))
        of_variant = [of_seed[variant.trained] for of_seed in runs]
        packing = _choose_packing(variant, of_variant[0])
        file_bytes, peak = measure_storage(name, models[name], packing, variant.dtype, device)
        counted = count_bytes(models[name])
        below = _compare_to_first(variants[0], variant, scores)
        rows.append(
            LowBitRow(
                name=name,
                runs=tuple(run.name for run in of_variant),
                embedding_dim=models[name].config.embedding_dim,
                val_losses=tuple(score.loss for score in scores[name]),
                bits_per_character=statistics.fmean(s.bits_per_character for s in scores[name]),
                difference=0.0 - below.decrease,
                noise=below.noise,
                paired=below.paired,
                file_bytes=file_bytes,
                packed_bytes=counted.packed,
                remainder_bytes=counted.remainder,
                resident_bytes=counted.resident,
                peak_memory=peak,
                tokens_per_second={n: n / of_n.median(name) for n, of_n in times.items()},
                speedup={n: of_n.speedup(name, over=first) for n, of_n in times.items()},
                training_seconds=_sum_training_seconds(runs[0], variant, steps),
            )
        )
    return rows


def _score_variants(
    variants: Sequence[Variant],
    runs: Sequence[Mapping[str, Run]],
    data: Dataset,
    device: torch.device,
    progress: Progress,
) -> dict[str, list[Score]]:
    """Score each variant on the validation split; one score for each seed, by variant name."""
    scores = {}
    for done, variant in enumerate(variants):
        progress(f"scoring: {variant.name}", done, len(variants))
        scores[variant.name] = [
            _score(of_seed[variant.trained], variant, data, device) for of_seed in runs
        ]
    return scores


def _compare_to_first(
    first: Variant, variant: Variant, scores: Mapping[str, Sequence[Score]]
) -> Difference:
    first_losses, losses = (
        [score.loss for score in scores[name]] for name in (first.name, variant.name)
    )
    # Variants of the same runs share their seeds, initial weights and windows.
    return compare_losses(first_losses, losses, same_seeds=variant.trained == first.trained)


def _choose_packing(variant: Variant, run: Run) -> Packing | None:
    """Return how the weights of a variant are packed, if they are."""
    if run.config.bits != "full":
        return Packing(run.config.bits, trained=True)
    return Packing(variant.rounded, trained=False) if variant.rounded else None


def _score(run: Run, variant: Variant, data: Dataset, device: torch.device) -> Score:
    if variant.rounded is None and variant.dtype == torch.float32:
        return score_run(run, str(device)).val
    set_thread_count(run.model_config)
    return score_and_count(run, build_variant(run, variant).to(device), data, device)


def _sum_training_seconds(
    runs: Mapping[str, Run], variant: Variant, steps: Mapping[str, float]
) -> float:
    """Sum the seconds of a variant's steps, with those of the run that it starts from."""
    stages = ["full", variant.trained] if variant.trained == "from full" else [variant.trained]
    return sum(runs[stage].ending["iteration"] * steps[stage] for stage in stages)


def summarize(rows: Sequence[LowBitRow]) -> list[str]:
    """Summarize the rows in sentences, as far as the rows exist."""
    by_name = {row.name: row for row in rows}
    full, ternary = rows[0], by_name.get("1.58 bits")
    if full.name != VARIANTS[0].name or ternary is None:
        return []
    seeds = len(full.val_losses)
    sentences = [
        f"Trained with 1.58 bits, the loss is {_compare(ternary.below_first, 'float32')}; "
        + (f"means of {seeds} seeds each." if seeds > 1 else "a single seed each.")
    ]
    for name, condition in (
        ("1.58 bits, rounded after training", "Rounded to 1.58 bits after training"),
        ("8 bits, rounded after training", "Rounded to 8 bits after training"),
        ("1 bit", "Trained with 1 bit"),
        ("1.58 bits, twice as wide", "Twice as wide, with 1.58 bits"),
    ):
        if row := by_name.get(name):
            sentences.append(f"{condition}, it is {_compare(row.below_first, 'float32')}.")
    if small := by_name.get("float32, same size in bytes"):
        sentences.append(
            f"The 1.58-bit file is {full.file_bytes / ternary.file_bytes:.1f} times smaller; the "
            f"loss of a float32 model of that size (width {small.embedding_dim}) is "
            f"{_compare(compare_losses(ternary.val_losses, small.val_losses), '1.58 bits')}."
        )
    for batch, what in zip(BATCHES, ("one text", f"{BATCHES[1]} texts at a time"), strict=True):
        sentences.append(
            f"Generating {what}, 1.58 bits are {ternary.speedup[batch]:.2f} times as fast as "
            "float32."
        )
    longer = ternary.training_seconds / full.training_seconds
    sentences.append(f"Training with 1.58 bits takes {longer:.1f} times as long.")
    return sentences


def _compare(below: Difference, other: str) -> str:
    """Describe how a loss compares to another's."""
    return f"{below.where('below', 'above', 'level with')} {other}{below.remarks}"


def find_lowest_rows(rows: Sequence[LowBitRow]) -> list[LowBitRow]:
    """Find the variant with the lowest loss, followed by those within noise of it."""
    return find_lowest(
        rows,
        lambda row: row.val_loss,
        lambda least, row: compare_losses(least.val_losses, row.val_losses),
    )
