"""`drakegpt runs import`: take over a checkpoint of the original project."""

from pathlib import Path
from typing import Annotated

import typer

from drakegpt.cli import console, options
from drakegpt.config import LADDER, model_named


def import_(
    file: Annotated[Path, typer.Argument(help="A checkpoint: torch.save(model.state_dict(), …).")],
    model: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(LADDER)}.",
            callback=lambda name: model_named(name, LADDER),
            autocompletion=lambda: list(LADDER),
        ),
    ],
    scaled: options.Scaled = False,
    data: options.Data = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    json: options.Json = False,
) -> None:
    """Import a checkpoint of the original DrakeGPT as a run."""
    from drakegpt.config import resolve
    from drakegpt.data import dataset as datasets
    from drakegpt.evaluation.scoring import score
    from drakegpt.training.importer import import_original

    dataset = datasets.load(data)
    config = resolve(model, "scaled" if scaled else "default", dataset.name)
    run = import_original(file, config, dataset, name)
    scores = score(run, config.device)
    if json:
        losses = {"train_loss": scores.train.loss, "val_loss": scores.val.loss}
        console.show_json({"run": str(run.folder), "model": model, "data": dataset.name} | losses)
        return
    console.show(
        f"Imported {file.name} as {run.name}: train loss {scores.train.loss:.4f}, "
        f"validation loss {scores.val.loss:.4f} nats per character on '{dataset.name}'"
    )
    console.next_commands([f"drakegpt generate {run.name}"])
