"""What weights of few bits cost and save: TransformerLM in eleven forms, side by side.

A form is how a model was trained and what was done to it afterwards. Losses are
exact, over the whole validation split, and of all seeds; bytes are counted,
memory is measured on the first seed's model, and so are the speeds of training
and writing, with all forms taking turns.

Only the energy is not measured but projected: additions and multiplications
times what each costs in a 45 nm chip (Horowitz, ISSCC 2014, figure 1.1.9).

Not here: training the runs that are missing, and putting all this on a screen.
"""

import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from drakegpt import config as settings
from drakegpt.config import ModelConfig, TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.evaluation.bench import Entry, Times, race, warm_up
from drakegpt.evaluation.contenders import ENDLESS
from drakegpt.evaluation.memory import peak_memory
from drakegpt.evaluation.parameters import count_parameters
from drakegpt.evaluation.scoring import Score, score, validation_score
from drakegpt.evaluation.selection import find_finished
from drakegpt.generation.sampling import Sampling, generate_batch
from drakegpt.models.build import build_model, choose_threads, load_model
from drakegpt.models.layers import CausalSelfAttention, LanguageModel
from drakegpt.models.packed import (
    PackedBits,
    PackedLinear,
    Packing,
    packed_skeleton_,
    quantized_after_training_,
    sizes,
)
from drakegpt.training.budget import iterations_of
from drakegpt.training.checkpoint import load_weights, save_weights
from drakegpt.training.run import Run
from drakegpt.training.trainer import Trainer

MODEL = "TransformerLM"
BATCHES = (1, 32)  # texts written at once
TEXT_LENGTH = 1000
MEMORY_LENGTH = 64
ROUNDS = 3
REPETITION = 0.2  # seconds that a form takes its turn

# pJ of an addition and a multiplication in 45 nm at 0.9 V. Products of int8 are added in int32;
# bfloat16 counts as the 16-bit floats that were published.
PICOJOULES = {"float32": (0.9, 3.7), "bfloat16": (0.4, 1.1), "int8": (0.1, 0.2)}

Progress = Callable[[str, int, int], None]


# --- The forms ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """One row of the table."""

    name: str
    trained: str = "full"  # which of `TRAINED` it is
    rounded: PackedBits | None = None  # to so many bits, after training
    dtype: torch.dtype = torch.float32

    @property
    def key(self) -> tuple[str, PackedBits | None, torch.dtype]:
        """What sets it apart."""
        return self.trained, self.rounded, self.dtype


FORMS = (
    Form("float32"),
    Form("bfloat16", dtype=torch.bfloat16),
    Form("8 bits, rounded after training", rounded="8"),
    Form("1.58 bits, rounded after training", rounded="1.58"),
    Form("1 bit, rounded after training", rounded="1"),
    Form("1.58 bits", "1.58"),
    Form("1.58 bits, scaled by the median", "median"),
    Form("1 bit", "1"),
    Form("1.58 bits, begun from float32", "from full"),
    Form("1.58 bits, twice as wide", "wide"),
    Form("float32, in as many bytes", "small"),
)
TRAINED = tuple(dict.fromkeys(form.trained for form in FORMS))


def plan(
    given: Mapping[str, Any], size: str, data: Dataset, full: Run | None
) -> dict[str, TrainConfig]:
    """The settings of each of `TRAINED`; with `given` over the `fast` recipe of each.

    `full`: the run in full precision that "from full" begins with; without it
    that one is left out.
    """
    common = {"recipe": "fast", **given}

    def resolved(**changes: Any) -> TrainConfig:
        config = settings.resolve(MODEL, size, data.name, common, changes)
        if config.epochs:
            changes["iters"] = iterations_of(config, data)
            return settings.resolve(MODEL, size, data.name, common, changes)
        return config

    base, few = resolved(), resolved(bits="1.58")
    vocab_size = data.tokenizer.vocab_size
    plans = {
        "full": base,
        "1.58": few,
        "median": resolved(bits="1.58", scale="median"),
        "1": resolved(bits="1"),
        "wide": resolved(bits="1.58", embedding_dim=2 * base.embedding_dim),
        "small": resolved(embedding_dim=as_small_as(few.model_settings(vocab_size))),
    }
    if full:
        plans["from full"] = resolved(bits="1.58", init_from=full.name)
    return plans


