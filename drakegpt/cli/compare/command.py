"""`drakegpt compare`: reads its options, and calls the table that is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.inputs import load_dataset
from drakegpt.cli.settings import SettingsCommand, read_settings
from drakegpt.config import check_setting, files
from drakegpt.config.presets import SIZE_SETTINGS
from drakegpt.errors import UsageError

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset

# Settings that no model of the ladder has, and what to do.
WITHOUT = {
    "bits": "`drakegpt compare --low-bit` compares low-bit weights.",
    "init_from": "Leave it out.",
    "tie_embeddings": "Leave it out.",
}


class CompareCommand(SettingsCommand):
    """`compare`, and the settings that it does not take."""

    without = WITHOUT


def compare(
    data: options.Data = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train the models that lack such a run.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=options.MAX_SEEDS,
            metavar="N",
            help="Number of seeds, the first one set by --set seed=S; default: all there are.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a page in which the models run."),
    ] = None,
    static: Annotated[
        bool, typer.Option("--static", help="Leave the models out of the page.")
    ] = False,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="Prompt for every sample.")] = "",
    claims: Annotated[
        bool, typer.Option("--claims", help="Check the claims of the original DrakeGPT.")
    ] = False,
    low_bit: Annotated[
        bool, typer.Option("--low-bit", help="Compare low-bit weights instead.")
    ] = False,
    regularization: Annotated[
        bool, typer.Option("--regularization", help="Compare regularizers instead.")
    ] = False,
    recipe_steps: Annotated[
        bool,
        typer.Option("--recipe-steps", help="Show what each idea of recipe best brings instead."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Let --html replace a file that is not a page.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    preset: options.LadderPreset = None,
    recipe: options.Recipe = None,
    iters: options.Iters = None,
    scaled: options.ScaledRuns = False,
    device: options.OptionalDevice = None,
    config_file: options.ConfigFile = None,
    pairs: options.Set = None,
) -> None:
    """Compare the six models: losses, n-gram baselines, curves, samples.

    It compares the largest set of runs with equal settings, one row per model. Settings choose
    among the runs: with --iters 2000, only runs of 2,000 iterations count.
    """
    settings = _read_file(config_file, regularization=regularization) | read_settings(
        pairs, WITHOUT, preset=preset, recipe=recipe, iters=iters, device=device
    )
    if settings.get("preset") == "original":
        settings["preset"] = "none"
    data_in_file, size_in_file = settings.pop("data", None), settings.pop("size", None)
    size = "scaled" if scaled else size_in_file
    of_ladder = {
        "--html": html, "--static": static, "--force": force, "--prompt": prompt,
        "--claims": claims, "--preset": settings.get("preset", "none") != "none",
    }  # fmt: skip
    given = [flag for flag, value in of_ladder.items() if value]
    tables = {
        "--low-bit": low_bit, "--regularization": regularization, "--recipe-steps": recipe_steps
    }  # fmt: skip
    _check_table([flag for flag, value in tables.items() if value], given)
    common: dict[str, Any] = {"train": train, "json": json, "quiet": quiet}
    if low_bit:
        from drakegpt.cli.compare.low_bit import SEEDS, compare_low_bit

        dataset = _load_dataset(data or data_in_file, json=json)
        compare_low_bit(dataset, size or "default", settings, seeds=seeds or SEEDS, **common)
    elif regularization:
        from drakegpt.cli.compare.regularization import compare_regularization

        dataset = _load_dataset(data or data_in_file, json=json)
        compare_regularization(dataset, size or "default", settings, seeds=seeds or 1, **common)
    elif recipe_steps:
        from drakegpt.cli.compare.recipe_steps import compare_recipe_steps

        dataset = _load_dataset(data or data_in_file, json=json)
        compare_recipe_steps(dataset, size or "default", settings, seeds=seeds or 1, **common)
    else:
        from drakegpt.cli.compare.ladder import Request, compare_ladder, prepare_target

        prepare_target(html, force=force)
        dataset = _load_dataset(data or data_in_file, json=json)
        request = Request(size, settings, seeds, prompt, html, static, force, claims, **common)
        compare_ladder(dataset, request)


def _load_dataset(name: str | None, *, json: bool) -> "Dataset":
    """Load a dataset, and warn if its splits overlap."""
    dataset = load_dataset(name)
    if dataset.metadata.overlap and not json:
        console.warn(dataset.metadata.overlap)
    return dataset


def _read_file(path: Path | None, *, regularization: bool) -> dict[str, Any]:
    """Read the settings of a configuration file, each checked by itself.

    The file may be a run's own. The model is left out, and so is what the table of
    regularizers changes. What the ladder cannot have must be at its default.
    """
    from drakegpt.experiments.regularization import COMPARED

    given = files.from_file(path) if path else {}
    for name, value in given.items():
        check_setting(name, value)
    for name in ("model", *(COMPARED if regularization else ())):
        given.pop(name, None)
    for name in WITHOUT:
        default = SIZE_SETTINGS["default"][name]
        if given.pop(name, default) != default:
            raise UsageError(
                f"{path} sets {name}, which no model of the ladder has.", "Leave that line out."
            )
    return given


def _check_table(tables: list[str], of_ladder: list[str]) -> None:
    """Raise `UsageError` for options of another table than the one that is asked for."""
    if len(tables) > 1:
        raise UsageError(f"{' and '.join(tables)} are different tables.", "Give one of them.")
    if tables and of_ladder:
        raise UsageError(
            f"Only the table of the ladder has {' and '.join(of_ladder)}.",
            f"Leave out {tables[0]}.",
        )
