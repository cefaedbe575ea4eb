"""`drakegpt compare`: the ladder in one table, its curves, its samples."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt import files
from drakegpt.cli import console, options
from drakegpt.cli.train import choose_dataset
from drakegpt.config import SIZES, check_setting
from drakegpt.config import files as config_files
from drakegpt.config.presets import PRESETS
from drakegpt.errors import RunError, UsageError
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.experiments.claims import Claim
    from drakegpt.experiments.ladder import Chosen, Comparison
    from drakegpt.report.samples import Samples
    from drakegpt.runs.run import Run

# Settings that would make the ladder something else.
WITHOUT = ("bits", "init_from", "tie_embeddings")


class CompareCommand(options.SettingsCommand):
    """Which settings it does not take."""

    without = WITHOUT


def compare(
    data: options.Data = None,
    train: Annotated[
        bool, typer.Option("--train", help="First train the models without such a run.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=options.MOST_SEEDS,
            metavar="N",
            help="Seeds per model, from --set seed=S on; else all.",
        ),
    ] = None,
    bits: Annotated[
        bool, typer.Option("--bits", help="Instead: TransformerLM with fewer bits.")
    ] = False,
    remedies: Annotated[
        bool, typer.Option("--remedies", help="Instead: what helps against overfitting.")
    ] = False,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="Prompt for every sample.")] = "",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML report too.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Let --html replace a file that is no report.")
    ] = False,
    claims: Annotated[
        bool, typer.Option("--claims", help="Test what the original DrakeGPT claims.")
    ] = False,
    preset: options.Preset = None,
    recipe: options.Recipe = None,
    iters: options.Iters = None,
    scaled: options.Large = False,
    device: options.DeviceOrNone = None,
    config_file: options.ConfigFile = None,
    pairs: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare the models, trained alike: table, curves, samples.

    Taken are the runs with equal settings that most models have. Seeds of one model are one
    row. Settings choose among the runs: with --iters 2000, only runs of 2,000 iterations count.
    """
    from drakegpt.cli.several import say_damaged
    from drakegpt.experiments.claims import check_claims
    from drakegpt.experiments.ladder import compare as compare_runs
    from drakegpt.generation.prompt import fit_prompt
    from drakegpt.report import page as report
    from drakegpt.report.samples import generate_samples

    settings = _from_file(config_file, remedies=remedies) | options.settings_given(
        pairs, WITHOUT, preset=preset, recipe=recipe, iters=iters, device=device
    )
    data_in_file, size_in_file = settings.pop("data", None), settings.pop("size", None)
    data, size = data or data_in_file, "scaled" if scaled else size_in_file
    others_own = {
        "--html": html, "--force": force, "--prompt": prompt, "--claims": claims,
        "--preset": settings.get("preset", "none") != "none",
    }  # fmt: skip
    _check_table(bits=bits, remedies=remedies, ladders=[k for k, v in others_own.items() if v])
    if html:
        report.check_target(html, replace=force)
        files.remove_leftovers(html.absolute().parent)
    dataset = choose_dataset(data)
    if dataset.metadata.overlap and not json:
        console.warn(dataset.metadata.overlap)
    prompt = fit_prompt(prompt, dataset.tokenizer, skip_unknown=False).text
    if bits or remedies:
        from drakegpt.cli.few_bits import SEEDS, compare_bits
        from drakegpt.cli.remedies import compare_regularization

        instead, usual = (compare_bits, SEEDS) if bits else (compare_regularization, 1)
        instead(
            dataset, size or "default", settings,
            seeds=seeds or usual, train=train, json=json, quiet=quiet,
        )  # fmt: skip
        return
    device_name = settings.get("device", "auto")
    chosen = _choose(dataset, size, settings, seeds, train=train, quiet=quiet)
    say_damaged(chosen.damaged)
    if not (together := chosen.together):
        raise RunError(f"{next(iter(chosen.damaged.values()))}", "Train the models again.")
    if not json:
        count = sum(map(len, together))
        console.note(f"Scoring {pluralize(count, 'run')} on the whole of '{dataset.name}'.")
    comparison = compare_runs(dataset, chosen.runs, device_name, chosen.others, settings)
    samples = generate_samples([first for first, *_ in together], prompt, device_name)
    tested = check_claims(comparison.rows) if claims else None
    if html:
        page = report.render(dataset, comparison, together, samples, device_name, tested or ())
        report.check_target(html, replace=force)  # training may have taken hours
        files.write_text(html, page)
    _show(dataset, comparison, samples, tested, html, chosen.damaged, json=json)


