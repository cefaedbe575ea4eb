"""Settings as text: TOML or YAML in, TOML or a command out.

Only their form is checked here; which settings there are, and what they may be,
is for `config`.
"""

import codecs
import dataclasses
import json
import re
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_origin

from drakegpt.config import TrainConfig, merge_layers, type_of
from drakegpt.errors import UsageError, shorten
from drakegpt.wording import format_option, join


def from_file(path: Path) -> dict[str, Any]:
    """Read a configuration file, YAML if it ends so and else TOML.

    Its keys are checked when they are resolved. Raises `UsageError` for what
    cannot be read.
    """
    import tomllib

    yaml = path.suffix.lower() in (".yaml", ".yml")
    try:
        text = _decoded(path.read_bytes())
        settings = _from_yaml(text) if yaml else _from_own_toml(text) or tomllib.loads(text)
    except OSError as error:
        raise UsageError(
            f"The configuration file {path} cannot be read: {error.strerror}.", "Check the path."
        ) from error
    except (ValueError, RecursionError) as error:
        kind = "YAML" if yaml else "TOML"
        raise UsageError(
            f"{path} is not valid {kind}: {shorten(str(error))}.",
            "Fix that line; strings need quotes.",
        ) from error
    # A name that looks like a number, as in `bits = 1.58`, is meant as a name.
    named = _named()
    return {
        key: str(value) if key in named and type(value) in (int, float) else value
        for key, value in settings.items()
    }


def _decoded(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 where a mark says so, as PowerShell's `>` writes it."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig").replace("\r\n", "\n")


@cache
def _named() -> set[str]:
    """The settings whose values are names."""
    fields = dataclasses.fields(TrainConfig)
    return {field.name for field in fields if get_origin(type_of(field.name)) is Literal}


def _from_own_toml(text: str) -> dict[str, Any] | None:
    """Settings in TOML as `to_toml` writes it, a line each; `None` for any other."""
    lines = text.splitlines()
    try:
        settings = dict(map(_from_own_line, lines))
    except (ValueError, RecursionError):
        return None
    return settings if len(settings) == len(lines) else None


@lru_cache(maxsize=1 << 14)
def _from_own_line(line: str) -> tuple[str, Any]:
    """A setting from its line, whose value is JSON too; `ValueError` for any other line.

    Most lines stand in thousands of runs, which are listed in half the time so.
    """
    key, _, text = line.partition(" = ")
    value = json.loads(text)
    if not _OWN_KEY.fullmatch(key) or type(value) not in (str, int, float, bool):
        raise ValueError("a line of another form")
    return key, value


_OWN_KEY = re.compile("[a-z_]+")


def _from_yaml(text: str) -> dict[str, Any]:
    """Plain values only; raises `ValueError` for anything else."""
    import yaml

    try:
        settings = yaml.load(text, _yaml_loader())
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise ValueError("settings are lines of `name: value`")
    return settings


@cache
def _yaml_loader() -> Any:
    """YAML as people write settings: 1e-2 is a number, off is a word, 1.58 may be a name."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                # A few lines of them stand for more values than any memory holds.
                raise ValueError("a setting cannot be an alias (*name) of another")
            return super().compose_node(parent, index)

    plain = {"bool", "float"}
    kept = {
        first: [(tag, rule) for tag, rule in rules if tag.rsplit(":", 1)[1] not in plain]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.yaml_implicit_resolvers = kept
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.IGNORECASE), list("tTfF")
    )
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$"),
        list("-+.0123456789"),
    )
    return Loader


def to_toml(config: TrainConfig) -> str:
    """The settings as TOML, one per line; `from_file` reads it back."""
    import tomli_w

    given = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    return tomli_w.dumps(given)


# Settings that others follow from where these are not given, in the order in which they do.
_LEADING = ("preset", "recipe", "bits", "embedding_dim", "schedule", "iters")


def named_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that the shortest command for a run names, beside model, size and data.

    But for settings that are `None`, which are left to the machine.
    """
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    given: dict[str, Any] = {}
    follows = merge_layers(config.model, config.size, config.data)
    for name in sorted(names, key=lambda name: (*_LEADING, name).index(name)):
        value = getattr(config, name)
        if follows[name] != value:
            given[name] = value
            follows = merge_layers(config.model, config.size, config.data, given)
    return {name: given[name] for name in names if name in given}


def to_command(config: TrainConfig) -> str:
    """The `drakegpt train` that gives these very settings, with no flag that it could do without.

    But for settings that are `None`, which are left to the machine.
    """
    size = ["--scaled"] if config.size == "scaled" else []
    flags = [_to_flag(name, value) for name, value in named_settings(config).items()]
    data = format_option("--data", config.data)
    return join(["drakegpt", "train", config.model, *size, *data, *chain(*flags)])


def _to_flag(name: str, value: Any) -> list[str]:
    """A setting as words of the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return format_option(f"--{flag}", str(value))
