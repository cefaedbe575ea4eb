"""`drakegpt data`: add or fetch a text, list datasets, show or remove one."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drakegpt.cli import console, options
from drakegpt.errors import DamagedDatasetError, DrakeGPTError
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.data.metadata import Metadata
    from drakegpt.data.sources import Fetched
    from drakegpt.data.tokenizers.base import Tokenizer

LONGEST_SHOWN = 12  # tokens of a BPE vocabulary that `show` prints


def add(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A file, folder or .zip archive of lyrics, - for standard input, or a known "
            "source: drake, shakespeare, sample.",
        ),
    ] = "drake",
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the dataset; default: that of the source."),
    ] = None,
    tokenizer: Annotated[
        Literal["char", "bpe"],
        typer.Option(help="One token per character, or byte-level BPE."),
    ] = "char",
    vocab_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Vocabulary size for --tokenizer bpe; default: 20,000.",
            show_default=False,
        ),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column of a CSV, or field of JSON or Parquet (a.b for a field inside another), "
            "that has the text; default: Lyric, lyrics or text.",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Encoding of files that are not UTF-8 and have no byte-order mark.",
        ),
    ] = None,
    split: Annotated[
        Literal["songs", "contiguous"] | None,
        typer.Option(
            help="Keep whole songs for validation (default), or the last tenth of the text "
            "(default for known sources and texts without songs).",
            show_default=False,
        ),
    ] = None,
    dedupe: Annotated[
        bool,
        typer.Option(
            "--dedupe",
            help="Leave out songs that repeat others, but for case, spaces and punctuation.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Download and prepare the text again.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Add a text of your own, or fetch a known one, and prepare it for training.

    `data add` and `data fetch` are the same.
    """
    from drakegpt.cli.progress import fetch_progress
    from drakegpt.data import sources

    if source == "-" and sys.stdin.isatty():
        console.note("Reading standard input; Ctrl-D ends it.")
    with fetch_progress(source) as progress:
        fetched = sources.fetch(
            source,
            name=name,
            text_column=text_column,
            encoding=encoding,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            split=split,
            dedupe=dedupe,
            force=force,
            progress=progress,
        )
    metadata = fetched.dataset.metadata
    for sentence in fetched.summary:
        console.note(sentence)
    asked = vocab_size or metadata.vocab_asked or 0
    if metadata.vocab_size < asked:
        console.warn(
            f"The text supports a vocabulary of {pluralize(metadata.vocab_size, 'token')}, "
            f"fewer than {asked:,}."
        )
    for note in fetched.notes:
        console.warn(note)
    if json:
        said = {"summary": list(fetched.summary), "notes": list(fetched.notes)}
        console.show_json(asdict(metadata) | {"outcome": fetched.outcome} | said)
        return
    unit = "" if metadata.tokenizer == "char" else " tokens"
    by_songs = " (whole songs)" * (metadata.split == "songs")
    console.show(
        f"{_describe_outcome(fetched)}: {_describe_size(metadata)}; training split "
        f"{metadata.train_tokens:,}{unit}, validation split {metadata.val_tokens:,}{by_songs}."
    )
    console.next_commands([format_command("write", metadata.name), "drakegpt compare --train"])


def _describe_outcome(fetched: "Fetched") -> str:
    """Say what adding a text came to."""
    metadata = fetched.dataset.metadata
    now = "by songs" if metadata.split == "songs" else "at its last tenth"
    return {
        "prepared": f"Prepared '{metadata.name}'",
        "changed": f"The source or its options have changed; prepared a new version of "
        f"'{metadata.name}'",
        "split differently": f"The same text as before, now divided {now}: prepared a new version "
        f"of '{metadata.name}'; runs on the earlier one keep it",
        "already there": f"'{metadata.name}' is prepared already (--force prepares it again)",
    }[fetched.outcome]


