"""What weights of few bits cost and save: TransformerLM in ten forms, side by side.

A form is how a model was trained and what was done to it afterwards. Losses are
exact, over the whole validation split, and of all seeds; bytes are counted,
memory is measured on the first seed's model, and so is the speed of writing,
with all forms taking turns. So do new models that repeat a training step:
training takes that time, times the steps that were taken.

Not here: training the runs that are missing, and putting all this on a screen.
"""

import statistics
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from drakegpt.bench.memory import peak_memory
from drakegpt.bench.timing import Entry, Times, measure_in_turns, warm_up
from drakegpt.bench.workloads import ENDLESS, TEXT_LENGTH, take
from drakegpt.config import ModelConfig, TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.errors import UsageError
from drakegpt.evaluation.noise import Difference, difference, lowest
from drakegpt.evaluation.scoring import Score
from drakegpt.experiments.experiment import Experiment
from drakegpt.files import temporary_folder
from drakegpt.generation.sampling import Sampling, generate_batch
from drakegpt.models.layers import LanguageModel
from drakegpt.models.load import load_model
from drakegpt.models.packed_linear import (
    PackedBits,
    Packing,
    packed_skeleton_,
    quantize_after_training_,
    sizes,
)
from drakegpt.models.registry import build_model, choose_threads, without_weights
from drakegpt.models.size import total_parameters
from drakegpt.runs.checkpoint import load_weights, save_weights
from drakegpt.runs.run import Run
from drakegpt.runs.scores import counted_score, score
from drakegpt.runs.start import resolve_run
from drakegpt.training.step_runner import plan_execution
from drakegpt.training.trainer import Trainer

MODEL = "TransformerLM"
BATCHES = (1, 32)  # texts written at once
MEMORY_LENGTH = 64
ROUNDS = 3
REPETITION = 0.2  # seconds that a form takes its turn

Progress = Callable[[str, int, int], None]


# --- The forms ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    trained: str = "full"  # which of `TRAINED` it is
    rounded: PackedBits | None = None  # to so many bits, after training
    dtype: torch.dtype = torch.float32


VARIANTS = (
    Variant("float32"),
    Variant("bfloat16", dtype=torch.bfloat16),
    Variant("8 bits, rounded after training", rounded="8"),
    Variant("1.58 bits, rounded after training", rounded="1.58"),
    Variant("1 bit, rounded after training", rounded="1"),
    Variant("1.58 bits", "1.58"),
    Variant("1 bit", "1"),
    Variant("1.58 bits, begun from float32", "from full"),
    Variant("1.58 bits, twice as wide", "wide"),
    Variant("float32, in as many bytes", "small"),
)
TRAINED = tuple(dict.fromkeys(form.trained for form in VARIANTS))


def plan(given: Mapping[str, Any], size: str, data: Dataset, seeds: Sequence[int]) -> Experiment:
    """The experiment whose variants are `TRAINED`; `given` over the `fast` recipe of each.

    Raises `UsageError` for a length in minutes.
    """
    if given.get("minutes"):
        raise UsageError("minutes would give each form other iterations.", "Give --iters instead.")
    common = {"recipe": "fast", **given}

    def resolved(**changes: Any) -> TrainConfig:
        return resolve_run(MODEL, size, data, common, changes)

    # What is compared is the number of bits: dropout is the same for all.
    base = resolved()
    common = common | {"dropout": base.dropout}
    few = resolved(bits="1.58")
    vocab_size = data.tokenizer.vocab_size
    variants = {
        "full": base,
        "1.58": few,
        "1": resolved(bits="1"),
        "from full": few,
        "wide": resolved(bits="1.58", embedding_dim=2 * base.embedding_dim),
        "small": resolved(embedding_dim=as_small_as(few.model_settings(vocab_size))),
    }
    return Experiment(variants, seeds, {"from full": "full"})


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


def build_variant(run: Run, form: Variant) -> LanguageModel:
    """The model of `run` in this form, on the CPU."""
    if form.rounded is None and form.dtype == torch.float32:
        return run.load_model(torch.device("cpu"))
    weights, _ = load_weights(run.last_checkpoint().weights)
    model = load_model(run.model_config, weights).to(form.dtype)
    if form.rounded:
        quantize_after_training_(model, form.rounded)
    return model