def as_small_as(few: ModelConfig) -> int:
    """The width at which a model in float32 has about as many bytes as `few` when packed."""
    with torch.device("meta"):
        model = build_model(replace(few, bits="full"))
        goal = sizes(packed_skeleton_(model, few.bits, normed=True))  # type: ignore[arg-type]
    full = replace(few, bits="full")

    def distance(width: int) -> int:
        parameters = sum(count_parameters(replace(full, embedding_dim=width)).values())
        return abs(4 * parameters - goal.packed - goal.remainder)

    return min(range(few.num_heads, few.embedding_dim + 1, few.num_heads), key=distance)


def find_runs(given: Mapping[str, Any], size: str, data: Dataset) -> dict[str, Run | TrainConfig]:
    """For each of `TRAINED` its finished run, or the settings to train it with.

    What begins from full precision comes last, and only once that is trained.
    """
    full = find_finished(data, plan(given, size, data, None)["full"])
    plans = plan(given, size, data, full)
    return {name: find_finished(data, config) or config for name, config in plans.items()}


# --- The table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operations:
    """What one token costs in a model's matrix products and rescalings, at a full context."""

    additions: int
    multiplications: int
    picojoules: float  # projected, for arithmetic alone


@dataclass(frozen=True, kw_only=True)
class Row:
    """One form, measured. Losses in nats per token over the whole validation split."""

    name: str
    runs: tuple[str, ...]  # one for each seed
    embedding_dim: int
    val_losses: tuple[float, ...]
    bits_per_character: float
    difference: float = 0.0  # of the mean loss to that of the first row
    file_bytes: int
    packed_bytes: int
    remainder_bytes: int
    resident_bytes: int
    peak_memory: int | None  # bytes a process grows by that loads the weights and writes
    characters_per_second: dict[int, float]  # for each of `BATCHES`
    times_faster: dict[int, float]  # than the first row
    training_seconds: float  # of all its steps, with those of the run that it began from
    operations: Operations

    @property
    def val_loss(self) -> float:
        """The mean over all seeds."""
        return statistics.fmean(self.val_losses)

    @property
    def spread(self) -> float | None:
        """The standard deviation over seeds; `None` for a single one."""
        return statistics.stdev(self.val_losses) if len(self.val_losses) > 1 else None


def measure(
    data: Dataset,
    runs: Sequence[Mapping[str, Run]],
    device: torch.device,
    progress: Progress = lambda *_: None,
) -> list[Row]:
    """All forms that can be made of `runs`: for each seed, the run of each of `TRAINED`."""
    forms = [form for form in FORMS if all(form.trained in of_seed for of_seed in runs)]
    models = {form.key: form_of(runs[0][form.trained], form).to(device) for form in forms}
    scores = {}
    for done, form in enumerate(forms):
        progress(f"scoring: {form.name}", done, len(forms))
        scores[form.key] = [_score(of_seed[form.trained], form, data, device) for of_seed in runs]
    prompt = data.split("val")[: models[forms[0].key].config.context_length].tolist()
    speeds = _speeds(forms, models, prompt, device, progress)
    steps = _training_steps(runs[0], data, device, progress)
    rows: list[Row] = []
    for done, form in enumerate(forms):
        progress(f"memory: {form.name}", done, len(forms))
        row = _row(form, runs, models[form.key], scores[form.key], speeds, device)
        rows.append(replace(row, training_seconds=_training_seconds(runs[0], form, steps)))
    first = rows[0].val_loss
    return [replace(row, difference=row.val_loss - first) for row in rows]


