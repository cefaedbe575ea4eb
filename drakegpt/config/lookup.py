"""Look up what is known about a setting, in the annotations of `TrainConfig`."""

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_type_hints

from drakegpt.config.schema import MODEL_NAMES, Setting, TrainConfig


def setting_of(name: str) -> Setting:
    """Return what is known about one field of `TrainConfig`."""
    return next(item for item in hints()[name].__metadata__ if isinstance(item, Setting))


def choices(name: str, given: Mapping[str, Any] | None = None) -> list[str]:
    """Return the choices of a setting; unlisted ones only if `given` has fewer bits."""
    if name == "model":
        return list(MODEL_NAMES)
    unlisted = () if (given or {}).get("bits", "full") != "full" else setting_of(name).unlisted
    names = (value for value in get_args(type_of(name)) if isinstance(value, str))
    return [name for name in names if name not in unlisted]


def incidental_settings() -> tuple[str, ...]:
    """Return the names of the settings that are no part of a run's identity."""
    return tuple(name for name in hints() if setting_of(name).incidental)


def changeable_settings() -> tuple[str, ...]:
    """Return the names of the settings that a resumed run may change."""
    return tuple(name for name in hints() if setting_of(name).changeable)


def searchable_settings() -> tuple[str, ...]:
    """Return the names of the settings that a sweep can search."""
    return tuple(name for name in hints() if setting_of(name).searchable)


def type_of(name: str) -> Any:
    """Return the type of one field of `TrainConfig`, without metadata."""
    return hints()[name].__origin__


@cache
def hints() -> dict[str, Any]:
    """Return the annotations of `TrainConfig`, with their metadata."""
    return get_type_hints(TrainConfig, include_extras=True)
