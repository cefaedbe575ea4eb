"""How to make the rows of a comparison again: texts, commands, settings, versions.

Not here: the command of a single configuration (`config_files`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from drakegpt.config import TrainConfig
from drakegpt.config.files import to_command
from drakegpt.data.metadata import Metadata
from drakegpt.data.sources import SOURCES
from drakegpt.runs.run import Run
from drakegpt.wording import format_command

TOLD_ELSEWHERE = ("model", "size", "data", "seed")
NO_COMMAND = {"imported": "trained by the original project, and imported"}


@dataclass(frozen=True)
class Text:
    """A dataset, and the command that prepares it."""

    name: str
    command: str
    own_file: bool  # which only its owner has
    source_sha256: str  # of the file


@dataclass(frozen=True)
class Made:
    """How one run came about."""

    run: str
    command: str | None  # None: not by a command of this program
    note: str


@dataclass(frozen=True)
class Setting:
    """A setting and its value in each row, in their order."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Commands:
    """All that is needed, for rows of one or several runs."""

    texts: tuple[Text, ...]
    runs: tuple[tuple[Made, ...], ...]  # of each row
    shared: tuple[Setting, ...]  # with a single value
    differing: tuple[Setting, ...]
    grounds: tuple[tuple[str, int], ...]  # versions and machine, and how many runs these made


def commands_for(rows: Sequence[Sequence[Run]]) -> Commands:
    """The recipes of rows, each of which has one or several runs that differ in their seed."""
    runs = [run for row in rows for run in row]
    texts = {run.info["dataset_version"]: run.dataset().metadata for run in runs}
    settings = [_setting(field.name, rows) for field in fields(TrainConfig)]
    grounds = [_ground(run) for run in runs]
    return Commands(
        tuple(_text(metadata) for metadata in texts.values()),
        tuple(tuple(_made(run) for run in row) for row in rows),
        tuple(Setting(s.name, s.values[:1]) for s in settings if s and len(set(s.values)) == 1),
        tuple(s for s in settings if s and len(set(s.values)) > 1),
        tuple((ground, grounds.count(ground)) for ground in dict.fromkeys(grounds)),
    )


def _text(metadata: Metadata) -> Text:
    """The command without a path, which would be of one machine only."""
    known = metadata.source in SOURCES
    source = metadata.source if known else Path(metadata.source).name
    learned = metadata.tokenizer != "char"
    fetch = format_command(
        "data fetch",
        source,
        name=metadata.name,
        text_column=metadata.text_column or None,
        tokenizer=metadata.tokenizer if learned else None,
        vocab_size=(metadata.vocab_asked or metadata.vocab_size) if learned else None,
    )
    return Text(metadata.name, fetch, not known, metadata.source_sha256)


def _made(run: Run) -> Made:
    if run.derived:
        return Made(run.name, None, NO_COMMAND.get(run.derived, run.derived))
    note = f"begins with the weights of {run.config.init_from}" if run.config.init_from else ""
    if run.plain:
        return Made(run.name, to_command(run.config), note)
    first, *later = run.parts
    resumed = ", then ".join(f"drakegpt train --resume RUN --iters {part.iters}" for part in later)
    told = "; ".join(filter(None, (note, f"{run.history}; then {resumed}")))
    return Made(run.name, to_command(replace(run.config, iters=first.iters)), told)


def _setting(name: str, rows: Sequence[Sequence[Run]]) -> Setting | None:
    """A setting in each row; `None` if it is told elsewhere on the page."""
    if name in TOLD_ELSEWHERE:
        return None
    return Setting(name, tuple(_said(getattr(row[0].config, name)) for row in rows))


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return {None: "left to the machine", "": "none"}.get(value, str(value))


def _ground(run: Run) -> str:
    """What a run was made with, as its folder remembers it."""
    known = [(what, run.info.get(what)) for what in ("drakegpt", "torch", "device", "machine")]
    said = {"drakegpt": "drakegpt {}", "torch": "PyTorch {}", "device": "on {}", "machine": "{}"}
    return ", ".join(said[what].format(value) for what, value in known if value)
