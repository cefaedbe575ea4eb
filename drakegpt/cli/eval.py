"""`drakegpt eval`: compute the exact loss of a run on whole splits, or of a mixture of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.inputs import load_dataset, prepare_if_file
from drakegpt.errors import UsageError
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.cli.tables import Column
    from drakegpt.evaluation.mixture_scoring import MixtureScores
    from drakegpt.evaluation.score import Score
    from drakegpt.runs.mixtures import RunMixture
    from drakegpt.runs.run import Run
    from drakegpt.runs.stored_scores import Scores


SAMPLES, LENGTH = 20, 1000  # of --originality


def eval_(
    targets: options.Targets = None,
    counts: options.Counts = False,
    originality: Annotated[
        bool,
        typer.Option("--originality", help="Show instead how much of what it writes is copied."),
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=1000, metavar="N", help="Texts for --originality; default: 20."),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(min=30, max=100_000, metavar="N", help="Characters of each; default: 1,000."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Judge this text, by --data or RUN's."),
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="With --originality: of the best evaluation's weights."),
    ] = False,
    by_heart: Annotated[
        bool,
        typer.Option(
            "--by-heart",
            help="Show instead which songs models like it know because they read them.",
        ),
    ] = False,
    models: Annotated[
        int | None,
        typer.Option(
            min=4, max=1000, metavar="N", help="Models for --by-heart, in pairs; default: 12."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, max=100_000, metavar="N", help="End --by-heart in this time."),
    ] = None,
    scaled: options.Scaled = False,
    data: options.Data = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Score a run on whole splits: loss, bits per character, perplexity, and a verdict.

    Several runs are scored as an ensemble, whose probabilities are averaged, on the
    validation split.
    """
    from drakegpt.cli import by_heart as memory
    from drakegpt.cli import originality as table
    from drakegpt.runs.lookup import find_run

    of_copying = {"--file": file, "--samples": samples, "--length": length}
    of_copying |= {"--best": best or None}
    _check_options("--originality", of_copying, asked=originality)
    _check_options("--by-heart", {"--models": models, "--minutes": minutes}, asked=by_heart)
    named: Sequence[str | None] = targets or [None]
    if (asked := by_heart + originality) and (counts or len(named) > 1 or asked > 1):
        which = "--originality" if originality else "--by-heart"
        raise UsageError(f"{which} judges one run.", "Leave the others out.")
    data = data and prepare_if_file(data)
    if file:
        if samples or length or best:
            raise UsageError("--file is one text, as it is.", "Leave the others out.")
        reader = find_run(targets[0], scaled=scaled, data=data) if targets else None
        judged_by = reader.load_dataset() if reader else load_dataset(data)
        table.judge_file(file, judged_by, reader, device, json=json)
        return
    runs = [find_run(target, scaled=scaled, data=data) for target in named]
    data_name = runs[0].config.data
    if not targets:
        console.note(f"{runs[0].name}: the run with the lowest validation loss on '{data_name}'.")
    if by_heart:
        memory.judge_run(runs[0], models, minutes, device, json=json)
    elif originality:
        size = samples or SAMPLES, length or LENGTH
        table.judge_run(runs[0], *size, device, best=best, json=json)
    elif counts or len(runs) > 1:
        _score_mixture(runs, device, counts=counts, json=json)
    else:
        _score_single(runs[0], device, json=json)


def _check_options(of: str, given: Mapping[str, object], *, asked: bool) -> None:
    """Raise `UsageError` for options of another one that is not asked for."""
    others = [name for name, value in given.items() if value is not None]
    if others and not asked:
        raise UsageError(f"{others[0]} is for {of}.", f"Give {of} as well.")


def _score_single(run: "Run", device: str, *, json: bool) -> None:
    from drakegpt.cli.progress import score_with_progress
    from drakegpt.runs.verdicts import judge_run

    console.note(f"Scoring {run.name} on the whole of '{run.config.data}'.")
    scores = score_with_progress(run, device)
    verdict = judge_run(run, device)
    if json:
        console.show_json(_to_json(run, scores) | {"verdict": verdict.to_json()})
        return
    _render(run, scores)
    for line in verdict.lines:
        console.show(line)


