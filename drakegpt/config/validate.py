"""Check settings: their types and bounds by pydantic, and what no single setting shows.

Imports pydantic only once there is something to validate, so that `--help` stays quick.
"""

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from drakegpt.config.schema import (
    LARGEST_FLOAT,
    LARGEST_NUMBER,
    Bound,
    ModelConfig,
    TrainConfig,
    choices,
    hints,
    setting_of,
    type_of,
)
from drakegpt.errors import UsageError, shorten, show_value, suggest_name

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


def check_setting(name: str, value: Any) -> None:
    """Raise `UsageError` if that setting cannot have that value, whatever the others have."""
    from pydantic import ValidationError

    try:
        _validator().model_validate({name: value})
    except ValidationError as error:
        if any(complaint["type"] != "missing" for complaint in error.errors()):
            raise _explained(error, {name: value}) from error


@cache
def _validator() -> "type[BaseModel]":
    """The same fields as a pydantic model: strict types, unknown keys refused."""
    from pydantic import ConfigDict, Field, create_model

    def bounds(name: str) -> list[Any]:
        found = [b for b in hints()[name].__metadata__ if isinstance(b, Bound)]
        most = {int: LARGEST_NUMBER, float: LARGEST_FLOAT}.get(type_of(name))
        if most and all(b.le is b.lt is None for b in found):
            found.append(Bound(le=most))
        return [Field(**dataclasses.asdict(bound)) for bound in found]

    fields: dict[str, Any] = {
        name: (Annotated[(type_of(name), *bounds(name), None)], ...) for name in hints()
    }
    strictly = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return create_model("Settings", __config__=strictly, **fields)


def validate(settings: Mapping[str, Any]) -> TrainConfig:
    """Check each setting by itself; raises `UsageError` that names the first wrong one."""
    from pydantic import ValidationError

    try:
        return TrainConfig(**_validator().model_validate(settings).model_dump())
    except ValidationError as error:
        raise _explained(error, settings) from error


def _explained(error: "ValidationError", settings: Mapping[str, Any]) -> UsageError:
    """Turn pydantic's first complaint into a sentence that names the setting and its values."""
    # Settings that are missing come last: where one is checked alone, all others are.
    first = min(error.errors(), key=lambda complaint: complaint["type"] == "missing")
    name = str(first["loc"][0]) if first["loc"] else "configuration"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = [field.name for field in dataclasses.fields(TrainConfig)]
        return UsageError(
            f"There is no setting named '{shorten(name)}'.",
            f"{suggest_name(name, known)}The settings are: {', '.join(known)}.",
        )
    wanted = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    if first["type"] == "literal_error":
        *others, last = map(repr, choices(name, settings))
        wanted = f"input should be {', '.join(others)} or {last}"
    return UsageError(
        f"{name} cannot be {show_value(first['input'])}: {wanted}.",
        f"Give {name} another value. It is: {setting_of(name).help}",
    )


def uneven_heads(config: TrainConfig | ModelConfig) -> bool:
    """Whether a model with several heads cannot share its width among them."""
    one_head = config.model in ("BigramLM", "SingleHeadAttentionLM")
    return not one_head and config.embedding_dim % config.num_heads != 0


def check_together(config: TrainConfig) -> TrainConfig:
    """Check what no single setting shows."""
    if uneven_heads(config):
        raise UsageError(
            f"embedding_dim {config.embedding_dim} cannot be split evenly over "
            f"num_heads {config.num_heads}.",
            f"Take a multiple of {config.num_heads} for embedding_dim, or other num_heads.",
        )
    if config.bits != "full" and config.model == "BigramLM":
        raise UsageError(
            "BigramLM has no linear layers that could have fewer bits.",
            "Take a model with blocks: `drakegpt train TransformerLM --bits 1.58`.",
        )
    if config.tie_embeddings and config.model != "GPT1LM":
        raise UsageError(
            f"{config.model} has a table of its own at either end.",
            "--tie-embeddings is for GPT1LM: `drakegpt train GPT1LM --tie-embeddings`.",
        )
    if config.preset != "none" and config.size != "default":
        raise UsageError(
            f"The preset {config.preset} has a size of its own.", "Leave --scaled out."
        )
    if config.epochs and config.minutes:
        raise UsageError("--minutes and --epochs both say how long.", "Give one of them.")
    if config.schedule == "two-stage" and config.bits == "full":
        raise UsageError(
            "two-stage is the schedule of weights of few bits.",
            "Take hold, or train with bits 1.58 or 1.",
        )
    if config.base_lr > config.max_lr:
        raise UsageError(
            f"base_lr {config.base_lr} is above max_lr {config.max_lr}.",
            "Give both: base_lr is the lower end of the cycle, max_lr the upper.",
        )
    return config
