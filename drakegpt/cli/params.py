"""`drakegpt params`: count the parameters of a model, or show its code."""

from functools import partial
from typing import Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.config import LADDER, LARGEST_SIZE, MODEL_NAMES, SIZES, Preset, parse_model
from drakegpt.wording import pluralize

PUBLISHED_VOCAB_SIZE = 80  # characters of the original's text


def params(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Count this model only; default: the six models of the ladder.",
            callback=lambda name: name and parse_model(name),
            autocompletion=lambda: list(MODEL_NAMES),
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="MODEL",
            help="Print the code of this model and exit.",
            callback=lambda name: name and parse_model(name),
            autocompletion=lambda: list(MODEL_NAMES),
        ),
    ] = None,
    preset: Annotated[
        Preset,
        typer.Option(
            metavar="NAME",
            help="Count the model of a preset; `drakegpt train --list-presets` lists them.",
            show_default=False,
        ),
    ] = "none",
    vocab_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=LARGEST_SIZE,
            metavar="N",
            help="Vocabulary size; default: 80, as in the original, or that of the preset.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Count parameters by component, or print a model's code."""
    if source:
        _show_source(source, json=json)
        return
    from drakegpt.config.presets import PRESETS

    if preset == "none":
        vocab_size, sizes = vocab_size or PUBLISHED_VOCAB_SIZE, list(SIZES)
        names = [model] if model else list(LADDER)
    else:
        vocab_size, sizes = vocab_size or PRESETS[preset].vocab_size, ["default"]
        names = [model or PRESETS[preset].settings["model"]]
    counted = [_count(name, size, vocab_size, preset) for size in sizes for name in names]
    if json:
        console.show_json({"vocab_size": vocab_size, "preset": preset, "models": counted})
    else:
        _render(counted, vocab_size, preset)


def _show_source(model: str, *, json: bool) -> None:
    from drakegpt.models.source import model_source

    text = model_source(model)
    if json:
        console.show_json({"model": model, "source": text})
    else:
        console.show_text(text.rstrip("\n"))
        console.note(
            "NEW (in GPT1LM: GPT-1) marks what the model before does not have. Shapes: B windows "
            "in a batch, T tokens in a window, C numbers for a token, V tokens in the vocabulary."
        )


def _count(model: str, size: str, vocab_size: int, preset: str) -> dict[str, Any]:
    """Count the parameters of one model."""
    from drakegpt.config import preset_model
    from drakegpt.evaluation.parameters import compute_published_parameters
    from drakegpt.models.size import count_parameters

    config = preset_model(model, size, vocab_size, preset)
    components = count_parameters(config)
    return {
        "name": model,
        "size": size,
        "counted": sum(components.values()),
        "published": compute_published_parameters(config),
        "components": components,
    }


def _render(models: list[dict[str, Any]], vocab_size: int, preset: str) -> None:
    from drakegpt.cli.tables import Column, show_table
    from drakegpt.evaluation.parameters import PRINTED, WHY_THEY_DIFFER

    for size in dict.fromkeys(entry["size"] for entry in models):
        shown = [entry for entry in models if entry["size"] == size]
        printed = {name for name, of in PRINTED if of == size} if preset == "none" else set()
        where = f"of {preset}" if preset != "none" else f"at {size} size"
        columns: tuple[Column[dict[str, Any]], ...] = (
            Column("model", lambda entry: entry["name"], style="bold"),
            Column("counted", lambda entry: f"{entry['counted']:,}", style="green"),
            Column("published", partial(_published, printed=printed), 2, style="yellow"),
            Column("counted, by component", _by_component, 1, wraps=True),
        )
        title = f"Parameters {where}, with a vocabulary of {pluralize(vocab_size, 'token')}"
        show_table(title, columns, shown)
    published_models = dict.fromkeys(entry["name"] for entry in models if entry["published"])
    if not published_models:
        return
    console.show("\nThe published figures come from a formula worked out by hand. Its errors:")
    for name in published_models:
        console.show(f"  {name}: {WHY_THEY_DIFFER[name]}")
    console.show("V: vocabulary size, T: context length, C: width.")
    console.show("Figures in brackets were not published; the same formula gives them.")
    if vocab_size != PUBLISHED_VOCAB_SIZE:
        console.show(
            f"Published for {PUBLISHED_VOCAB_SIZE} characters; the formula is applied to yours."
        )


def _published(entry: dict[str, Any], printed: set[str]) -> str:
    """Return the published figure, in brackets if the formula gives it only."""
    if entry["published"] is None:
        return ""
    figure = f"{entry['published']:,}"
    return figure if entry["name"] in printed else f"({figure})"


def _by_component(entry: dict[str, Any]) -> str:
    return " · ".join(f"{name} {count:,}" for name, count in entry["components"].items())
