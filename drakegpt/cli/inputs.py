"""What several commands read before they start: the model and the dataset that are meant."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.config import MODEL_NAMES
from drakegpt.config.presets import PRESETS
from drakegpt.errors import UsageError, show_value

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.runs.run import Run


def prepare_if_file(name: str) -> str:
    """Return the name of a dataset: the one given, or that of the file at this path, prepared.

    A dataset's name wins over a file of that name.
    """
    from drakegpt.data.dataset import list_names

    path = os.path.expanduser(name)  # noqa: PTH111 - names that cannot be paths are no error here
    if name in list_names() or not os.path.isfile(path):  # noqa: PTH113
        return name
    from drakegpt.cli.progress import fetch_progress
    from drakegpt.data.sources import fetch

    with fetch_progress(name) as progress:
        fetched = fetch(name, progress=progress)
    prepared = fetched.dataset.name
    done = {"already there": "is prepared already as", "changed": "has changed: a new version of"}
    console.warn(
        f"{name} {done.get(fetched.outcome, 'is prepared as')} the dataset '{prepared}', with one "
        "token per character, as by `drakegpt data fetch`."
    )
    return prepared


def load_dataset(name: str | None) -> "Dataset":
    """Load a dataset; without a name the default, or the sample if nothing was fetched.

    A file is prepared first, as `prepare_if_file` does.
    """
    from drakegpt.data.sources import load_or_prepare_sample

    if name is not None and not isinstance(name, str):  # from a configuration file
        raise UsageError(
            f"data cannot be {show_value(name)}: it is the name of a dataset.",
            "`drakegpt data list` lists them.",
        )
    name = name and prepare_if_file(name)
    dataset, newly_prepared = load_or_prepare_sample(name)
    if newly_prepared:
        console.warn(
            f"prepared the bundled sample lyrics ({dataset.metadata.characters:,} characters); "
            "`drakegpt data fetch` gets others."
        )
    return dataset


def read_text_file(path: Path) -> str:
    """Read a short text of a user's; raises `UsageError` if it cannot be read, or is empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Check its name.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8.", "Save it as UTF-8.") from error
    if not text.strip():
        raise UsageError(f"{path} holds no text.", "Name a file with some text in it.")
    return text


def find_finished_run(target: str, data: str | None) -> "Run":
    """Find the run that is named; raises `RunError` if it is not finished."""
    from drakegpt.runs.lookup import find_run

    run = find_run(target, data=data)
    run.check_finished()
    return run


def require_model(given: Mapping[str, Any], example: str) -> str:
    """Return the model that the settings name, or that of their preset.

    Raises `UsageError`, with `example` as a command that names one.
    """
    preset = PRESETS.get(str(given.get("preset")))
    if (model := given.get("model", preset and preset.settings.get("model"))) is not None:
        return str(model)
    raise UsageError(
        "No model is named.",
        f"Name one of {', '.join(MODEL_NAMES)}, e.g. `{example}`, or a --preset, or a "
        "configuration file with one.",
    )