# --- The table ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LowBitRow:
    """One form, measured. Losses in nats per token over the whole validation split."""

    name: str
    runs: tuple[str, ...]  # one for each seed
    embedding_dim: int
    val_losses: tuple[float, ...]
    bits_per_character: float
    difference: float  # of the mean loss to that of the first row
    noise: float  # of that difference
    paired: bool  # whether the noise is that of differences between runs of one seed
    file_bytes: int
    packed_bytes: int
    remainder_bytes: int
    resident_bytes: int
    peak_memory: int | None  # bytes a process grows by that loads the weights and writes
    tokens_per_second: dict[int, float]  # for each of `BATCHES`
    times_faster: dict[int, float]  # than the first row
    training_seconds: float  # of all its steps, with those of the run that it began from

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
        """How far the mean loss lies below that of the first row."""
        counts = (len(self.val_losses), len(self.val_losses))
        return Difference(-self.difference, self.noise, counts, self.paired)


def measure(
    data: Dataset,
    runs: Sequence[Mapping[str, Run]],
    device: torch.device,
    progress: Progress = lambda *_: None,
) -> list[LowBitRow]:
    """All forms that can be made of `runs`: for each seed, the run of each of `TRAINED`."""
    forms = [form for form in VARIANTS if all(form.trained in of_seed for of_seed in runs)]
    models = {form.name: build_variant(runs[0][form.trained], form).to(device) for form in forms}
    scores = {}
    for done, form in enumerate(forms):
        progress(f"scoring: {form.name}", done, len(forms))
        scores[form.name] = [_score(of_seed[form.trained], form, data, device) for of_seed in runs]
    prompt = data.split("val")[: models[forms[0].name].config.context_length].tolist()
    speeds = _speeds(forms, models, prompt, device, progress)
    steps = _training_steps(runs[0], data, device, progress)
    first = [score.loss for score in scores[forms[0].name]]
    rows: list[LowBitRow] = []
    for done, form in enumerate(forms):
        progress(f"memory: {form.name}", done, len(forms))
        model = models[form.name]
        counted, of_form = sizes(model), scores[form.name]
        losses = tuple(score.loss for score in of_form)
        # Made of the same runs, two forms share their seeds, and all that follows from them.
        below = difference(first, losses, share_chance=form.trained == forms[0].trained)
        file_bytes, peak = _stored(form, runs[0][form.trained], model, device)
        rows.append(
            LowBitRow(
                name=form.name,
                runs=tuple(of_seed[form.trained].name for of_seed in runs),
                embedding_dim=model.config.embedding_dim,
                val_losses=losses,
                bits_per_character=statistics.fmean(s.bits_per_character for s in of_form),
                difference=0.0 - below.fall,
                noise=below.noise,
                paired=below.paired,
                file_bytes=file_bytes,
                packed_bytes=counted.packed,
                remainder_bytes=counted.remainder,
                resident_bytes=counted.resident,
                peak_memory=peak,
                tokens_per_second={n: n / times.median(form.name) for n, times in speeds.items()},
                times_faster={
                    n: times.times_faster(form.name, than=forms[0].name)
                    for n, times in speeds.items()
                },
                training_seconds=_training_seconds(runs[0], form, steps),
            )
        )
    return rows


def _score(run: Run, form: Variant, data: Dataset, device: torch.device) -> Score:
    if form.rounded is None and form.dtype == torch.float32:
        return score(run, str(device)).val
    choose_threads(run.model_config)
    return counted_score(run, build_variant(run, form).to(device), data, device)


def summarize(rows: Sequence[LowBitRow]) -> list[str]:
    """What the rows say, in sentences; as far as the rows are there."""
    named = {row.name: row for row in rows}
    full, few = rows[0], named.get("1.58 bits")
    if full.name != VARIANTS[0].name or few is None:
        return []
    seeds = len(full.val_losses)
    found = [
        f"Trained with 1.58 bits the model ends {_apart(few.below_first, 'float32')}; "
        + (f"means of {seeds} seeds each." if seeds > 1 else "of one seed each.")
    ]
    for name, verb in (
        ("1.58 bits, rounded after training", "Rounded to 1.58 bits after training, it ends"),
        ("8 bits, rounded after training", "Rounded to 8 bits after training, it ends"),
        ("1 bit", "Trained with one bit, it ends"),
        ("1.58 bits, twice as wide", "Twice as wide, with 1.58 bits, it ends"),
    ):
        if row := named.get(name):
            found.append(f"{verb} {_apart(row.below_first, 'float32')}.")
    if small := named.get("float32, in as many bytes"):
        found.append(
            f"The file of 1.58 bits is {full.file_bytes / few.file_bytes:.1f} times smaller; a "
            f"float32 model of that size (width {small.embedding_dim}) ends "
            f"{_apart(difference(few.val_losses, small.val_losses), 'it')}."
        )
    for batch, what in zip(BATCHES, ("one text", f"{BATCHES[1]} texts at once"), strict=True):
        times = few.times_faster[batch]
        found.append(f"1.58 bits write {what} {times:.2f} times as fast as float32.")
    longer = few.training_seconds / full.training_seconds
    found.append(f"Training with 1.58 bits takes {longer:.1f} times as long.")
    return found


