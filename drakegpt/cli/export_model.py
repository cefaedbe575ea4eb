"""`drakegpt export transformers` and `export onnx`: a trained model for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from drakegpt.cli import console, options
from drakegpt.cli.inputs import find_finished_run, prepare_if_file

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A finished run, as `drakegpt generate` takes it; or best, or latest.",
        autocompletion=options.complete_target,
        show_default=False,
    ),
]
Best = Annotated[
    bool, typer.Option("--best", help="The weights of the best evaluation, not the last.")
]
Licence = Annotated[
    str, typer.Option(metavar="TEXT", help="Licence of the text and the weights, for the card.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what was exported there before.")]


def transformers(
    target: Run,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write.", show_default=False)
    ],
    best: Best = False,
    licence: Licence = "",
    data: options.Data = None,
    force: Force = False,
    json: options.Json = False,
) -> None:
    """Write a folder that Hugging Face's transformers loads, as GPT-2 or GPT-NeoX."""
    from drakegpt import files
    from drakegpt.export.transformers_folder import export_transformers

    run = find_finished_run(target, data and prepare_if_file(data))
    files.remove_leftovers(folder.absolute().parent)
    written = export_transformers(run, folder, best=best, licence=licence, replace=force)
    if json:
        console.show_json({"run": run.name, "folder": str(folder), "bytes": written})
        return
    size = sum(written.values()) / 1e6
    console.show(
        f"{folder}: {run.name} in {len(written)} files, {size:.1f} MB. Its README.md is the "
        "model's card, and shows how to load it."
    )
    _ask_for_licence(licence, "README.md")


def onnx(
    target: Run,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write.", show_default=False)
    ],
    best: Best = False,
    licence: Licence = "",
    data: options.Data = None,
    force: Force = False,
    json: options.Json = False,
) -> None:
    """Write one file that ONNX Runtime computes, in any language: all models, few bits too."""
    from drakegpt import files
    from drakegpt.export.onnx_file import export_onnx

    run = find_finished_run(target, data and prepare_if_file(data))
    files.remove_leftovers(file.absolute().parent)
    size = export_onnx(run, file, best=best, licence=licence, replace=force)
    if json:
        console.show_json({"run": run.name, "file": str(file), "bytes": size})
        return
    console.show(
        f"{file}: {run.name} in {size / 1e6:.1f} MB. Its metadata has the tokenizer, and the "
        "model's card, which shows how to run it."
    )
    _ask_for_licence(licence, "metadata")


def _ask_for_licence(licence: str, place: str) -> None:
    if not licence:
        console.note(f"The licence in the {place} is left to fill in; --licence TEXT does.")
