"""`drakegpt train`: train one model, show it learning, end with a sample of its writing."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options

if TYPE_CHECKING:
    from drakegpt.config import TrainConfig
    from drakegpt.data.dataset import Dataset
    from drakegpt.evaluation.scoring import Scores
    from drakegpt.training.run import Run

SAMPLE_LENGTH = 200


@options.with_settings
def train(
    model: options.Model,
    settings: dict[str, Any],
    scaled: options.Scaled = False,
    data: options.Data = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; made from model, data and time.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model with the original's recipe, or your own."""
    from drakegpt.config import resolve

    size = "scaled" if scaled else "default"
    dataset = choose_dataset(data)
    config = resolve(model, size, dataset.name, settings)
    run, scores = train_and_score(config, dataset, name, quiet=quiet)
    if json:
        console.show_json(_as_json(run, scores))
        return
    _render(run, scores)
    console.next_commands(
        [f"drakegpt generate {run.name}", f"drakegpt compare --data {dataset.name}"]
    )


def choose_dataset(name: str | None) -> "Dataset":
    """The dataset asked for; the sample, prepared on the spot, when nothing was ever fetched."""
    from drakegpt.data.sources import dataset_or_sample

    dataset, newly_prepared = dataset_or_sample(name)
    if newly_prepared:
        console.warn(
            f"prepared the bundled sample lyrics ({dataset.metadata.characters:,} characters); "
            "`drakegpt data fetch` gets others."
        )
    return dataset


def train_and_score(
    config: "TrainConfig", dataset: "Dataset", name: str | None, *, quiet: bool
) -> "tuple[Run, Scores]":
    """Train a new run with its progress on the screen, then score it on whole splits."""
    from drakegpt.cli.progress import TrainingProgress
    from drakegpt.evaluation.scoring import score
    from drakegpt.training.run import create_run, train_run

    run = create_run(config, dataset, name)
    with TrainingProgress(config, quiet=quiet) as progress:
        for report in train_run(run):
            progress.report(report)
    return run, score(run, config.device)


def _as_json(run: "Run", scores: "Scores") -> dict[str, Any]:
    last = run.evaluations[-1]
    return {
        "run": str(run.folder),
        "model": run.config.model,
        "size": run.config.size,
        "data": run.config.data,
        "iterations": last["iteration"],
        "train_loss": scores.train.loss,
        "val_loss": scores.val.loss,
        "bits_per_character": scores.val.bits_per_character,
        "seconds": last["seconds"],
        "tokens_per_second": last["tokens_per_second"],
        "seed": run.config.seed,
        "evaluations": run.evaluations,
    }


def _render(run: "Run", scores: "Scores") -> None:
    from drakegpt.cli.progress import duration, sparkline
    from drakegpt.evaluation.samples import sample

    last = run.evaluations[-1]
    size = " (scaled)" if run.config.size == "scaled" else ""
    console.show(
        f"{run.config.model}{size}: train loss {scores.train.loss:.4f}, "
        f"validation loss {scores.val.loss:.4f} nats per character over the whole splits "
        f"({scores.val.bits_per_character:.3f} bits per character)"
    )
    curve = sparkline([evaluation["val_loss"] for evaluation in run.evaluations])
    console.show(
        f"{last['iteration']:,} iterations in {duration(last['seconds'])}, "
        f"{last['tokens_per_second']:,.0f} tokens/s, validation {curve}"
    )
    console.show(f"Run: {run.folder}\n")
    console.show(sample(run, SAMPLE_LENGTH).rstrip())
