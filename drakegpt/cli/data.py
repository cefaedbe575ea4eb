"""`drakegpt data`: fetch a text, list what is prepared, show one."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drakegpt.cli import console, options
from drakegpt.errors import DamagedDatasetError, DrakeGPTError
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.data.metadata import Metadata
    from drakegpt.data.tokenizers.base import Tokenizer

# Of the longest tokens of a BPE vocabulary, those that `show` prints.
LONGEST_SHOWN = 12

app = typer.Typer(no_args_is_help=True, help="Fetch a text, list what is there, look at it.")


@app.command(cls=options.Command)
def fetch(
    source: Annotated[
        str,
        typer.Argument(help="drake, shakespeare, sample, or the path of a .txt or .csv file."),
    ] = "drake",
    name: Annotated[
        str | None,
        typer.Option(help="Name for the dataset; the source's own if not given."),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of a CSV that holds the text. [Lyric]")
    ] = None,
    tokenizer: Annotated[
        Literal["char", "bpe"],
        typer.Option(help="One token per character, or frequent pieces of words (byte-level BPE)."),
    ] = "char",
    vocab_size: Annotated[
        int | None,
        typer.Option(help="Tokens to learn, for --tokenizer bpe. [20000]", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch even if it is there.")] = False,
    json: options.Json = False,
) -> None:
    """Fetch a text and prepare it for training."""
    from drakegpt.cli.progress import fetch_progress
    from drakegpt.data import sources

    with fetch_progress(source) as progress:
        fetched = sources.fetch(
            source,
            name=name,
            text_column=text_column,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            force=force,
            progress=progress,
        )
    metadata = fetched.dataset.metadata
    asked = vocab_size or metadata.vocab_asked or 0
    if metadata.vocab_size < asked:
        console.warn(
            f"The text supports a vocabulary of {pluralize(metadata.vocab_size, 'token')}, "
            f"fewer than the {asked:,} asked for."
        )
    for note in fetched.notes:
        console.warn(note)
    if json:
        console.show_json(_as_json(metadata) | {"outcome": fetched.outcome})
        return
    unit = "" if metadata.tokenizer == "char" else " tokens"
    what_happened = {
        "prepared": f"Prepared '{metadata.name}'",
        "changed": f"The source has changed; prepared a new version of '{metadata.name}'",
        "already there": f"'{metadata.name}' is there already (--force fetches it again)",
    }
    console.show(
        f"{what_happened[fetched.outcome]}: {_size(metadata)}, "
        f"{metadata.train_tokens:,}{unit} to train on and {metadata.val_tokens:,} to validate."
    )
    console.next_commands(["drakegpt train TransformerLM", "drakegpt compare --train"])


@app.command("list", cls=options.Command)
def list_(json: options.Json = False) -> None:
    """List the prepared datasets and the known sources."""
    from drakegpt.cli.tables import Column, show_table
    from drakegpt.data import dataset, sources

    datasets: list[Metadata] = []
    damaged: dict[str, str] = {}
    for name in dataset.list_names():
        try:
            datasets.append(_checked(dataset.load(name)).metadata)
        except DrakeGPTError as error:
            damaged[name] = error.problem
            console.warn(f"{error.problem} {error.fix}")
    default = dataset.get_default_name()
    if json:
        prepared = [_as_json(m) | {"default": m.name == default} for m in datasets]
        broken = [{"name": name, "damaged": problem} for name, problem in damaged.items()]
        known = {name: source.description for name, source in sources.SOURCES.items()}
        console.show_json({"datasets": prepared, "damaged": broken, "sources": known})
        return
    rows = [(m.name, _size(m), m.prepared_at[:10], m.provenance, "") for m in datasets]
    rows += [(name, "damaged", "", problem, "red") for name, problem in damaged.items()]
    there = {name for name, *_ in rows}
    rows = [(row[0] + " (default)" * (row[0] == default), *row[1:]) for row in rows]
    rows += [
        (name, "not fetched", "", source.description, "dim")
        for name, source in sources.SOURCES.items()
        if name not in there
    ]
    columns: tuple[Column[tuple[str, ...]], ...] = (
        Column("dataset", lambda row: row[0]),
        Column("size", lambda row: row[1], wraps=True),
        Column("prepared", lambda row: row[2], 2),
        Column("from", lambda row: row[3], 1, wraps=True),
    )
    show_table("", columns, rows, style=lambda row: row[4])


@app.command(cls=options.Command)
def show(
    name: Annotated[
        str | None, typer.Argument(help="Its name; the one fetched last if not given.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show where a dataset came from, its sizes and checksums, and how its text begins."""
    from drakegpt.data import dataset

    try:
        data = _checked(dataset.load(name))
        beginning = data.text("train", 400)[:400]
    except DamagedDatasetError as error:
        damaged = {"name": name or dataset.get_default_name(), "damaged": error.problem}
        if json:
            console.show_json(damaged)
        for key, value in damaged.items() if not json else ():
            console.show(f"{key + ':':18}{value}")
        console.note(error.fix)
        return
    if json:
        console.show_json(_as_json(data.metadata) | {"begins": beginning})
        return
    for key, value in [*_facts(data.metadata), *_vocabulary(data.tokenizer)]:
        console.show(f"{key + ':':18}{value}")
    console.show_text(f"\n{beginning.rstrip()} …")
    if data.metadata.overlap:
        console.warn(data.metadata.overlap)


def _checked(data: "Dataset") -> "Dataset":
    """A dataset whose arrays can be read, else `DamagedDatasetError`; their checksums cost more."""
    for split in ("train", "val"):
        data.text(split, 1)
    return data


def _as_json(metadata: "Metadata") -> dict[str, object]:
    from dataclasses import asdict

    return asdict(metadata)


def _facts(metadata: "Metadata") -> list[tuple[str, str]]:
    """What `show` tells of a dataset; what does not concern it is left out."""
    facts = {key: str(v) for key, v in _as_json(metadata).items() if isinstance(v, str | int)}
    share = metadata.seen_share
    facts["seen_share"] = "unknown" if share is None else f"{share:.2%} of validation"
    if metadata.songs is None:
        facts["songs_in_both"] = "the text is not in songs"
    else:
        facts.setdefault("songs_in_both", "unknown")
        facts.setdefault("rows_left_out", "unknown")
    return [(key, value) for key, value in facts.items() if value]


def _size(metadata: "Metadata") -> str:
    songs = f"{pluralize(metadata.songs, 'song')}, " if metadata.songs else ""
    words = f"{metadata.vocab_size} different"
    if metadata.tokenizer != "char":
        words = f"{metadata.tokenizer}, vocabulary of {metadata.vocab_size:,}"
    return f"{songs}{pluralize(metadata.characters, 'character')} ({words})"


def _vocabulary(tokenizer: "Tokenizer") -> list[tuple[str, str]]:
    """What to show of a vocabulary: its characters, or the longest of its tokens."""
    if tokenizer.kind == "char":
        return [("vocabulary", repr(getattr(tokenizer, "characters", "")))]
    tokens = {tokenizer.decode([token]) for token in range(tokenizer.vocab_size)}
    longest = sorted(tokens, key=lambda token: (-len(token), token))[:LONGEST_SHOWN]
    return [("longest tokens", ", ".join(map(repr, longest)))]
