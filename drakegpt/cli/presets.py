"""`drakegpt train --list-presets`: sizes and presets, and how long each takes here."""

from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.cli.short_forms import format_estimate
from drakegpt.cli.tables import Column, show_table
from drakegpt.config.presets import PRESETS

if TYPE_CHECKING:
    from drakegpt.config import TrainConfig

TRAIN_TOKENS, VAL_TOKENS = 900_000, 100_000  # of the text that times are estimated for
_SIZES = {
    "default": ("The original's small size, for any model of the ladder", 80),
    "scaled": ("The original's large size", 80),
}


def show_presets(*, measure: bool, json: bool, quiet: bool) -> None:
    """List every preset: description, command, size, and the time that it takes here.

    Times are those that were measured on this machine; with `measure`, missing ones are
    measured first, which takes seconds for each.
    """
    from drakegpt.cli.progress import counting

    names = [*_SIZES, *PRESETS]
    rows = []
    with counting("Measuring", quiet=quiet or not measure) as progress:
        for done, name in enumerate(names):
            progress(name, done, len(names))
            rows.append(_collect(name, measure=measure))
    if json:
        console.show_json({"presets": rows})
        return
    show_table("Presets", _COLUMNS, rows)
    known = [row["seconds"] is not None for row in rows]
    if any(known):
        console.show(
            "Time: on this machine, estimated from a short trial; includes evaluations, and the "
            f"scoring of a text of {TRAIN_TOKENS + VAL_TOKENS:,} tokens at the end."
        )
    console.show(
        "Parameters: for the vocabulary shown. The first two rows are sizes for every model, here "
        "TransformerLM."
    )
    if not all(known):
        console.note("Times are measured once, on request:")
        console.next_commands(["drakegpt train --list-presets --times"])
    for row in rows:
        console.show(f"\n{row['name']}: {row['description']}.")
        console.show(f"  {row['command']}")


def _collect(name: str, *, measure: bool) -> dict[str, Any]:
    """Return the figures of one preset; its time is `None` if it was never measured here."""
    from drakegpt.models.size import count_total_parameters
    from drakegpt.training.stored_times import read_or_estimate_seconds

    config, description, vocab_size, command = _describe(name)
    parameters = count_total_parameters(config.model_settings(vocab_size))
    return {
        "name": name,
        "description": description,
        "command": command,
        "model": config.model,
        "layers": config.num_layers,
        "width": config.embedding_dim,
        "heads": config.num_heads,
        "context_length": config.context_length,
        "vocab_size": vocab_size,
        "parameters": parameters,
        "iterations": config.iters,
        "tokens_per_iteration": config.batch_size
        * config.grad_accumulation
        * config.context_length,
        "seconds": read_or_estimate_seconds(
            config, vocab_size, TRAIN_TOKENS, VAL_TOKENS, estimate=measure
        ),
    }


def _describe(name: str) -> tuple["TrainConfig", str, int, str]:
    """Return settings, description, vocabulary size and command of one preset."""
    from drakegpt.config import resolve

    if name in _SIZES:
        description, vocab_size = _SIZES[name]
        flag = " --scaled" if name == "scaled" else ""
        command = f"drakegpt train TransformerLM{flag}"
        return resolve("TransformerLM", name, ""), description, vocab_size, command
    preset = PRESETS[name]
    model = preset.settings.get("model", "")
    config = resolve(model or "TransformerLM", "default", "", {"preset": name})
    train = f"drakegpt train --preset {name}" if model else "drakegpt compare --train"
    command = f"{preset.data} && {train}"
    return config, preset.description, preset.vocab_size, command


def _format_time(seconds: float | None) -> str:
    return "" if seconds is None else format_estimate(seconds)


_COLUMNS: "tuple[Column[dict[str, Any]], ...]" = (
    Column("preset", lambda row: row["name"]),
    Column("model", lambda row: row["model"], 2),
    Column("layers", lambda row: str(row["layers"]), 5),
    Column("width", lambda row: str(row["width"]), 4),
    Column("context", lambda row: str(row["context_length"]), 6),
    Column("vocab", lambda row: f"{row['vocab_size']:,}", 7),
    Column("parameters", lambda row: f"{row['parameters']:,}", 3),
    Column("iterations", lambda row: f"{row['iterations']:,}", 1),
    Column("tokens per\niteration", lambda row: f"{row['tokens_per_iteration']:,}", 8),
    Column("time", lambda row: _format_time(row["seconds"])),
)
