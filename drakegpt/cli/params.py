"""`drakegpt params`: parameters counted from the real modules, beside the published figures."""

from typing import Annotated

import typer

from drakegpt.cli import console, options
from drakegpt.config import MODEL_NAMES, SIZES, model_named


def params(
    model: Annotated[
        str | None,
        typer.Option(
            help="One model instead of all six.",
            callback=lambda name: name and model_named(name),
            autocompletion=lambda: list(MODEL_NAMES),
        ),
    ] = None,
    vocab_size: Annotated[
        int, typer.Option(min=1, help="Characters in the vocabulary; the original corpus has 80.")
    ] = 80,
    json: options.Json = False,
) -> None:
    """Count each model's parameters by component, beside the published figures."""
    from drakegpt.config import preset_model
    from drakegpt.evaluation.parameters import count_parameters, published_parameters

    counted = []
    for size in SIZES:
        for name in [model] if model else MODEL_NAMES:
            config = preset_model(name, size, vocab_size)
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
        console.show_json({"vocab_size": vocab_size, "models": counted})
    else:
        _render(counted, vocab_size)


def _render(models: list[dict], vocab_size: int) -> None:  # type: ignore[type-arg]
    from rich.table import Table

    from drakegpt.evaluation.parameters import PRINTED, WHY_THEY_DIFFER

    for size in SIZES:
        shown = [entry for entry in models if entry["size"] == size]
        table = Table(
            title=f"Parameters at {size} size, {vocab_size} characters in the vocabulary",
            title_justify="left",
        )
        table.add_column("model", style="bold", no_wrap=True)
        table.add_column("counted", justify="right", style="green", no_wrap=True)
        table.add_column("published", justify="right", style="yellow", no_wrap=True)
        table.add_column("counted, by component")
        for entry in shown:
            parts = " · ".join(f"{name} {n:,}" for name, n in entry["components"].items())
            published = f"{entry['published']:,}"
            if (entry["name"], size) not in PRINTED:
                published = f"({published})"
            table.add_row(entry["name"], f"{entry['counted']:,}", published, parts)
        console.show(table)
    console.show("\nThe published figures come from a formula worked out by hand, which")
    for name in dict.fromkeys(entry["name"] for entry in models):
        console.show(f"  {name}: {WHY_THEY_DIFFER[name]}")
    console.show("Figures in brackets were not printed; the same formula gives them.")
    if vocab_size != 80:
        console.show("Published for 80 characters; here the same formula for yours.")
