"""`drakegpt compare --low-bit`: loss, size and speed of low-bit weights, beside float32."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.cli.compare.collecting import collect_runs, damaged_to_json
from drakegpt.cli.progress import counting
from drakegpt.cli.tables import Column, show_table
from drakegpt.errors import RunError
from drakegpt.experiments.formatting import (
    NOISE,
    describe_seeds,
    format_difference,
    format_or_blank,
)

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.experiments.low_bit import LowBitRow

SEEDS = 3


def compare_low_bit(
    data: "Dataset",
    size: str,
    settings: dict[str, Any],
    *,
    seeds: int,
    train: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Measure TransformerLM in each precision and show it; with `train`, train missing runs."""
    from drakegpt.bench.hardware import describe_machine
    from drakegpt.compute.device import choose_device
    from drakegpt.experiments.experiment import list_seeds
    from drakegpt.experiments.low_bit import VARIANTS, measure, plan, summarize

    experiment = plan(settings, size, data, list_seeds(settings, seeds))
    device = choose_device(settings.get("device", "auto"))
    collected = collect_runs(experiment, data, train=train, quiet=quiet)
    if len(collected.runs["full"]) < seeds:
        raise RunError(
            f"The table needs a float32 run of TransformerLM on '{data.name}' with these settings "
            f"for {'seed' if seeds == 1 else 'each seed from'} {experiment.seeds[0]}"
            f"{'' if seeds == 1 else f' to {experiment.seeds[-1]}'}.",
            "Train the missing runs: the same command with --train.",
        )
    with counting("Measuring", quiet=quiet) as progress:
        runs = [collected.with_seed(seed) for seed in experiment.seeds]
        rows = measure(data, runs, device, progress)
    machine, found = describe_machine(device), summarize(rows)
    if json:
        of_rows = [asdict(row) | {"val_loss": row.val_loss, "spread": row.spread} for row in rows]
        result = {"data": data.name, "size": size, "rows": of_rows, "findings": found}
        damaged = damaged_to_json(collected.damaged)
        console.show_json(result | {"machine": machine, "damaged": damaged})
        return
    _render(data.name, data.tokenizer.unit, rows, found)
    if len(rows) < len(VARIANTS):
        console.warn("variants that are not trained are left out; --train trains them")


def _render(data: str, unit: str, rows: "list[LowBitRow]", found: list[str]) -> None:
    from drakegpt.experiments.low_bit import find_lowest_rows

    seeds = len(rows[0].val_losses)
    best = find_lowest_rows(rows)
    title = f"Low-bit weights: TransformerLM on {data}"
    show_table(title, _QUALITY, rows, lambda row: row in best)
    show_table("Model size", _BYTES, rows)
    show_table("Inference cost", _WORK, rows)
    means = f" {describe_seeds([seeds])}" if seeds > 1 else ""
    noise = f" {NOISE}" if any(row.below_first.within_noise for row in rows[1:]) else ""
    console.show(
        f"Losses: nats per {unit} over the whole validation split.{means}{noise} Training: the "
        "time of all steps at today's time per step, without evaluations. Packed: low-bit weights "
        "and their scales; other weights are floats. Peak: growth of a process that loads the "
        "file and generates. Speedup: relative to float32, the median of rounds in which all take "
        "turns.\n"
    )
    for sentence in found:
        console.show(sentence)


def _format_difference(row: "LowBitRow") -> str:
    return format_difference(row.difference, within_noise=row.below_first.within_noise)


def _kilobytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1000:,.1f}"


_NAME: "Column[LowBitRow]" = Column("weights", lambda row: row.name)
_QUALITY: "tuple[Column[LowBitRow], ...]" = (
    _NAME,
    Column("width", lambda row: str(row.embedding_dim), 2),
    Column("validation", lambda row: f"{row.val_loss:.4f}"),
    Column("±", lambda row: format_or_blank(row.spread, ".4f"), 1),
    Column("bits/char", lambda row: f"{row.bits_per_character:.3f}", 3),
    Column("Δ vs float32", lambda row: "" if row.name == "float32" else _format_difference(row)),
    Column("training\nseconds", lambda row: f"{row.training_seconds:,.1f}", 4),
)
_BYTES: "tuple[Column[LowBitRow], ...]" = (
    _NAME,
    Column("file,\nkB", lambda row: _kilobytes(row.file_bytes)),
    Column("packed,\nkB", lambda row: _kilobytes(row.packed_bytes), 2),
    Column("other weights,\nkB", lambda row: _kilobytes(row.remainder_bytes), 2),
    Column("in memory,\nkB", lambda row: _kilobytes(row.resident_bytes)),
    Column("peak,\nMB", lambda row: _kilobytes(row.peak_memory and row.peak_memory // 1000), 3),
)
_WORK: "tuple[Column[LowBitRow], ...]" = (
    _NAME,
    Column("tokens/s,\n1 text", lambda row: f"{row.tokens_per_second[1]:,.0f}", 2),
    Column("\nspeedup", lambda row: f"{row.speedup[1]:.2f}"),
    Column("tokens/s,\n32 texts", lambda row: f"{row.tokens_per_second[32]:,.0f}", 2),
    Column("\nspeedup", lambda row: f"{row.speedup[32]:.2f}", 1),
)