def _apart(below: Difference, other: str) -> str:
    """Where a loss lies beside that of another form."""
    return f"{below.where('below', 'above', 'level with')} {other}{below.grounds}"


def lowest_rows(rows: Sequence[LowBitRow]) -> list[LowBitRow]:
    """The form with the lowest loss, and those within noise of it."""
    return lowest(
        rows,
        lambda row: row.val_loss,
        lambda least, row: difference(least.val_losses, row.val_losses),
    )


# --- Speed and memory ---------------------------------------------------------------------------


def _speeds(
    forms: Sequence[Variant],
    models: Mapping[Any, LanguageModel],
    prompt: list[int],
    device: torch.device,
    progress: Progress,
) -> dict[int, Times]:
    """Seconds for the next token of all texts, for each number of texts at once."""
    entries, units = [], {}
    for form in forms:
        model = models[form.name]
        choose_threads(model.config)
        for batch in BATCHES:
            steps = _steps(model, prompt, batch)
            entry = Entry(form.name, str(batch), torch.get_num_threads(), partial(take, steps))
            # Where the window moves by halves, some characters cost more: whole halves.
            half = max(1, model.config.context_length // 2)
            units[form.name, str(batch)] = -(-warm_up(entry, device, REPETITION) // half) * half
            entries.append(entry)
    times = measure_in_turns(entries, units, ROUNDS, device, progress)
    return {batch: times[str(batch)] for batch in BATCHES}


def _training_steps(
    runs: Mapping[str, Run], data: Dataset, device: torch.device, progress: Progress
) -> dict[str, float]:
    """Seconds of a training step of each of `runs`, taking turns, without evaluations."""
    entries, units = [], {}
    for name, run in runs.items():
        choose_threads(run.model_config)
        compiled = plan_execution(run.config, device).compiled  # which an endless run would be
        config = replace(run.config, iters=ENDLESS, eval_interval=ENDLESS, compile=compiled)
        model = build_model(run.model_config).to(device)
        steps = Trainer(config, model, data.split("train"), data.split("val"), device).reports()
        entry = Entry(name, "training", torch.get_num_threads(), partial(take, steps))
        units[name, "training"] = warm_up(entry, device, REPETITION)
        entries.append(entry)
    times = measure_in_turns(entries, units, ROUNDS, device, progress)["training"]
    return {name: times.median(name) for name in runs}


def _training_seconds(runs: Mapping[str, Run], form: Variant, steps: Mapping[str, float]) -> float:
    stages = ["full", form.trained] if form.trained == "from full" else [form.trained]
    return sum(runs[stage].ending["iteration"] * steps[stage] for stage in stages)


def _steps(model: LanguageModel, prompt: list[int], batch: int) -> Iterator[list[int]]:
    """Texts without end, each written from a full context on."""
    for first in count(step=batch):
        seeds = range(first, first + batch)
        yield from generate_batch(model, prompt, TEXT_LENGTH, Sampling(), seeds)


def _stored(
    form: Variant, run: Run, model: LanguageModel, device: torch.device
) -> tuple[int, int | None]:
    """The bytes of the model's file, and of memory for a process that reads it and writes."""
    packing = form.rounded and Packing(form.rounded, trained=False)
    if run.config.bits != "full":
        packing = Packing(run.config.bits, trained=True)
    with temporary_folder(Path(tempfile.gettempdir())) as folder:
        file = folder / "weights.safetensors"
        save_weights(file, model.state_dict(), {})
        dtype = str(form.dtype).removeprefix("torch.")
        order = [str(file), asdict(run.model_config), packing and asdict(packing), dtype]
        what = f"Writing with weights of {form.name}"
        return file.stat().st_size, peak_memory(what, read_and_write, order, device)


def read_and_write(
    file: str,
    config: dict[str, Any],
    packing: dict[str, Any] | None,
    dtype: str,
    device: torch.device,
) -> None:
    """What a process does whose memory is measured: load a model, write a few characters."""
    model_config = ModelConfig(**config)
    choose_threads(model_config)
    weights, _ = load_weights(Path(file))
    packed = Packing(**packing) if packing else None
    model = load_model(model_config, weights, packed, getattr(torch, dtype)).to(device)
    del weights
    for _ in generate_batch(model, [0], MEMORY_LENGTH, Sampling(), [0]):
        pass
