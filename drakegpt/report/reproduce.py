"""How to reproduce the rows of a comparison: datasets, commands, settings, versions.

Not here: the command of a single configuration (`config.files.to_command`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from drakegpt.config import TrainConfig
from drakegpt.config.files import to_command
from drakegpt.data.known_sources import SOURCES
from drakegpt.data.metadata import Metadata
from drakegpt.runs.run import Run
from drakegpt.wording import format_command

SHOWN_ELSEWHERE = ("model", "size", "data", "seed")
NO_COMMAND = {"imported": "trained by the original project, and imported"}


@dataclass(frozen=True)
class SourceText:
    """A dataset, and the command that prepares it."""

    name: str
    command: str
    own_file: bool  # made from a file that readers of the page may not have
    source_sha256: str  # of that file


@dataclass(frozen=True)
class RunCommand:
    """How one run was made."""

    run: str
    command: str | None  # None if no command of this program made it
    note: str


@dataclass(frozen=True)
class SettingValues:
    """A setting and its value in each row, in the order of the rows."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Reproduction:
    """All that is needed to reproduce the rows, each of one or several runs."""

    texts: tuple[SourceText, ...]
    runs: tuple[tuple[RunCommand, ...], ...]  # of each row
    shared: tuple[SettingValues, ...]  # the same in all rows
    differing: tuple[SettingValues, ...]
    environments: tuple[tuple[str, int], ...]  # versions and machine, and their number of runs


def describe_reproduction(rows: Sequence[Sequence[Run]]) -> Reproduction:
    """Collect the commands and settings of rows whose runs differ in the seed alone."""
    runs = [run for row in rows for run in row]
    texts = {run.info["dataset_version"]: run.load_dataset().metadata for run in runs}
    settings = [_collect_values(field.name, rows) for field in fields(TrainConfig)]
    environments = [_describe_environment(run) for run in runs]
    return Reproduction(
        tuple(_describe_text(metadata) for metadata in texts.values()),
        tuple(tuple(_describe_run(run) for run in row) for row in rows),
        tuple(
            SettingValues(s.name, s.values[:1]) for s in settings if s and len(set(s.values)) == 1
        ),
        tuple(s for s in settings if s and len(set(s.values)) > 1),
        tuple((each, environments.count(each)) for each in dict.fromkeys(environments)),
    )


def _describe_text(metadata: Metadata) -> SourceText:
    """Return how to prepare a dataset; the file without its folder, which is of one machine."""
    known = metadata.source in SOURCES
    source = metadata.source if known else Path(metadata.source).name
    learned = metadata.tokenizer != "char"
    fetch = format_command(
        "data fetch",
        source,
        name=metadata.name,
        text_column=metadata.text_column or None,
        encoding=metadata.encoding or None,
        split=_find_split_option(metadata, known=known),
        dedupe=metadata.copies_left_out is not None,
        tokenizer=metadata.tokenizer if learned else None,
        vocab_size=(metadata.vocab_asked or metadata.vocab_size) if learned else None,
    )
    return SourceText(metadata.name, fetch, not known, metadata.source_sha256)


def _find_split_option(metadata: Metadata, *, known: bool) -> str | None:
    """Return what `--split` must say; `None` where the default gives the same split."""
    if known:
        return "songs" if metadata.split == "songs" else None
    return "contiguous" if metadata.songs and metadata.split == "contiguous" else None


def _describe_run(run: Run) -> RunCommand:
    if run.derived:
        return RunCommand(run.name, None, NO_COMMAND.get(run.derived, run.derived))
    note = f"starts from the weights of {run.config.init_from}" if run.config.init_from else ""
    if run.has_single_part:
        return RunCommand(run.name, to_command(run.config), note)
    if run.config.minutes:
        notes = "; ".join(filter(None, (note, run.history)))
        return RunCommand(run.name, to_command(run.config), notes)
    first, *later = run.parts
    resumed = ", then ".join(f"drakegpt train --resume RUN --iters {part.iters}" for part in later)
    notes = "; ".join(filter(None, (note, f"{run.history}; then {resumed}")))
    return RunCommand(run.name, to_command(replace(run.config, iters=first.iters)), notes)


def _collect_values(name: str, rows: Sequence[Sequence[Run]]) -> SettingValues | None:
    """Collect a setting's value in each row; `None` if the page shows it elsewhere."""
    if name in SHOWN_ELSEWHERE:
        return None
    return SettingValues(name, tuple(_format_value(getattr(row[0].config, name)) for row in rows))


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return {None: "automatic", "": "none"}.get(value, str(value))


def _describe_environment(run: Run) -> str:
    """Return the versions, the device and the machine that a run was made with."""
    forms = {"drakegpt": "drakegpt {}", "torch": "PyTorch {}", "device": "on {}", "machine": "{}"}
    known = [(form, run.info.get(name)) for name, form in forms.items()]
    return ", ".join(form.format(value) for form, value in known if value)
