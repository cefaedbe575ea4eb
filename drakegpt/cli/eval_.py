"""`drakegpt eval`: the exact loss of a run on whole splits."""

from drakegpt.cli import console, options


def eval_(
    target: options.Target = None,
    scaled: options.Scaled = False,
    data: options.Data = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Score a run on whole splits: loss, bits per character, perplexity."""
    from rich.table import Table

    from drakegpt.evaluation.scoring import score
    from drakegpt.evaluation.selection import find_run

    run = find_run(target, scaled=scaled, data=data)
    if not target:
        chosen = f"the run with the lowest validation loss on '{run.config.data}', chosen by that"
        console.note(f"{run.name}: {chosen}.")
    console.note(f"Scoring {run.name} on the whole of '{run.config.data}'.")
    scores = score(run, device)
    if json:
        console.show_json(
            {
                "run": str(run.folder),
                "model": run.config.model,
                "size": run.config.size,
                "data": run.config.data,
                "train": scores.train.to_json(),
                "val": scores.val.to_json(),
                "best_val": scores.best_val.to_json(),
                "tail": scores.tail and scores.tail.to_json(),
            }
        )
        return
    table = Table(title=f"{run.config.model} on {run.config.data}", title_justify="left")
    table.add_column("split", style="bold")
    unit = run.tokenizer.unit
    titles = (
        f"nats per {unit}",
        "bits per character",
        f"perplexity per {unit}",
        "characters scored",
    )
    for column in titles:
        table.add_column(column, justify="right")
    shown = [("train", scores.train), ("validation", scores.val)]
    if scores.tail:
        shown = [("train, without its tail", scores.train), ("tail, not trained on", scores.tail)]
        shown.append(("validation", scores.val))
    if scores.best_val != scores.val:
        shown.append(("validation, weights with the lowest estimate", scores.best_val))
    for name, of in shown:
        table.add_row(
            name,
            f"{of.loss:.4f}",
            f"{of.bits_per_character:.4f}",
            f"{of.perplexity:.2f}",
            f"{of.characters:,}",
        )
    console.show(table)
