"""`drakegpt params`: parameters counted from the real modules, beside the published figures."""

from typing import Annotated

import typer

from drakegpt.cli import console, options
from drakegpt.config import LADDER, LARGEST_SIZE, MODEL_NAMES, SIZES, Preset, model_named


def params(
    model: Annotated[
        str | None,
        typer.Option(
            help="One model instead of the ladder's six.",
            callback=lambda name: name and model_named(name),
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
    from drakegpt.evaluation.parameters import published_parameters
    from drakegpt.models.size import count_parameters
    from drakegpt.presets import SYSTEMS

    vocab_size = vocab_size or (80 if preset == "none" else SYSTEMS[preset].vocab_size)
    sizes, models = list(SIZES), [model] if model else list(LADDER)
    if preset != "none":
        sizes, models = ["default"], [model or SYSTEMS[preset].settings["model"]]
    counted = []
    for size in sizes:
        for name in models:
            config = preset_model(name, size, vocab_size, preset)
            components = count_parameters(config)
            counted.append(
                {
                    "name": name,
                    "size": size,
                    "counted": sum(components.values()),
                    "published": published_parameters(config),
                    "components": components,
                }
            )
    if json:
        console.show_json({"vocab_size": vocab_size, "preset": preset, "models": counted})
    else:
        _render(counted, vocab_size, preset)


def _render(models: list[dict], vocab_size: int, preset: str) -> None:  # type: ignore[type-arg]
    from rich.table import Table

    from drakegpt.evaluation.parameters import PRINTED, WHY_THEY_DIFFER

    for size in dict.fromkeys(entry["size"] for entry in models):
        shown = [entry for entry in models if entry["size"] == size]
        where = f"of {preset}" if preset != "none" else f"at {size} size"
        table = Table(
            title=f"Parameters {where}, {vocab_size:,} tokens in the vocabulary",
            title_justify="left",
        )
        table.add_column("model", style="bold", no_wrap=True)
        table.add_column("counted", justify="right", style="green", no_wrap=True)
        table.add_column("published", justify="right", style="yellow", no_wrap=True)
        table.add_column("counted, by component")
        for entry in shown:
            parts = " · ".join(f"{name} {n:,}" for name, n in entry["components"].items())
            published = "" if entry["published"] is None else f"{entry['published']:,}"
            printed = preset == "none" and (entry["name"], size) in PRINTED
            if published and not printed:
                published = f"({published})"
            table.add_row(entry["name"], f"{entry['counted']:,}", published, parts)
        console.show(table)
    published_models = dict.fromkeys(entry["name"] for entry in models if entry["published"])
    if not published_models:
        return
    console.show("\nThe published figures come from a formula worked out by hand, which")
    for name in published_models:
        console.show(f"  {name}: {WHY_THEY_DIFFER[name]}")
    console.show("Figures in brackets were not printed; the same formula gives them.")
    if vocab_size != 80:
        console.show("Published for 80 characters; here the same formula for yours.")
