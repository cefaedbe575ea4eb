"""`drakegpt params`: parameters counted from the real modules, beside the published figures."""

from functools import partial
from typing import Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.config import LADDER, LARGEST_SIZE, MODEL_NAMES, SIZES, Preset, parse_model
from drakegpt.wording import pluralize


def params(
    model: Annotated[
        str | None,
        typer.Option(
            help="One model instead of the ladder's six.",
            callback=lambda name: name and parse_model(name),
            autocompletion=lambda: list(MODEL_NAMES),
        ),
    ] = None,
    preset: Annotated[
        Preset, typer.Option(help="The model of a system; `train --list-presets` describes them.")
    ] = "none",
    vocab_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=LARGEST_SIZE,
            help="Tokens in the vocabulary: the original's 80 characters, or the preset's.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Count parameters by component, beside the published figures."""
    from drakegpt.config import preset_model
    from drakegpt.config.presets import SYSTEMS
    from drakegpt.evaluation.parameters import compute_published_parameters
    from drakegpt.models.size import count_parameters

    vocab_size = vocab_size or (80 if preset == "none" else SYSTEMS[preset].vocab_size)
    sizes, models = list(SIZES), [model] if model else list(LADDER)
    if preset != "none":
        sizes, models = ["default"], [model or SYSTEMS[preset].settings["model"]]
    models_counted: list[dict[str, Any]] = []
    for size in sizes:
        for name in models:
            config = preset_model(name, size, vocab_size, preset)
            components = count_parameters(config)
            models_counted.append(
                {
                    "name": name,
                    "size": size,
                    "counted": sum(components.values()),
                    "published": compute_published_parameters(config),
                    "components": components,
                }
            )
    if json:
        console.show_json({"vocab_size": vocab_size, "preset": preset, "models": models_counted})
    else:
        _render(models_counted, vocab_size, preset)


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
        title = f"Parameters {where}, {pluralize(vocab_size, 'token')} in the vocabulary"
        show_table(title, columns, shown)
    published_models = dict.fromkeys(entry["name"] for entry in models if entry["published"])
    if not published_models:
        return
    console.show("\nThe published figures come from a formula worked out by hand, which")
    for name in published_models:
        console.show(f"  {name}: {WHY_THEY_DIFFER[name]}")
    console.show("Figures in brackets were not printed; the same formula gives them.")
    if vocab_size != 80:
        console.show("Published for 80 characters; here the same formula for yours.")


def _published(entry: dict[str, Any], printed: set[str]) -> str:
    """The published figure, in brackets where it was not printed."""
    if entry["published"] is None:
        return ""
    figure = f"{entry['published']:,}"
    return figure if entry["name"] in printed else f"({figure})"


def _by_component(entry: dict[str, Any]) -> str:
    return " · ".join(f"{name} {count:,}" for name, count in entry["components"].items())
