"""Check settings: types and bounds with pydantic, and what no single setting shows.

Imports pydantic only once there is something to validate, so that `--help` stays quick.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from drakegpt.config.lookup import choices, hints, setting_of
from drakegpt.config.model_facts import MODEL_FACTS
from drakegpt.config.schema import ModelConfig, TrainConfig
from drakegpt.errors import UsageError, shorten, show_value, suggest_name, suggest_or_list

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError


def validate(settings: Mapping[str, Any]) -> TrainConfig:
    """Check each setting by itself; raises `UsageError` that names the first wrong one."""
    checked = {
        name: _validate_setting(name, settings[name], settings)
        for name in hints()
        if name in settings
    }
    for name in settings:
        _check_name(name)
    return TrainConfig(**checked)


def check_setting(name: str, value: Any) -> None:
    """Raise `UsageError` if there is no such setting, or it cannot have that value."""
    _check_name(name)
    _validate_setting(name, value, {})


def _check_name(name: str) -> None:
    if name not in hints():
        raise UsageError(
            f"There is no setting named '{shorten(name)}'.",
            suggest_or_list(name, hints(), "The settings are"),
        )


def _validate_setting(name: str, value: Any, settings: Mapping[str, Any]) -> Any:
    """Return the value as its type; `settings` decide which choices an error lists."""
    from pydantic import ValidationError

    try:
        checked = _adapter(name).validate_python(value)
    except ValidationError as error:
        raise _explain(name, error, settings) from error
    if name == "model" and checked not in MODEL_FACTS:
        wanted = f"input should be {_list_choices(name, settings)}"
        raise _explain_wrong_value(name, value, wanted, choices(name, settings))
    return checked


@cache
def _adapter(name: str) -> "TypeAdapter[Any]":
    """Return what checks one setting against its annotation, without converting types."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(hints()[name], config=ConfigDict(strict=True, allow_inf_nan=False))


def _explain(name: str, error: "ValidationError", settings: Mapping[str, Any]) -> UsageError:
    """Turn pydantic's complaint into a sentence that names the setting and its values."""
    first = error.errors()[0]
    wanted = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    if first["type"] == "literal_error":
        wanted = f"input should be {_list_choices(name, settings)}"
    return _explain_wrong_value(name, first["input"], wanted, choices(name, settings))


def _list_choices(name: str, settings: Mapping[str, Any]) -> str:
    *others, last = map(repr, choices(name, settings))
    return f"{', '.join(others)} or {last}"


def _explain_wrong_value(
    name: str, value: Any, wanted: str, known: Sequence[str] = ()
) -> UsageError:
    meant = suggest_name(value, known) if isinstance(value, str) else ""
    return UsageError(
        f"{name} cannot be {show_value(value)}: {wanted}.",
        f"{meant}Give {name} another value. It is: {setting_of(name).help}",
    )


def uneven_heads(config: TrainConfig | ModelConfig) -> bool:
    """Return whether the width cannot be split evenly over the heads of the model."""
    return MODEL_FACTS[config.model].splits_heads and config.embedding_dim % config.num_heads != 0


def has_odd_heads(config: TrainConfig | ModelConfig) -> bool:
    """Return whether rotary positions cannot turn the halves of a head of that width."""
    heads = config.num_heads if MODEL_FACTS[config.model].splits_heads else 1
    return config.positions == "rotary" and config.embedding_dim // heads % 2 == 1


def check_together(config: TrainConfig) -> TrainConfig:
    """Check that the settings fit together; raises `UsageError`."""
    _check_regularizers(config)
    if uneven_heads(config):
        raise UsageError(
            f"embedding_dim {config.embedding_dim} cannot be split evenly over "
            f"num_heads {config.num_heads}.",
            f"Take a multiple of {config.num_heads} for embedding_dim, or other num_heads.",
        )
    if config.bits != "full" and not MODEL_FACTS[config.model].has_hidden_layers:
        raise UsageError(
            f"{config.model} has no linear layers that could have fewer bits.",
            "Take a model with blocks: `drakegpt train TransformerLM --bits 1.58`.",
        )
    if config.tie_embeddings and not MODEL_FACTS[config.model].can_tie_embeddings:
        raise UsageError(
            f"{config.model} cannot tie its embeddings.",
            "--tie-embeddings is for GPT1LM: `drakegpt train GPT1LM --tie-embeddings`.",
        )
    if config.preset != "none" and config.size != "default":
        raise UsageError(
            f"The preset {config.preset} sets the size of the model.", "Leave --scaled out."
        )
    if config.epochs and config.minutes:
        raise UsageError("minutes and epochs both set the length of a run.", "Give one of them.")
    if config.max_epochs and not config.minutes:
        raise UsageError(
            "max_epochs limits a run with a time.", "Give --epochs instead, or --minutes as well."
        )
    if config.schedule == "two-stage" and config.bits == "full":
        raise UsageError(
            "two-stage is a schedule for low-bit weights.",
            "Use hold, or train with bits 1.58 or 1.",
        )
    if config.base_lr > config.max_lr:
        raise UsageError(
            f"base_lr {config.base_lr} is above max_lr {config.max_lr}.",
            "Give both: base_lr is the lowest learning rate, max_lr the peak.",
        )
    return config


def _check_regularizers(config: TrainConfig) -> None:
    """Check what recipe best and its settings need of a model; raises `UsageError`."""
    facts, full = MODEL_FACTS[config.model], config.bits == "full"
    if config.recipe == "best" and not (facts.has_dropout and full):
        raise UsageError(
            "recipe best is for TransformerLM and GPT1LM in full precision.",
            "Take recipe fast, or `drakegpt train TransformerLM --recipe best`.",
        )
    if config.ema and not full:
        raise UsageError(
            "ema averages weights in full precision; low-bit weights would be rounded after it.",
            "Leave ema out, or train with full bits.",
        )
    of_embeddings = {
        "token_dropout": config.token_dropout > 0,
        "embedding_dropout": config.embedding_dropout > 0,
        "positions": config.positions != "learned",
    }
    for name, given in of_embeddings.items():
        if given and not facts.has_hidden_layers:
            raise UsageError(
                f"{config.model} is a table of pairs, to which {name} does not apply.",
                "Leave it out, or take a model with attention.",
            )
    if has_odd_heads(config):
        raise UsageError(
            f"Rotary positions need heads of even width, and embedding_dim {config.embedding_dim} "
            f"over num_heads {config.num_heads} is odd.",
            "Take fewer heads, another width, or learned positions.",
        )
