"""What several commands read before they start: the model and the dataset that are meant."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.config import MODEL_NAMES
from drakegpt.config.presets import PRESETS
from drakegpt.errors import UsageError

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset


def load_dataset(name: str | None) -> "Dataset":
    """Load a dataset; without a name the default, or the sample if nothing was fetched."""
    from drakegpt.data.sources import load_or_prepare_sample

    dataset, newly_prepared = load_or_prepare_sample(name)
    if newly_prepared:
        console.warn(
            f"prepared the bundled sample lyrics ({dataset.metadata.characters:,} characters); "
            "`drakegpt data fetch` gets others."
        )
    return dataset


def require_model(given: Mapping[str, Any], example: str) -> str:
    """Return the model that the settings name, or that of their preset.

    Raises `UsageError`, with `example` as a command that names one.
    """
    preset = PRESETS.get(str(given.get("preset")))
    if (model := given.get("model", preset and preset.settings["model"])) is not None:
        return str(model)
    raise UsageError(
        "No model is named.",
        f"Name one of {', '.join(MODEL_NAMES)}, e.g. `{example}`, or a --preset, or a "
        "configuration file with one.",
    )
