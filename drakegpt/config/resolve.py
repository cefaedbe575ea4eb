"""Make settings complete: ordered layers over presets, and what follows from them.

A later layer wins; what no layer gives comes from the preset of the size, of the
system and of the recipe.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from drakegpt.config.presets import EVALUATIONS, PRESETS, SYSTEMS, recipe
from drakegpt.config.schema import (
    MODEL_NAMES,
    ModelConfig,
    ModelName,
    TrainConfig,
    setting_of,
    type_of,
)
from drakegpt.config.validate import check_setting, check_together, validate
from drakegpt.errors import UsageError, shorten, show_value, suggest_name


def resolve(model: str, size: str, data: str, *layers: Mapping[str, Any]) -> TrainConfig:
    """Fill in the presets under the given layers of settings; a later layer wins.

    Settings that are `None` count as not given. Raises `UsageError` that names
    the setting and what it may be.
    """
    return check_together(validate(merge_layers(model, size, data, *layers)))


def merge_layers(model: str, size: str, data: str, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """What `resolve` resolves to, not checked yet."""
    given: dict[str, Any] = {"model": model, "size": size, "data": data}
    for layer in layers:
        given |= {key: value for key, value in layer.items() if value is not None}
    of_size, of_system = _presets(given)
    settings = of_size | of_system | given
    if isinstance(settings.get("embedding_dim"), int):
        suited = recipe(settings)
        # A recipe other than that of a system goes before it.
        presets = of_size | of_system
        asked = any(given.get(k, presets.get(k)) != presets.get(k) for k in ("recipe", "bits"))
        settings |= (of_system | suited if asked else suited | of_system) | given
    if isinstance(settings.get("iters"), int):
        settings = _derived(settings) | settings
    return settings


def _presets(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the size and of the system that are asked for, if there are such."""
    size, system = (str(given.get(key, "")) for key in ("size", "preset"))
    settings = SYSTEMS[system].settings if system in SYSTEMS else {}
    return dict(PRESETS.get(size, {})), dict(settings)


def _derived(settings: Mapping[str, Any]) -> dict[str, int]:
    """What follows from the number of iterations where it is not given."""
    a_twentieth = -(-settings["iters"] // EVALUATIONS)  # rounded up
    warms_up = settings.get("schedule") in ("cosine", "hold", "two-stage")
    return {
        "eval_interval": a_twentieth,
        "warmup_iters": a_twentieth if warms_up else 0,
    }


def preset_model(model: str, size: str, vocab_size: int, preset: str = "none") -> ModelConfig:
    """The model of a preset, without anything about training."""
    return resolve(model, size, "", {"preset": preset}).model_settings(vocab_size)


def parse_setting_name(text: str, among: Sequence[str]) -> str:
    """The setting of that name, written with `-` or `_`; raises `UsageError`."""
    name = text.strip().replace("-", "_")
    if name in among:
        return name
    raise UsageError(
        f"There is no setting named '{shorten(text)}' here.",
        f"{suggest_name(name, among)}The settings are: {', '.join(among)}.",
    )


def parse_value(name: str, text: str) -> Any:
    """The value of a setting that a text stands for, checked; raises `UsageError`."""
    kind = type_of(name)
    value: Any = text.strip()
    if kind in (int, float, bool, bool | None):
        try:
            value = kind(value) if kind in (int, float) else _SWITCHES[value.lower()]
        except (ValueError, KeyError):
            wanted = {int: "a whole number", float: "a number"}.get(kind, "true or false")
            raise UsageError(
                f"{name} cannot be {show_value(value)}: it is {wanted}.",
                f"Give it another value. It is: {setting_of(name).help}",
            ) from None
    check_setting(name, value)
    return value


# How the command line reads an environment variable that stands for a flag.
_SWITCHES = dict.fromkeys(("true", "1", "yes", "on"), True)
_SWITCHES |= dict.fromkeys(("false", "0", "no", "off"), False)


def find_model(text: str, among: Sequence[str] = MODEL_NAMES) -> ModelName | None:
    """The model of that name in any case, if there is one."""
    return next((name for name in among if name.lower() == text.lower()), None)


def parse_model(text: str, among: Sequence[str] = MODEL_NAMES) -> ModelName:
    """The model of that name in any case; raises `UsageError` that lists them, or says which."""
    if model := find_model(text, among):
        return model
    raise UsageError(
        f"There is no model named '{shorten(text)}' here.",
        f"{suggest_name(text, among)}The models are: {', '.join(among)}.",
    )