def form_of(run: Run, form: Form) -> LanguageModel:
    """The model of `run` in this form, on the CPU."""
    if form.rounded is None and form.dtype == torch.float32:
        return run.load_model(torch.device("cpu"))
    weights, _ = load_weights(run.last_checkpoint().weights)
    model = load_model(run.model_config, weights).to(form.dtype)
    if form.rounded:
        quantized_after_training_(model, form.rounded)
    return model


def count_operations(model: LanguageModel) -> Operations:
    """Count what one token costs with a full context behind it.

    A product of a row by a column of K numbers counts K multiplications and K
    additions; with weights of -1, 0, 1 or of -1, 1 no multiplications, and all
    additions, zeros too. Rounding and rescaling multiply each number that goes
    into and comes out of such a layer once. Norms, softmax and drawing are left out.
    """
    C, T = model.config.embedding_dim, model.config.context_length
    kind = str(next(model.parameters()).dtype).removeprefix("torch.")
    additions = dict.fromkeys(PICOJOULES, 0)
    multiplications = dict.fromkeys(PICOJOULES, 0)
    for layer in model.modules():
        if isinstance(layer, PackedLinear):
            N, K = layer.codes.shape
            additions["int8"] += N * K
            multiplications["int8"] += N * K if layer.bits == "8" else 0
            multiplications[kind] += N + K
            continue
        products = 0
        if isinstance(layer, nn.Linear):
            products = layer.weight.numel()
        elif isinstance(layer, CausalSelfAttention):
            products = 2 * T * C  # queries by keys, weights by values
        additions[kind] += products
        multiplications[kind] += products
    energy = sum(
        additions[kind] * add + multiplications[kind] * multiply
        for kind, (add, multiply) in PICOJOULES.items()
    )
    return Operations(sum(additions.values()), sum(multiplications.values()), energy)


def _score(run: Run, form: Form, data: Dataset, device: torch.device) -> Score:
    if form.rounded is None and form.dtype == torch.float32:
        return score(run, str(device)).val
    choose_threads(run.model_config)
    return validation_score(form_of(run, form).to(device), data, device)


def _row(
    form: Form,
    runs: Sequence[Mapping[str, Run]],
    model: LanguageModel,
    scores: Sequence[Score],
    speeds: Mapping[int, Times],
    device: torch.device,
) -> Row:
    counted = sizes(model)
    file_bytes, peak = _stored(form, runs[0][form.trained], model, device)
    return Row(
        name=form.name,
        runs=tuple(of_seed[form.trained].name for of_seed in runs),
        embedding_dim=model.config.embedding_dim,
        val_losses=tuple(score.loss for score in scores),
        bits_per_character=statistics.fmean(score.bits_per_character for score in scores),
        file_bytes=file_bytes,
        packed_bytes=counted.packed,
        remainder_bytes=counted.remainder,
        resident_bytes=counted.resident,
        peak_memory=peak,
        characters_per_second={n: n / times.median(form.name) for n, times in speeds.items()},
        times_faster={
            n: times.times_faster(form.name, than=FORMS[0].name) for n, times in speeds.items()
        },
        training_seconds=0.0,
        operations=count_operations(model),
    )


def findings(rows: Sequence[Row]) -> list[str]:
    """What the rows say, in sentences; as far as the rows are there."""
    named = {row.name: row for row in rows}
    full, few = rows[0], named.get("1.58 bits")
    if full.name != FORMS[0].name or few is None:
        return []
    noise = max(full.spread or 0.0, few.spread or 0.0)
    found = [
        f"Trained with 1.58 bits the model ends {_apart(few.difference)} float32"
        + (f"; over seeds the two move by {noise:.3f}." if noise else "; of one seed each.")
    ]
    for name, verb in (
        ("1.58 bits, rounded after training", "Rounded to 1.58 bits after training, it ends"),
        ("8 bits, rounded after training", "Rounded to 8 bits after training, it ends"),
        ("1 bit", "Trained with one bit, it ends"),
        ("1.58 bits, twice as wide", "Twice as wide, with 1.58 bits, it ends"),
    ):
        if row := named.get(name):
            found.append(f"{verb} {_apart(row.difference)} float32.")
    if small := named.get("float32, in as many bytes"):
        found.append(
            f"Its file is {full.file_bytes / few.file_bytes:.1f} times smaller than float32's; a "
            f"float32 model of that size (width {small.embedding_dim}) ends "
            f"{_apart(small.val_loss - few.val_loss)} it."
        )
    for batch, what in zip(BATCHES, ("one text", f"{BATCHES[1]} texts at once"), strict=True):
        found.append(f"It writes {what} {few.times_faster[batch]:.2f} times as fast as float32.")
    longer = few.training_seconds / full.training_seconds
    found.append(f"Training it took {longer:.1f} times as long.")
    return found


