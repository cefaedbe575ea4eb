"""`drakegpt export page`: one file in which trained models run, for any browser."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from drakegpt.cli import console, options
from drakegpt.cli.inputs import find_finished_run, load_dataset, read_text_file
from drakegpt.errors import UsageError


def page(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Runs on one text, as `drakegpt generate` takes them, in their order.",
            autocompletion=options.complete_target,
            show_default=False,
        ),
    ] = None,
    data: options.Data = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Default: the dataset's name, here, as .html."),
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Title of the page.")] = "",
    text: Annotated[
        str, typer.Option(metavar="TEXT", help="Text to look into; default: a held-out verse.")
    ] = "",
    text_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same, from a file.")
    ] = None,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="Prompt for every sample.")] = "",
    precision: Annotated[
        Literal["float32", "float16", "int8"] | None,
        typer.Option(
            metavar="TYPE",
            help="Of the weights: float32, float16 or int8; default: int8 from 0.2 million on.",
        ),
    ] = None,
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="Licence of the text and the models.")
    ] = "",
    static: Annotated[
        bool, typer.Option("--static", help="Leave the models out of the page.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is not a page.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a page that runs models in any browser, without a network: one file to pass on.

    Without RUN it holds what `drakegpt compare` shows, and the best run of the dataset.
    """
    from drakegpt import files
    from drakegpt.cli.progress import counting
    from drakegpt.generation.prompt import fit_prompt
    from drakegpt.report.contents import choose_runs, collect_contents
    from drakegpt.report.target import check_target

    begin_with = _read_text(text, text_file)
    runs = [find_finished_run(target, data) for target in dict.fromkeys(targets or ())]
    dataset = load_dataset(data or (runs[0].config.data if runs else None))
    path = output or Path(f"{dataset.name}.html")
    check_target(path, "--output", replace=force)
    files.remove_leftovers(path.absolute().parent)
    known_prompt = fit_prompt(prompt, dataset.tokenizer, skip_unknown=False).text
    with counting("Page", quiet=quiet or json) as progress:
        contents = collect_contents(
            dataset, choose_runs(dataset, runs), prompt=known_prompt, named=bool(runs),
            static=static, precision=precision, text=begin_with, progress=progress,
        )  # fmt: skip
    files.write_text(path, contents.render(title=title, licence=licence))
    size = path.stat().st_size
    if json:
        shown = [first.name for first, *_ in contents.runs]
        console.show_json({"page": str(path), "bytes": size, "runs": shown})
        return
    console.show(f"{path}: {size / 1e6:.1f} MB. Open it in a browser; it needs nothing else.")


def _read_text(text: str, file: Path | None) -> str:
    """Return the text that the views begin with."""
    if text and file:
        raise UsageError("--text and --text-file are the same.", "Give one of them.")
    if file:
        text = read_text_file(file)
    return text