def _score_mixture(runs: Sequence["Run"], device: str, *, counts: bool, json: bool) -> None:
    from drakegpt.compute.device import choose_device
    from drakegpt.runs.mixtures import load_run_mixture, score_run_mixture

    names = ", ".join(run.name for run in runs)
    mixed = " with counts" if counts else ""
    console.note(f"Scoring {names}{mixed} on the validation split of '{runs[0].config.data}'.")
    loaded = load_run_mixture(runs, choose_device(device), counts=counts)
    scores = score_run_mixture(loaded)
    if json:
        console.show_json(_mixture_to_json(loaded, scores))
    else:
        _render_mixture(loaded, scores)


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


def _mixture_to_json(loaded: "RunMixture", scores: "MixtureScores") -> dict[str, Any]:
    result: dict[str, Any] = {
        "data": loaded.data.name,
        "runs": [
            {
                "run": str(run.folder),
                "model": run.config.model,
                "size": run.config.size,
                "iteration": run.last_checkpoint().iteration,
                "val": score.to_json(),
            }
            for run, score in zip(loaded.runs, scores.models, strict=True)
        ],
        "ensemble": scores.ensemble.to_json(),
    }
    if loaded.fitted and loaded.ngrams and scores.counts and scores.mixture:
        result["counts"] = {
            "order": loaded.ngrams.order,
            "ngrams": sum(loaded.ngrams.sizes),
            **scores.counts.to_json(),
        }
        result["mixture"] = scores.mixture.to_json()
        result["weights"] = {
            **loaded.fitted.weights.to_json(),
            "fitted_on": "training-tail" if loaded.fitted.tokens else "other texts",
            "fitted_tokens": loaded.fitted.tokens,
            "fitted_loss": loaded.fitted.loss,
        }
    return result


def _render_mixture(loaded: "RunMixture", scores: "MixtureScores") -> None:
    from drakegpt.cli.tables import show_table

    rows = [(run.name, score) for run, score in zip(loaded.runs, scores.models, strict=True)]
    if len(rows) > 1:
        rows.append(("ensemble", scores.ensemble))
    if loaded.ngrams and scores.counts and scores.mixture:
        mixed = f"{'ensemble' if len(loaded.runs) > 1 else 'run'}, mixed with counts"
        rows.append((f"counts of up to {pluralize(loaded.ngrams.order, 'token')}", scores.counts))
        rows.append((mixed, scores.mixture))
    unit = loaded.data.tokenizer.unit
    show_table(f"Validation split of {loaded.data.name}", _list_columns("model", unit), rows)
    if loaded.fitted:
        fitted = (
            f"{loaded.fitted.tokens:,} {unit}s of the training split's last tenth, which no run "
            "was trained on"
        )
        console.show(
            f"Weights of the counts: fitted on {fitted if loaded.fitted.tokens else 'other texts'}"
            "; the counts are of the whole training split."
        )


def _render(run: "Run", scores: "Scores") -> None:
    from drakegpt.cli.tables import show_table

    rows = [("train", scores.train), ("validation", scores.val)]
    if scores.tail:
        rows = [("train, without its tail", scores.train), ("tail, not trained on", scores.tail)]
        rows.append(("validation", scores.val))
    if scores.best_val != scores.val:
        rows.append(("validation, weights with the lowest estimate", scores.best_val))
    iterations = pluralize(run.last_checkpoint().iteration, "iteration")
    after = "" if run.derived else f" after {iterations}"
    columns = _list_columns("split", run.tokenizer.unit)
    show_table(f"{run.config.model} on {run.config.data}{after}", columns, rows)
    if run.history:
        console.show(f"{run.name} was {run.history}.")


def _list_columns(first: str, unit: str) -> "Sequence[Column[tuple[str, Score]]]":
    from drakegpt.cli.tables import Column

    return (
        Column(first, lambda row: row[0], wraps=True, style="bold"),
        Column(f"nats per {unit}", lambda row: f"{row[1].loss:.4f}"),
        Column("bits per character", lambda row: f"{row[1].bits_per_character:.4f}", 1),
        Column(f"perplexity per {unit}", lambda row: f"{row[1].perplexity:.2f}", 2),
        Column("characters scored", lambda row: f"{row[1].characters:,}", 3),
    )