def list_(json: options.Json = False) -> None:
    """List the datasets, and the sources that can be fetched."""
    from drakegpt.cli.tables import Column, show_table
    from drakegpt.data import dataset
    from drakegpt.data.known_sources import SOURCES

    datasets: list[Metadata] = []
    damaged: dict[str, str] = {}
    for name in dataset.list_names():
        try:
            datasets.append(_check_readable(dataset.load(name)).metadata)
        except DrakeGPTError as error:
            damaged[name] = error.problem
            console.warn(f"{error.problem} {error.fix}")
    default = dataset.get_default_name()
    if json:
        prepared = [asdict(m) | {"default": m.name == default} for m in datasets]
        broken = [{"name": name, "damaged": problem} for name, problem in damaged.items()]
        known = {name: source.description for name, source in SOURCES.items()}
        console.show_json({"datasets": prepared, "damaged": broken, "sources": known})
        return
    rows = [(m.name, _describe_size(m), m.prepared_at[:10], m.provenance, "") for m in datasets]
    rows += [(name, "damaged", "", problem, "red") for name, problem in damaged.items()]
    listed = {name for name, *_ in rows}
    rows = [(row[0] + " (default)" * (row[0] == default), *row[1:]) for row in rows]
    rows += [
        (name, "not fetched", "", source.description, "dim")
        for name, source in SOURCES.items()
        if name not in listed
    ]
    columns: tuple[Column[tuple[str, ...]], ...] = (
        Column("dataset", lambda row: row[0]),
        Column("size", lambda row: row[1], wraps=True),
        Column("prepared", lambda row: row[2], 2),
        Column("from", lambda row: row[3], 1, wraps=True),
    )
    show_table("", columns, rows, style=lambda row: row[4])


def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Dataset; default: the one fetched last.",
            autocompletion=options.complete_dataset,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show a dataset: its source, sizes, checksums and the beginning of its text."""
    from drakegpt.data import dataset

    try:
        data = _check_readable(dataset.load(name))
        beginning = data.text("train", 400)[:400]
    except DamagedDatasetError as error:
        damaged = {"name": name or dataset.get_default_name(), "damaged": error.problem}
        if json:
            console.show_json(damaged)
        for key, value in damaged.items() if not json else ():
            console.show(f"{key + ':':20}{value}")
        console.note(error.fix)
        return
    if json:
        console.show_json(asdict(data.metadata) | {"begins": beginning})
        return
    for key, value in [*_describe_metadata(data.metadata), *_describe_vocabulary(data.tokenizer)]:
        console.show(f"{key + ':':20}{value}")
    console.show_text(f"\n{beginning.rstrip()} …")
    if data.metadata.overlap:
        console.warn(data.metadata.overlap)


def remove(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Datasets, by their whole names.",
            autocompletion=options.complete_dataset,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove datasets, with all their versions; the texts they were made from stay."""
    from drakegpt.data import dataset
    from drakegpt.runs.lookup import open_all_runs

    names = list(dict.fromkeys(names))
    for name in names:
        dataset.find_folder(name)
    if runs := sum(run.config.data in names for run in open_all_runs()[0]):
        on = "it" if len(names) == 1 else "them"
        console.warn(
            f"{pluralize(runs, 'run')} on {on} can generate without {on}, but not be resumed or "
            "scored."
        )
    if not yes:
        console.confirm_removal(names)
    for name in names:
        dataset.remove(name)
        console.show(f"Removed {name}")


def _check_readable(data: "Dataset") -> "Dataset":
    """Return the dataset if its arrays can be read; raises `DamagedDatasetError`."""
    for split in ("train", "val"):
        data.text(split, 1)
    return data


def _describe_metadata(metadata: "Metadata") -> list[tuple[str, str]]:
    """Return what `show` prints of the metadata; fields that do not apply are left out."""
    facts = {key: str(v) for key, v in asdict(metadata).items() if isinstance(v, str | int)}
    share = metadata.val_share_in_train
    facts["val_share_in_train"] = "unknown" if share is None else f"{share:.2%} of validation"
    if metadata.songs is None:
        facts["val_songs_in_train"] = "unknown: the text is not divided into songs"
    else:
        facts.setdefault("val_songs_in_train", "unknown")
        facts.setdefault("rows_left_out", "unknown")
    return [(key, value) for key, value in facts.items() if value]


def _describe_size(metadata: "Metadata") -> str:
    songs = f"{pluralize(metadata.songs, 'song')}, " if metadata.songs else ""
    kind = "" if metadata.tokenizer == "char" else f"{metadata.tokenizer}, "
    vocab = f"{kind}vocabulary of {metadata.vocab_size:,}"
    return f"{songs}{pluralize(metadata.characters, 'character')} ({vocab})"


def _describe_vocabulary(tokenizer: "Tokenizer") -> list[tuple[str, str]]:
    """Return the characters of a vocabulary, or the longest of its tokens."""
    if tokenizer.kind == "char":
        return [("vocabulary", repr(getattr(tokenizer, "characters", "")))]
    tokens = {tokenizer.decode([token]) for token in range(tokenizer.vocab_size)}
    longest = sorted(tokens, key=lambda token: (-len(token), token))[:LONGEST_SHOWN]
    return [("longest tokens", ", ".join(map(repr, longest)))]
