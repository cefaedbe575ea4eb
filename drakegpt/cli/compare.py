"""`drakegpt compare`: the ladder in one table, its curves, its claims, its voices."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.few_bits import SEEDS, compare_bits
from drakegpt.cli.ladder import render
from drakegpt.cli.remedies import compare_remedies
from drakegpt.cli.several import train_runs
from drakegpt.cli.train import choose_dataset, settled
from drakegpt.config import SIZES
from drakegpt.errors import RunError, UsageError
from drakegpt.presets import PRESETS

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.evaluation.comparison import Comparison
    from drakegpt.evaluation.samples import Samples

# Settings that would make the ladder something else.
WITHOUT = ("bits", "scale", "init_from", "preset", "tie_embeddings")


@partial(options.with_settings, without=WITHOUT)
def compare(
    settings: dict[str, Any],
    data: options.Data = None,
    train: Annotated[
        bool,
        typer.Option("--train", help="First train the models without such a run."),
    ] = False,
    scaled: Annotated[
        bool, typer.Option("--scaled", help="The scaled size only; with --train, train that size.")
    ] = False,
    bits: Annotated[
        bool,
        typer.Option(
            "--bits", help="Instead of the ladder: TransformerLM with weights of fewer bits."
        ),
    ] = False,
    remedies: Annotated[
        bool, typer.Option("--remedies", help="Instead: what helps a model that overfits.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="So many, from --seed on; else all (--bits: 3, --remedies: 1)."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="What each model's sample goes on from.")] = "",
    html: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write it all as one HTML page too, to this file."),
    ] = None,
    entropy: Annotated[
        float | None,
        typer.Option(min=0, help="The entropy of the text's source, if known, in bits/character."),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare the latest run of each model on a dataset: one table, both curves, samples.

    Runs that differ in their seed alone are one row: their mean and its spread. Settings
    choose among the runs: with --iters 2000, only runs of 2,000 iterations count.
    """
    from drakegpt.evaluation.comparison import compare as compare_runs
    from drakegpt.evaluation.report import check_target, write_report
    from drakegpt.evaluation.samples import samples_of
    from drakegpt.evaluation.selection import select_others, select_runs
    from drakegpt.generation.prompt import fit

    if html and (bits or remedies):
        raise UsageError("--html shows the ladder alone.", "Leave out --bits and --remedies.")
    if html:
        check_target(html)
    dataset = choose_dataset(data)
    prompt = fit(prompt, dataset.tokenizer, skip_unknown=False).text
    if bits or remedies:
        instead, usual = (compare_bits, SEEDS) if bits else (compare_remedies, 1)
        size, count = ("scaled" if scaled else "default"), seeds or usual
        instead(dataset, size, settings, seeds=count, train=train, json=json, quiet=quiet)
        return
    sizes = ["scaled"] if scaled else (["default"] if train else SIZES)
    device = settings.get("device", "auto")
    settings |= _length(dataset, sizes[0], settings)
    # Where to compute and how long a trial may take do not make a run another one.
    identity = {k: v for k, v in settings.items() if k not in ("device", "minutes", "wandb")}
    wanted = _seeds(identity, seeds)
    if train:
        identity = {"recipe": "original"} | identity
        _train_missing(dataset, sizes[0], settings, identity, wanted, quiet=quiet)
    runs = select_runs(dataset, sizes, identity, wanted)
    others = [] if train else select_others(dataset, sizes, identity, wanted)
    together = [*runs.values(), *others]
    if not together:
        such = " with these settings" if identity or wanted else ""
        raise RunError(
            f"No model is trained on '{dataset.name}'{such} yet.",
            f"Train all six: `drakegpt compare --train --data {dataset.name}`.",
        )
    if not json:
        count = sum(map(len, together))
        console.note(f"Scoring {count} runs on the whole of '{dataset.name}'.")
    nats = None if entropy is None else entropy * math.log(2)
    comparison = compare_runs(dataset, runs, device, others, nats)
    samples = samples_of([first for first, *_ in together], prompt, device)
    if html:
        write_report(html, dataset, comparison, together, samples, device)
    _show(comparison, samples, html, json=json)


def _seeds(identity: dict[str, Any], count: int | None) -> range:
    """The seeds asked for by a number of them, which take the place of a single one; or none."""
    if count is None:
        return range(0)
    first = identity.pop("seed", PRESETS["default"]["seed"])
    return range(first, first + count)


def _show(comparison: "Comparison", samples: "Samples", html: Path | None, *, json: bool) -> None:
    """Table, curves and samples, and what to do about what is missing or unlike."""
    from drakegpt.evaluation.figures import draw_bits, draw_curves

    data = comparison.data
    in_sight, entropy = comparison.floors_in_sight, comparison.entropy
    figures = draw_curves(data, comparison.rows, in_sight, entropy)
    if comparison.others:
        figures += draw_bits(data, [*comparison.rows, *comparison.others])
    if json:
        result = comparison.to_json()
        result["figures"] = [str(path) for path in figures]
        result["samples"] = samples.to_json()
        result |= {"report": str(html)} if html else {}
        console.show_json(result)
        return
    render(comparison, samples.texts)
    for path in figures:
        console.note(f"Figure: {path}")
    if html:
        console.note(f"Report: {html}")
    trained = sorted({row.iterations for row in comparison.rows if row.iterations})
    if len(trained) > 1:
        listed = ", ".join(f"{iterations:,}" for iterations in trained)
        console.warn(
            f"these runs differ in length ({listed} iterations); `drakegpt compare --train "
            f"--iters {trained[-1]}` makes them alike"
        )
    for model, size in comparison.missing:
        flag = " --scaled" if size == "scaled" else ""
        make = f"drakegpt train {model}{flag} --data {data}"
        console.warn(f"no finished run of {model}: `{make}` makes one")
    console.next_commands([f"drakegpt generate --data {data} --length 500"])


def _length(dataset: "Dataset", size: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Epochs in iterations: as many for each model."""
    from drakegpt.config import resolve
    from drakegpt.training.budget import length_of

    if not settings.get("epochs"):
        return {}
    return length_of(resolve("TransformerLM", size, dataset.name, settings), dataset)


def _train_missing(
    dataset: "Dataset",
    size: str,
    settings: dict[str, Any],
    identity: dict[str, Any],
    seeds: Sequence[int],
    *,
    quiet: bool,
) -> None:
    """Train each model that has no run yet, for each of `seeds` if there are any."""
    from drakegpt.evaluation.selection import missing_models, select_runs

    configs = []
    for of_seed in [{"seed": seed} for seed in seeds] or [{}]:
        there = select_runs(dataset, [size], identity | of_seed)
        for model, _ in missing_models(there, [size]):
            given = settings | of_seed | {"model": model, "size": size}
            configs.append(settled(given, dataset))
    train_runs(configs, dataset, quiet=quiet, go_on=True)
    if not configs and not quiet:
        console.note("All models have a run with these settings; none to train.")
