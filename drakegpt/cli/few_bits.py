"""The table of `drakegpt compare --bits`: what weights of few bits cost and save."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.cli.several import seeds_from
from drakegpt.cli.tables import Column, show_table
from drakegpt.cli.train import train_and_score
from drakegpt.errors import RunError, UsageError
from drakegpt.evaluation.words import NOISE, measured, of_seeds

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.experiments.low_bit import Row
    from drakegpt.training.run import Run

SEEDS = 3


def compare_bits(
    data: "Dataset",
    size: str,
    settings: dict[str, Any],
    *,
    seeds: int,
    train: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Measure all forms of TransformerLM and show them; with `train`, train what is missing."""
    from drakegpt.cli.progress import counting
    from drakegpt.evaluation.machine import describe_machine
    from drakegpt.experiments.forms import FORMS
    from drakegpt.experiments.low_bit import findings, measure
    from drakegpt.models.build import choose_device

    if settings.get("minutes"):
        raise UsageError("minutes would give each form other iterations.", "Give --iters instead.")
    device = choose_device(settings.get("device", "auto"))
    chosen = seeds_from(settings, seeds)
    runs = [
        _runs(data, size, settings | {"seed": seed}, train=train, quiet=quiet) for seed in chosen
    ]
    if not all("full" in of_seed for of_seed in runs):
        raise RunError(
            f"TransformerLM is not trained on '{data.name}' in full precision with these "
            f"settings for {'seed' if seeds == 1 else 'all seeds from'} {chosen[0]}.",
            "Train all that the table needs: the same command with --train.",
        )
    with counting("Measuring", quiet=quiet) as progress:
        rows = measure(data, runs, device, progress)
    machine, found = describe_machine(device), findings(rows)
    if json:
        of_rows = [asdict(row) | {"val_loss": row.val_loss, "spread": row.spread} for row in rows]
        result = {"data": data.name, "size": size, "rows": of_rows, "findings": found}
        console.show_json(result | {"machine": machine})
        return
    _render(data.name, data.tokenizer.unit, rows, found)
    if len(rows) < len(FORMS):
        console.warn("forms that are not trained are left out; --train trains them")


def _runs(
    data: "Dataset", size: str, settings: dict[str, Any], *, train: bool, quiet: bool
) -> dict[str, "Run"]:
    """The runs of one seed, by what they are; trained now if they are missing and shall be."""
    from drakegpt.evaluation.selection import find_origin
    from drakegpt.experiments.forms import TRAINED, find_runs
    from drakegpt.training.run import Run
    from drakegpt.training.start import start_run

    for number, name in enumerate(TRAINED if train else (), 1):
        config = find_runs(settings, size, data).get(name)  # anew: one may begin with another
        if config is None or isinstance(config, Run):
            continue
        if not quiet:
            console.note(
                f"Seed {config.seed}, {number} of {len(TRAINED)}: "
                f"{config.bits} bits, width {config.embedding_dim}",
                style="bold",
            )
        train_and_score(start_run(config, data, origin=find_origin(config)), quiet=quiet)
    found = find_runs(settings, size, data)
    return {name: run for name, run in found.items() if isinstance(run, Run)}


def _render(data: str, unit: str, rows: "list[Row]", found: list[str]) -> None:
    from drakegpt.experiments.low_bit import lowest_rows

    seeds = len(rows[0].val_losses)
    best = lowest_rows(rows)
    title = f"TransformerLM with fewer bits, on {data}"
    show_table(title, _QUALITY, rows, lambda row: row in best)
    show_table("What its weights weigh", _BYTES, rows)
    show_table("What it takes", _WORK, rows)
    means = f" {of_seeds([seeds])}" if seeds > 1 else ""
    noise = f" {NOISE}" if any(row.below_first.within_noise for row in rows[1:]) else ""
    console.show(
        f"Losses: nats per {unit} over the whole validation split.{means}{noise} Training: all its "
        "steps, at the time that one takes now, without evaluations. Packed: the weights of few "
        "bits and their scales; remainder: all others, in floats. Peak: what a process grows by "
        "that reads the file and writes. Times: as fast as float32, the median of the rounds in "
        "which all take turns.\n"
    )
    for sentence in found:
        console.show(sentence)


def _to_float32(row: "Row") -> str:
    return measured(row.difference, within_noise=row.below_first.within_noise)


def _kilobytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1000:,.1f}"


_NAME: "Column[Row]" = Column("weights", lambda row: row.name)
_QUALITY: "tuple[Column[Row], ...]" = (
    _NAME,
    Column("width", lambda row: str(row.embedding_dim), 2),
    Column("validation", lambda row: f"{row.val_loss:.4f}"),
    Column("±", lambda row: "" if row.spread is None else f"{row.spread:.4f}", 1),
    Column("bits/char", lambda row: f"{row.bits_per_character:.3f}", 3),
    Column("to float32", lambda row: "" if row.name == "float32" else _to_float32(row)),
    Column("training,\nseconds", lambda row: f"{row.training_seconds:,.1f}", 4),
)
_BYTES: "tuple[Column[Row], ...]" = (
    _NAME,
    Column("file,\nkB", lambda row: _kilobytes(row.file_bytes)),
    Column("packed,\nkB", lambda row: _kilobytes(row.packed_bytes), 2),
    Column("remainder,\nkB", lambda row: _kilobytes(row.remainder_bytes), 2),
    Column("in memory,\nkB", lambda row: _kilobytes(row.resident_bytes)),
    Column("peak,\nMB", lambda row: _kilobytes(row.peak_memory and row.peak_memory // 1000), 3),
)
_WORK: "tuple[Column[Row], ...]" = (
    _NAME,
    Column("tokens/s,\n1 text", lambda row: f"{row.tokens_per_second[1]:,.0f}", 2),
    Column("\ntimes", lambda row: f"{row.times_faster[1]:.2f}"),
    Column("tokens/s,\n32 texts", lambda row: f"{row.tokens_per_second[32]:,.0f}", 2),
    Column("\ntimes", lambda row: f"{row.times_faster[32]:.2f}", 1),
)
