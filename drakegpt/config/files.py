"""Settings as text: read from TOML or YAML, written as TOML or as a command.

Only the syntax is checked here; names and values are checked when they are resolved.
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
    """Read a configuration file, as YAML if its suffix says so, else as TOML.

    Raises `UsageError` for a file that cannot be read or parsed.
    """
    import tomllib

    yaml = path.suffix.lower() in (".yaml", ".yml")
    try:
        text = _decode(path.read_bytes())
        settings = _parse_yaml(text) if yaml else _parse_own_toml(text) or tomllib.loads(text)
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
    if settings.get("minutes") and len(settings) >= len(dataclasses.fields(TrainConfig)) - 1:
        # The file of a run with a time (`compile` may be left out): its iterations were only an
        # estimate.
        settings = {key: value for key, value in settings.items() if key != "iters"}
    # A name that looks like a number, as in `bits = 1.58`, is a name.
    named = _list_choice_settings()
    return {
        key: str(value) if key in named and type(value) in (int, float) else value
        for key, value in settings.items()
    }


def _decode(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark, as PowerShell's `>` writes it."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig").replace("\r\n", "\n")


@cache
def _list_choice_settings() -> set[str]:
    """Return the settings whose values are names."""
    fields = dataclasses.fields(TrainConfig)
    return {field.name for field in fields if get_origin(type_of(field.name)) is Literal}


def _parse_own_toml(text: str) -> dict[str, Any] | None:
    """Parse TOML as `to_toml` writes it, one setting per line; `None` for any other."""
    lines = text.splitlines()
    try:
        settings = dict(map(_parse_own_line, lines))
    except (ValueError, RecursionError):
        return None
    return settings if len(settings) == len(lines) else None


@lru_cache(maxsize=1 << 14)
def _parse_own_line(line: str) -> tuple[str, Any]:
    """Parse a line whose value is also JSON; raises `ValueError` for any other line.

    Thousands of runs have the same lines, so the cache halves the time to list them.
    """
    key, _, text = line.partition(" = ")
    value = json.loads(text)
    if not _OWN_KEY.fullmatch(key) or type(value) not in (str, int, float, bool):
        raise ValueError("not a line that to_toml writes")
    return key, value


_OWN_KEY = re.compile("[a-z_]+")


def _parse_yaml(text: str) -> dict[str, Any]:
    """Parse YAML with plain values; raises `ValueError` for anything else."""
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
    """Return a YAML loader for settings: 1e-2 is a number, off is a word, no aliases."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                # A few lines of them can expand to more values than fit in memory.
                raise ValueError("a setting cannot be an alias (*name) of another")
            return super().compose_node(parent, index)

    replaced = {"bool", "float"}
    kept = {
        first: [(tag, rule) for tag, rule in rules if tag.rsplit(":", 1)[1] not in replaced]
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
    """Return the settings as TOML, one per line; `from_file` reads it back."""
    import tomli_w

    given = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    return tomli_w.dumps(given)


# Settings that decide defaults of others, in the order in which they are resolved.
_DECIDING = (
    "preset", "recipe", "bits", "embedding_dim", "schedule", "iters", "dropout", "weight_decay"
)  # fmt: skip


def named_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that the shortest command for a run gives, beside model, size and data.

    Settings that are `None` are left out, so that the machine decides.
    """
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    given: dict[str, Any] = {}
    defaults = merge_layers(config.model, config.size, config.data)
    for name in sorted(names, key=lambda name: (*_DECIDING, name).index(name)):
        value = getattr(config, name)
        if defaults[name] != value:
            given[name] = value
            defaults = merge_layers(config.model, config.size, config.data, given)
    return {name: given[name] for name in names if name in given}


def to_command(config: TrainConfig) -> str:
    """Return the shortest `drakegpt train` command with these settings.

    Settings that are `None` are left out, so that the machine decides.
    """
    size = ["--scaled"] if config.size == "scaled" else []
    named = named_settings(config)
    if config.minutes:  # an estimate, which the machine makes anew
        named.pop("iters", None)
    flags = [_to_flag(name, value) for name, value in named.items()]
    data = format_option("--data", config.data)
    return join(["drakegpt", "train", config.model, *size, *data, *chain(*flags)])


def _to_flag(name: str, value: Any) -> list[str]:
    """Return a setting as words of the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return format_option(f"--{flag}", str(value))