def _apart(difference: float) -> str:
    return f"{abs(difference):.3f} nats {'above' if difference > 0 else 'below'}"


# --- Speed and memory ---------------------------------------------------------------------------


def _speeds(
    forms: Sequence[Form],
    models: Mapping[Any, LanguageModel],
    prompt: list[int],
    device: torch.device,
    progress: Progress,
) -> dict[int, Times]:
    """Seconds for the next token of all texts, for each number of texts at once."""
    entries, units = [], {}
    for form in forms:
        model = models[form.key]
        choose_threads(model.config)
        for batch in BATCHES:
            steps = _steps(model, prompt, batch)
            entry = Entry(form.name, str(batch), torch.get_num_threads(), partial(_take, steps))
            # Where the window moves by halves, some characters cost more: whole halves.
            half = max(1, model.config.context_length // 2)
            units[form.name, str(batch)] = -(-warm_up(entry, device, REPETITION) // half) * half
            entries.append(entry)
    times = race(entries, units, ROUNDS, device, progress)
    return {batch: times[str(batch)] for batch in BATCHES}


def _training_steps(
    runs: Mapping[str, Run], data: Dataset, device: torch.device, progress: Progress
) -> dict[str, float]:
    """Seconds of a training step of each of `runs`, taking turns, without evaluations."""
    entries, units = [], {}
    for name, run in runs.items():
        choose_threads(run.model_config)
        config = replace(run.config, iters=ENDLESS, eval_interval=ENDLESS)
        model = build_model(run.model_config).to(device)
        steps = Trainer(config, model, data.split("train"), data.split("val"), device).reports()
        entry = Entry(name, "training", torch.get_num_threads(), partial(_take, steps))
        units[name, "training"] = warm_up(entry, device, REPETITION)
        entries.append(entry)
    times = race(entries, units, ROUNDS, device, progress)["training"]
    return {name: times.median(name) for name in runs}


def _training_seconds(runs: Mapping[str, Run], form: Form, steps: Mapping[str, float]) -> float:
    stages = ["full", form.trained] if form.trained == "from full" else [form.trained]
    return sum(runs[stage].config.iters * steps[stage] for stage in stages)


def _steps(model: LanguageModel, prompt: list[int], batch: int) -> Iterator[list[int]]:
    """Texts without end, each written from a full context on."""
    for first in count(step=batch):
        seeds = range(first, first + batch)
        yield from generate_batch(model, prompt, TEXT_LENGTH, Sampling(), seeds)


def _take(steps: Iterator[object], number: int) -> None:
    deque(islice(steps, number), maxlen=0)


def _stored(
    form: Form, run: Run, model: LanguageModel, device: torch.device
) -> tuple[int, int | None]:
    """The bytes of the model's file, and of memory for a process that reads it and writes."""
    packing = form.rounded and Packing(form.rounded, trained=False)
    if run.config.bits != "full":
        packing = Packing(run.config.bits, trained=True)
    with tempfile.TemporaryDirectory(prefix="drakegpt-") as folder:
        file = Path(folder) / "weights.safetensors"
        save_weights(file, model.state_dict(), run.weights_metadata(0))
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
