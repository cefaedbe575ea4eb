"""`drakegpt eval`: the exact loss of a run on whole splits."""

from typing import TYPE_CHECKING

from drakegpt.cli import console, options
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.evaluation.scoring import Score


def eval_(
    target: options.Target = None,
    scaled: options.Scaled = False,
    data: options.Data = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Score a run on whole splits: loss, bits per character, perplexity."""
    from dataclasses import asdict

    from drakegpt.cli.tables import Column, show_table
    from drakegpt.runs.lookup import find_run
    from drakegpt.runs.scores import score_run

    run = find_run(target, scaled=scaled, data=data)
    if not target:
        chosen = f"the run with the lowest validation loss on '{run.config.data}', chosen by that"
        console.note(f"{run.name}: {chosen}.")
    console.note(f"Scoring {run.name} on the whole of '{run.config.data}'.")
    scores = score_run(run, device)
    iteration = run.last_checkpoint().iteration
    if json:
        console.show_json(
            {
                "run": str(run.folder),
                "model": run.config.model,
                "size": run.config.size,
                "data": run.config.data,
                "iteration": iteration,
                "parts": [asdict(part) for part in run.parts],
                "history": run.history,
                "train": scores.train.to_json(),
                "val": scores.val.to_json(),
                "best_val": scores.best_val.to_json(),
                "tail": scores.tail and scores.tail.to_json(),
            }
        )
        return
    unit = run.tokenizer.unit
    columns: tuple[Column[tuple[str, Score]], ...] = (
        Column("split", lambda row: row[0], wraps=True, style="bold"),
        Column(f"nats per {unit}", lambda row: f"{row[1].loss:.4f}"),
        Column("bits per character", lambda row: f"{row[1].bits_per_character:.4f}", 1),
        Column(f"perplexity per {unit}", lambda row: f"{row[1].perplexity:.2f}", 2),
        Column("characters scored", lambda row: f"{row[1].characters:,}", 3),
    )
    shown = [("train", scores.train), ("validation", scores.val)]
    if scores.tail:
        shown = [("train, without its tail", scores.train), ("tail, not trained on", scores.tail)]
        shown.append(("validation", scores.val))
    if scores.best_val != scores.val:
        shown.append(("validation, weights with the lowest estimate", scores.best_val))
    after = "" if run.derived else f" after {pluralize(iteration, 'iteration')}"
    show_table(f"{run.config.model} on {run.config.data}{after}", columns, shown)
    if run.history:
        console.show(f"{run.name} was {run.history}.")
