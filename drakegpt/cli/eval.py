"""`drakegpt eval`: compute the exact loss of a run on whole splits."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from drakegpt.cli import console, options
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.evaluation.scoring import Score
    from drakegpt.runs.run import Run
    from drakegpt.runs.scores import Scores


def eval_(
    target: options.Target = None,
    scaled: options.Scaled = False,
    data: options.Data = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Score a run on whole splits: loss, bits per character, perplexity."""
    from drakegpt.runs.lookup import find_run
    from drakegpt.runs.scores import score_run

    run = find_run(target, scaled=scaled, data=data)
    if not target:
        data_name = run.config.data
        console.note(f"{run.name}: the run with the lowest validation loss on '{data_name}'.")
    console.note(f"Scoring {run.name} on the whole of '{run.config.data}'.")
    scores = score_run(run, device)
    if json:
        console.show_json(_to_json(run, scores))
    else:
        _render(run, scores)


def _to_json(run: "Run", scores: "Scores") -> dict[str, Any]:
    return {
        "run": str(run.folder),
        "model": run.config.model,
        "size": run.config.size,
        "data": run.config.data,
        "iteration": run.last_checkpoint().iteration,
        "parts": [asdict(part) for part in run.parts],
        "history": run.history,
        "train": scores.train.to_json(),
        "val": scores.val.to_json(),
        "best_val": scores.best_val.to_json(),
        "tail": scores.tail and scores.tail.to_json(),
    }


def _render(run: "Run", scores: "Scores") -> None:
    from drakegpt.cli.tables import Column, show_table

    unit = run.tokenizer.unit
    columns: tuple[Column[tuple[str, Score]], ...] = (
        Column("split", lambda row: row[0], wraps=True, style="bold"),
        Column(f"nats per {unit}", lambda row: f"{row[1].loss:.4f}"),
        Column("bits per character", lambda row: f"{row[1].bits_per_character:.4f}", 1),
        Column(f"perplexity per {unit}", lambda row: f"{row[1].perplexity:.2f}", 2),
        Column("characters scored", lambda row: f"{row[1].characters:,}", 3),
    )
    rows = [("train", scores.train), ("validation", scores.val)]
    if scores.tail:
        rows = [("train, without its tail", scores.train), ("tail, not trained on", scores.tail)]
        rows.append(("validation", scores.val))
    if scores.best_val != scores.val:
        rows.append(("validation, weights with the lowest estimate", scores.best_val))
    iterations = pluralize(run.last_checkpoint().iteration, "iteration")
    after = "" if run.derived else f" after {iterations}"
    show_table(f"{run.config.model} on {run.config.data}{after}", columns, rows)
    if run.history:
        console.show(f"{run.name} was {run.history}.")
