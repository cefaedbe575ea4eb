"""`drakegpt data`: fetch a text, list what is prepared, show one."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drakegpt.cli import console, options
from drakegpt.errors import DrakeGPTError

if TYPE_CHECKING:
    from drakegpt.data.dataset import Metadata
    from drakegpt.data.tokens import Tokenizer

# Of the longest tokens of a BPE vocabulary, those that `show` prints.
LONGEST_SHOWN = 12

app = typer.Typer(no_args_is_help=True, help="Fetch a text, list what is there, look at it.")


@app.command()
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
        str | None, typer.Option(help="Column of a .csv that holds the text. [Lyric]")
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
            f"The text supports a vocabulary of {metadata.vocab_size:,} tokens, "
            f"fewer than the {asked:,} asked for."
        )
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


@app.command("list")
def list_(json: options.Json = False) -> None:
    """List the prepared datasets and the known sources."""
    from rich.table import Table

    from drakegpt.data import dataset, sources

    datasets, damaged = [], []
    for name in dataset.names():
        try:
            datasets.append(dataset.load(name).metadata)
        except DrakeGPTError as error:
            damaged.append(name)
            console.warn(f"{error.problem} {error.fix}")
    default = dataset.default_name()
    if json:
        prepared = [_as_json(m) | {"default": m.name == default} for m in datasets]
        known = {name: source.description for name, source in sources.SOURCES.items()}
        console.show_json({"datasets": prepared, "sources": known})
        return
    table = Table()
    for column in ("dataset", "size", "prepared", "from"):
        table.add_column(column, overflow="fold")
    for metadata in datasets:
        mark = " (default)" if metadata.name == default else ""
        table.add_row(
            metadata.name + mark, _size(metadata), metadata.prepared_at[:10], metadata.provenance
        )
    for name in damaged:
        table.add_row(name, "damaged", style="red")
    prepared_names = {*damaged, *(metadata.name for metadata in datasets)}
    for name, source in sources.SOURCES.items():
        if name not in prepared_names:
            table.add_row(name, "not fetched", "", source.description, style="dim")
    console.show(table)


@app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(help="Its name; the one fetched last if not given.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show where a dataset came from, its sizes and checksums, and how its text begins."""
    from drakegpt.data import dataset

    data = dataset.load(name)
    beginning = data.text("train", 400)[:400]
    if json:
        console.show_json(_as_json(data.metadata) | {"begins": beginning})
        return
    for key, value in _as_json(data.metadata).items():
        if isinstance(value, str | int) and value != "":
            console.show(f"{key + ':':18}{value}")
    for key, value in _vocabulary(data.tokenizer):
        console.show(f"{key + ':':18}{value}")
    console.show(f"\n{beginning.rstrip()} …")


def _as_json(metadata: "Metadata") -> dict[str, object]:
    from dataclasses import asdict

    return asdict(metadata)


def _size(metadata: "Metadata") -> str:
    songs = f"{metadata.songs} songs, " if metadata.songs else ""
    words = f"{metadata.vocab_size} different"
    if metadata.tokenizer != "char":
        words = f"{metadata.tokenizer}, vocabulary of {metadata.vocab_size:,}"
    return f"{songs}{metadata.characters:,} characters ({words})"


def _vocabulary(tokenizer: "Tokenizer") -> list[tuple[str, str]]:
    """What to show of a vocabulary: its characters, or the longest of its tokens."""
    if tokenizer.kind == "char":
        return [("vocabulary", repr(getattr(tokenizer, "characters", "")))]
    tokens = {tokenizer.decode([token]) for token in range(tokenizer.vocab_size)}
    longest = sorted(tokens, key=lambda token: (-len(token), token))[:LONGEST_SHOWN]
    return [("longest tokens", ", ".join(map(repr, longest)))]
