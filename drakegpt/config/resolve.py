"""Resolve settings: ordered layers over presets, and settings that follow from others.

A later layer wins. What no layer gives comes from the size, the preset and the recipe.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from drakegpt.config.lookup import setting_of, type_of
from drakegpt.config.model_facts import MODEL_FACTS, ModelFacts
from drakegpt.config.presets import (
    EVAL_ITERS,
    EVALUATIONS,
    PRESETS,
    SIZE_SETTINGS,
    choose_ema,
    choose_eval_iters,
    recipe_settings,
)
from drakegpt.config.schema import (
    LARGEST_FLOAT,
    MODEL_NAMES,
    ModelConfig,
    ModelName,
    TrainConfig,
)
from drakegpt.config.validate import check_setting, check_together, validate
from drakegpt.errors import UsageError, shorten, show_value, suggest_name, suggest_or_list


def resolve(model: str, size: str, data: str, *layers: Mapping[str, Any]) -> TrainConfig:
    """Complete the given layers of settings from the presets; a later layer wins.

    Settings that are `None` count as not given. Raises `UsageError` that names the wrong
    setting and the values it can have.
    """
    return check_together(validate(merge_layers(model, size, data, *layers)))


# Schedules that never go down to `base_lr`.
WITHOUT_LOWEST_RATE = ("constant", "step", "plateau")


def expand_lr(lr: float, model: str, size: str, *layers: Mapping[str, Any]) -> dict[str, float]:
    """Return the learning rates that `lr`, the peak of the schedule, stands for.

    The other rates keep their ratio to it: `base_lr` where the schedule goes down to it, else
    it is `lr` too, and with Muon `muon_lr`. What the layers give explicitly stays as it is.
    Raises `UsageError` for a rate that is not valid, or if the layers give `max_lr`.
    """
    if not (math.isfinite(lr) and 0 < lr <= LARGEST_FLOAT):
        raise UsageError(f"lr cannot be {lr}: it is a number above 0.", "Give it another value.")
    given = {key: value for layer in layers for key, value in layer.items() if value is not None}
    if "max_lr" in given:
        raise UsageError(
            "lr and max_lr both set the peak learning rate.", "Leave one of the two out."
        )
    settings = merge_layers(model, size, "", given)
    if not isinstance(settings.get("max_lr"), float):  # a size or preset that does not exist
        return {"max_lr": lr}
    factor = lr / settings["max_lr"]
    rates = {"max_lr": lr, "base_lr": factor * settings["base_lr"]}
    if settings["schedule"] in WITHOUT_LOWEST_RATE:
        rates["base_lr"] = lr
    if settings["optimizer"] == "muon":
        rates["muon_lr"] = factor * settings["muon_lr"]
    return {name: rate for name, rate in rates.items() if name not in given}


def merge_layers(model: str, size: str, data: str, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `resolve` does, without checking it."""
    given: dict[str, Any] = {"model": model, "size": size, "data": data}
    for layer in layers:
        given |= {key: value for key, value in layer.items() if value is not None}
    if given.get("preset") == "original":  # what there is without a preset
        given["preset"] = "none"
    of_size, of_preset = _select_presets(given)
    settings = of_size | of_preset | given
    if isinstance(settings.get("embedding_dim"), int):
        of_recipe = recipe_settings(settings)
        # A recipe other than that of the preset wins over it.
        presets = of_size | of_preset
        wins = any(given.get(k, presets.get(k)) != presets.get(k) for k in ("recipe", "bits"))
        settings |= (of_preset | of_recipe if wins else of_recipe | of_preset) | given
    settings = _derive(settings) | settings
    return {"eval_iters": _derive_eval_iters(settings)} | settings


def _select_presets(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the given size and preset; empty if they do not exist."""
    size, preset = (str(given.get(key, "")) for key in ("size", "preset"))
    of_preset = PRESETS[preset].settings if preset in PRESETS else {}
    return dict(SIZE_SETTINGS.get(size, {})), dict(of_preset)


def _derive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Derive settings from others, which are not checked yet."""
    facts = MODEL_FACTS.get(str(settings.get("model", "")), ModelFacts())
    drops_embeddings = facts.drops_embeddings or settings.get("recipe") == "best"
    derived = {
        "embedding_dropout": settings.get("dropout") if drops_embeddings else 0.0,
        "muon_weight_decay": settings.get("weight_decay"),
        "ema": choose_ema(settings),
    }
    if not isinstance(settings.get("iters"), int):
        return derived
    twentieth = -(-settings["iters"] // EVALUATIONS)  # rounded up
    has_warmup = settings.get("schedule") in ("cosine", "hold", "two-stage")
    warmup = twentieth if has_warmup else 0
    return {**derived, "eval_interval": twentieth, "warmup_iters": warmup}


def _derive_eval_iters(settings: Mapping[str, Any]) -> int:
    """Derive the batches of an evaluation from settings that are not checked yet."""
    names = ("eval_interval", "grad_accumulation", "batch_size", "context_length")
    counts = [settings.get(name) for name in names]
    known = all(isinstance(count, int) and count > 0 for count in counts)
    return choose_eval_iters(settings) if known else EVAL_ITERS


def preset_model(model: str, size: str, vocab_size: int, preset: str = "none") -> ModelConfig:
    """Return the shape of a model at a size or of a preset."""
    return resolve(model, size, "", {"preset": preset}).model_settings(vocab_size)


def parse_setting_name(text: str, among: Sequence[str]) -> str:
    """Return the name of the setting that a text, with `-` or `_`, names; raises `UsageError`."""
    name = text.strip().replace("-", "_")
    if name in among:
        return name
    raise UsageError(
        f"There is no setting named '{shorten(text)}' here.",
        suggest_or_list(name, among, "The settings are"),
    )


def parse_value(name: str, text: str) -> Any:
    """Parse the value of a setting, and check it; raises `UsageError`."""
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


# As typer reads the environment variable of a flag.
_SWITCHES = dict.fromkeys(("true", "1", "yes", "on"), True)
_SWITCHES |= dict.fromkeys(("false", "0", "no", "off"), False)


def find_model(text: str, among: Sequence[str] = MODEL_NAMES) -> ModelName | None:
    """The model of that name in any case, if there is one."""
    return next((name for name in among if name.lower() == text.lower()), None)


def parse_model(text: str, among: Sequence[str] = MODEL_NAMES) -> ModelName:
    """Return the model of that name, in any case; raises `UsageError` with the names."""
    if model := find_model(text, among):
        return model
    other = find_model(text)
    raise UsageError(
        f"{other} is no choice here." if other else f"There is no model named '{shorten(text)}'.",
        f"{suggest_name(text, among)}The models are: {', '.join(among)}.",
    )