def _from_file(path: Path | None, *, remedies: bool) -> dict[str, Any]:
    """The settings in a configuration file, each checked by itself.

    The file may be that of a run: what the remedies change is left out for these; what the
    ladder cannot have otherwise is left out, and an error where it is something else.
    """
    from drakegpt.experiments.regularization import COMPARED

    given = config_files.from_file(path) if path else {}
    for name, value in given.items():
        check_setting(name, value)
    for name in ("model", *(COMPARED if remedies else ())):
        given.pop(name, None)
    for name in WITHOUT:
        usual = PRESETS["default"][name]
        if given.pop(name, usual) != usual:
            raise UsageError(
                f"{path} sets {name}, which no model of the ladder has.", "Leave that line out."
            )
    return given


def _choose(
    dataset: "Dataset",
    size: str | None,
    settings: dict[str, Any],
    seeds: int | None,
    *,
    train: bool,
    quiet: bool,
) -> "Chosen":
    """The ladder's runs, trained first if they shall be, and the others on the same text.

    Raises `RunError` if there are none.
    """
    from drakegpt.cli.several import Training
    from drakegpt.experiments.ladder import collect_ladder, select_ladder
    from drakegpt.runs.lookup import INCIDENTAL

    if train:
        training = Training(dataset, quiet=quiet)
        chosen = collect_ladder(dataset, size or "default", settings, seeds, training)
        if not training.trained and not quiet:
            console.note("All models have a run with these settings; none to train.")
        return chosen
    chosen = select_ladder(dataset, [size] if size else SIZES, settings, seeds)
    for run, taken in chosen.passed_over:
        console.note(_left_out(run, taken))
    if not chosen.together and not chosen.damaged:
        asked = bool(settings.keys() - {*INCIDENTAL} or seeds or size)
        such = " with these settings" if asked else ""
        whole = f"`{format_command('compare', train=True, data=dataset.name)}`"
        raise RunError(
            f"No model is trained on '{dataset.name}'{such} yet.",
            f"Train all six: {'the same command with --train' if asked else whole}.",
        )
    return chosen


def _check_table(*, bits: bool, remedies: bool, ladders: list[str]) -> None:
    """Raise `UsageError` for options of another table than the one that is asked for."""
    if bits and remedies:
        raise UsageError("--bits and --remedies are two tables.", "Give one of them.")
    if (bits or remedies) and ladders:
        raise UsageError(
            f"Only the ladder has {' and '.join(ladders)}.", "Leave out --bits and --remedies."
        )


def _show(
    dataset: "Dataset",
    comparison: "Comparison",
    samples: "Samples",
    claims: "list[Claim] | None",
    html: Path | None,
    damaged: Mapping[str, str],
    *,
    json: bool,
) -> None:
    """Table, curves and samples, and what to do about what is missing or unlike."""
    from drakegpt.cli.ladder import render
    from drakegpt.cli.several import damaged_as_json
    from drakegpt.experiments.figures import draw_bits, draw_curves

    data = comparison.data
    baselines = comparison.baselines_in_view
    figures = draw_curves(data, comparison.rows, baselines) if comparison.rows else []
    if comparison.others:
        figures += draw_bits(data, [*comparison.rows, *comparison.others])
    if json:
        result = comparison.to_json()
        result["figures"] = [str(path) for path in figures]
        result["samples"] = samples.to_json()
        result["seen_share"] = dataset.metadata.seen_share
        result["songs_in_both"] = dataset.metadata.songs_in_both
        result |= {"report": str(html)} if html else {}
        result["damaged"] = damaged_as_json(damaged)
        if claims is not None:
            result["claims"] = [asdict(claim) for claim in claims]
        console.show_json(result)
        return
    render(comparison, samples.texts, claims)
    for path in figures:
        console.note(f"Figure: {path}")
    if html:
        console.note(f"Report: {html}")
    for row in (*comparison.rows, *comparison.others):
        for each in row.results:
            if each.history:
                console.warn(f"{each.run} was {each.history}")
    for row in comparison.rows:
        if row.differs:
            how = f"`{row.command}` trains it" if row.command else "it cannot be trained"
            console.warn(f"{row.label} was trained otherwise: {how} as they were")
    for missing in comparison.missing:
        makes = f"`{missing.command}` makes one" if missing.command else missing.why
        console.warn(f"no finished run of {missing.model}: {makes}")
    console.next_commands([format_command("generate", data=data, length=500)])


def _left_out(run: "Run", taken: "Run") -> str:
    """What is said of a newer run in whose place one that agrees with the others is taken."""
    from drakegpt.experiments.agreement import TRAINED_BY, differences, shared_settings

    told = f"Left out: {run.name}, newer but trained otherwise."
    if run.origin:
        return told
    differing = differences(run, shared_settings(taken))
    chosen = [f"{name}={own}" for name, (own, _) in differing.items() if name != TRAINED_BY]
    asked = format_command("compare", data=run.config.data, set_=chosen)
    return f"{told} Settings choose: `{asked}`."
