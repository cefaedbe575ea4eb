"""`drakegpt train --list-presets`: sizes and systems, and how long each takes here."""

from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.cli.tables import Column, show_table
from drakegpt.config.presets import SYSTEMS

if TYPE_CHECKING:
    from drakegpt.config import TrainConfig

LEARNT, VALIDATED = 900_000, 100_000  # tokens of a text that times are told for
OF_SIZE = {
    "default": ("The original's small size, for any model of the ladder", 80),
    "scaled": ("The original's large size", 80),
}


def show_presets(*, json: bool, quiet: bool) -> None:
    """List every preset: what it is, its size, and the time it takes on this machine."""
    from drakegpt.cli.progress import counting

    names = [*OF_SIZE, *SYSTEMS]
    rows = []
    with counting("Trying out", quiet=quiet) as progress:
        for done, name in enumerate(names):
            progress(name, done, len(names))
            rows.append(_measured(name))
    if json:
        console.show_json({"presets": rows})
        return
    show_table("Presets, and how long each takes here", _COLUMNS, rows)
    console.show(
        "Time: estimated from a trial of a second or two, with evaluations, and the scoring at the "
        f"end of a text of {LEARNT + VALIDATED:,} tokens. Parameters: for the tokens named. The "
        "first two are for every model, here TransformerLM."
    )
    for row in rows:
        console.show(f"\n{row['name']}: {row['description']}.")
        console.show(f"  {row['command']}")


def _measured(name: str) -> dict[str, Any]:
    from drakegpt.models.size import count_total_parameters
    from drakegpt.training.run_length import estimate_seconds

    config, description, vocab_size, command = _described(name)
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
        "seconds": estimate_seconds(config, vocab_size, LEARNT, VALIDATED),
    }


def _described(name: str) -> tuple["TrainConfig", str, int, str]:
    """Settings, description, vocabulary and commands of one preset."""
    from drakegpt.config import resolve

    if name in OF_SIZE:
        description, vocab_size = OF_SIZE[name]
        flag = " --scaled" if name == "scaled" else ""
        command = f"drakegpt train TransformerLM{flag}"
        return resolve("TransformerLM", name, ""), description, vocab_size, command
    system = SYSTEMS[name]
    config = resolve(system.settings["model"], "default", "", {"preset": name})
    command = f"{system.data} && drakegpt train --preset {name}"
    return config, system.description, system.vocab_size, command


def _lasts(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


_COLUMNS: "tuple[Column[dict[str, Any]], ...]" = (
    Column("preset", lambda row: row["name"]),
    Column("model", lambda row: row["model"], 2),
    Column("layers", lambda row: str(row["layers"]), 5),
    Column("width", lambda row: str(row["width"]), 4),
    Column("context", lambda row: str(row["context_length"]), 6),
    Column("tokens\nknown", lambda row: f"{row['vocab_size']:,}", 7),
    Column("parameters", lambda row: f"{row['parameters']:,}", 3),
    Column("iterations", lambda row: f"{row['iterations']:,}", 1),
    Column("tokens per\niteration", lambda row: f"{row['tokens_per_iteration']:,}", 8),
    Column("time", lambda row: _lasts(row["seconds"])),
)
