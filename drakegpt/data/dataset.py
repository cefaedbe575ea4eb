"""A prepared dataset on disk: two arrays of tokens, the tokenizer, and metadata.

    data/<name>/current            which version the name stands for
    data/<name>/<version>/         train.npy  val.npy  tokenizer.json  dataset.json,
                                   and songs.json if the text consists of songs
    data/default                   the dataset used when none is named

A version is named after the checksum of its text and tokenizer and never changes:
fetching again, or twice at the same time, can only add a version and then point to it,
and a run finds exactly the tokens it was trained on.

Not here: where texts come from (`sources`), how a dataset is made of them (`prepare`).
"""

import codecs
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from drakegpt import files, home
from drakegpt.data.metadata import Metadata, metadata_from_json
from drakegpt.data.songs import SONGS, Song, songs_from_json
from drakegpt.data.tokenizers.base import Tokenizer, Tokens
from drakegpt.data.tokenizers.load import tokenizer_from_json
from drakegpt.display import Displayable, Table
from drakegpt.errors import (
    CorpusError,
    DamagedDatasetError,
    UsageError,
    is_out_of_memory,
    suggest_name,
)
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    from torch import Tensor

# A name that is safe as a folder on every system.
NAME_PATTERN = re.compile(r"(?!default$)[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
VERSION_PATTERN = re.compile("[0-9a-f]{16}")  # a version's folder: the start of its checksum
TAIL_FRACTION = 10  # the tail of the training split is 1 / TAIL_FRACTION of it
DECODED_TOKENS = 1 << 16  # tokens decoded together


@dataclass(frozen=True, repr=False)
class Dataset(Displayable):
    """A prepared dataset whose arrays are memory-mapped."""

    folder: Path
    metadata: Metadata
    tokenizer: Tokenizer

    @property
    def name(self) -> str:
        """The name under which it was prepared."""
        return self.metadata.name

    def to_table(self) -> Table:
        """What the text is, and how it is divided."""
        about = self.metadata
        songs = f"{pluralize(about.songs, 'song')}, " if about.songs else ""
        rows = [
            ("text", f"{songs}{pluralize(about.characters, 'character')}"),
            ("tokenizer", f"{about.tokenizer}, vocabulary of {about.vocab_size:,}"),
            ("training split", pluralize(about.train_tokens, "token")),
            ("validation split", pluralize(about.val_tokens, "token")),
            ("from", about.provenance),
            ("folder", str(self.folder)),
        ]
        return Table(f"Dataset {self.name}", rows)

    @cached_property
    def songs(self) -> tuple[Song, ...]:
        """Read the songs, in the order of the text.

        Empty if the text does not consist of songs, or if an older drakegpt prepared it;
        fetching it again adds them. Raises `DamagedDatasetError`.
        """
        path = self.folder / SONGS
        if not self.metadata.songs or not path.exists():
            return ()
        try:
            songs = songs_from_json(_read(path, self.name), self.metadata.characters)
        except ValueError as error:
            raise _damaged(self.name, f"{SONGS}: {error}") from error
        # A process killed while it updated a version may have left the songs of the update.
        return songs if len(songs) == self.metadata.songs else ()

    def split(self, name: str) -> "Tensor":
        """Map the tokens of "train" or "val" from the disk, (N,), uint8 or wider.

        Raises `DamagedDatasetError`.
        """
        import torch

        return torch.from_numpy(self.map_split(name))

    def map_split(self, name: str) -> Tokens:
        """Do what `split` does, for what reads a text without PyTorch: an array, (N,)."""
        import numpy as np

        try:
            with warnings.catch_warnings(action="error"):  # numpy warns if it guesses a header
                array = np.load(self.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        except Exception as error:  # a bad header raises a dozen kinds of exceptions
            if is_out_of_memory(error):
                raise
            raise _damaged(self.name, f"{name}.npy: {error}") from error
        expected = {"train": self.metadata.train_tokens, "val": self.metadata.val_tokens}[name]
        if array.shape != (expected,):
            raise _damaged(
                self.name, f"{name}.npy holds {array.shape}, not {pluralize(expected, 'token')}"
            )
        if not np.issubdtype(array.dtype, np.integer):
            raise _damaged(self.name, f"{name}.npy holds {array.dtype}, not tokens")
        return array

    @property
    def tail_tokens(self) -> int:
        """Number of tokens in the tail of the training split, its last tenth."""
        return self.metadata.train_tokens // TAIL_FRACTION

    def select_splits(self, *, tail: bool) -> "tuple[Tensor, Tensor]":
        """Return what a run trains on and what its evaluations score, (N,) each.

        These are the training and the validation split, or with `tail` the training split
        without its tail, and the tail.
        """
        train = self.split("train")
        if not tail:
            return train, self.split("val")
        length = len(train) - self.tail_tokens
        return train[:length], train[length:]

    def verify(self) -> None:
        """Check the tokens against their checksums; raises `DamagedDatasetError`."""
        for name, checksum in self.metadata.array_sha256.items():
            if files.compute_checksum(self.map_split(name)) != checksum:
                raise _damaged(self.name, f"{name}.npy has another checksum")

    def check_context(self, context_length: int, *, tail: bool = False) -> None:
        """Raise `CorpusError` if a split is too short for one window and its target.

        With `tail`, the held-out tail of the training split counts as a split.
        """
        shortest = min(self.metadata.train_tokens, self.metadata.val_tokens)
        held_out = tail and self.tail_tokens < shortest
        shortest = min(shortest, self.tail_tokens) if tail else shortest
        if shortest <= context_length:
            part = "the tail of its training split" if held_out else "its smaller split"
            other = ", or --select-on validation" if held_out else ""
            raise CorpusError(
                f"Dataset '{self.name}' is too short for a context of {context_length}: "
                f"{part} has {pluralize(shortest, 'token')}, and {context_length + 1:,} are "
                "needed.",
                f"Take --context-length {max(1, shortest - 1)} or less, or a longer text{other}.",
            )

    def text(self, split: str, length: int) -> str:
        """Decode the first `length` tokens of a split, without an incomplete last character."""
        tokens = self._decode_to_bytes(self.map_split(split)[:length])
        return codecs.getincrementaldecoder("utf-8")("replace").decode(tokens)

    def iter_text(self, split: str) -> Iterator[str]:
        """Decode a whole split, piece by piece."""
        tokens = self.map_split(split)
        blocks = (tokens[i : i + DECODED_TOKENS] for i in range(0, len(tokens), DECODED_TOKENS))
        return codecs.iterdecode(map(self._decode_to_bytes, blocks), "utf-8", "replace")

    def _decode_to_bytes(self, tokens: Tokens) -> bytes:
        """Decode tokens (N,) to UTF-8; raises `DamagedDatasetError` for numbers out of range."""
        if (
            len(tokens)
            and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.metadata.vocab_size
        ):
            raise _damaged(self.name, "its arrays hold numbers outside the vocabulary")
        return self.tokenizer.to_bytes(tokens.tolist())


def load(name: str | None = None, version: str | None = None) -> Dataset:
    """Load the dataset `name`, by default the default one, in its current or a given version.

    Raises `CorpusError` if there is none, `DamagedDatasetError` if it cannot be read.
    """
    name = get_default_name() if name is None else name
    if name == "":
        raise UsageError("An empty name names no dataset.", "`drakegpt data list` lists them.")
    if name is None or name not in list_names():
        here = ", ".join(list_names()) or "none yet"
        raise CorpusError(
            f"There is no dataset named '{name or 'drake'}'; prepared are: {here}.",
            f"{suggest_name(name or '', list_names())}"
            "Run `drakegpt data add` with a source or a path of your own (`drakegpt data fetch` is "
            "the same), or `drakegpt data list` to see what there is.",
        )
    return _read_version(name, _find_version(name, version))


def _find_version(name: str, version: str | None) -> Path:
    """Find the folder of a version, given by its checksum, or of the current one."""
    parent = home.datasets() / name
    folder_name = version[:16] if version else _read(parent / "current", name)
    if not VERSION_PATTERN.fullmatch(folder_name):
        raise _damaged(name, f"{folder_name[:40]!r} does not name a version")
    folder = parent / folder_name
    if not folder.is_dir():
        if not version:
            raise _damaged(name, f"its version {folder_name} is missing")
        raise CorpusError(
            f"The version {folder_name} of dataset '{name}' is missing from {parent}.",
            "Fetch the text it was made from again, or train on the current version.",
        )
    return folder


def _read_version(name: str, folder: Path) -> Dataset:
    """Read a version's metadata and tokenizer and check that they fit its folder."""
    try:
        metadata = metadata_from_json(_read(folder / "dataset.json", name))
        tokenizer = tokenizer_from_json(_read(folder / "tokenizer.json", name))
    except ValueError as error:
        raise _damaged(name, str(error)) from error
    for entry, stored, expected in (
        ("name", metadata.name, name),
        ("version", metadata.version[:16], folder.name),
        ("tokenizer", metadata.tokenizer, tokenizer.kind),
        ("vocab_size", metadata.vocab_size, tokenizer.vocab_size),
    ):
        if stored != expected:
            raise _damaged(name, f"{entry} in dataset.json is {stored!r:.60}, not {expected!r}")
    return Dataset(folder, metadata, tokenizer)


def list_names() -> list[str]:
    """List the names of all prepared datasets, sorted."""
    return sorted(file.parent.name for file in home.datasets().glob("[!.]*/current"))


def get_default_name() -> str | None:
    """Return the name of the default dataset, the one fetched last; `None` without datasets."""
    try:
        name = (home.datasets() / "default").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        name = ""
    existing = list_names()
    return name if name in existing else next(iter(existing), None)


def set_default(name: str) -> None:
    """Make `name` the dataset that commands use when none is named."""
    with files.temporary_folder(home.datasets()) as place:
        files.write_text(home.datasets() / "default", name, place)


def find_folder(name: str) -> Path:
    """Find the folder of a dataset, whole or damaged, by its exact name.

    Raises `CorpusError` if there is none.
    """
    folder = home.datasets() / name
    if name not in list_names() and not (NAME_PATTERN.fullmatch(name) and folder.is_dir()):
        raise CorpusError(
            f"There is no dataset named '{name}'.",
            "Give its exact name, as `drakegpt data list` shows it.",
        )
    return folder


def remove(name: str) -> None:
    """Remove a dataset with all its versions; the text it was made from stays where it is."""
    folder = find_folder(name)
    if folder.is_symlink():
        folder.unlink()
    else:
        files.remove_folder(folder)


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise _damaged(name, f"{path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _damaged(name, f"{path.name}: {error}") from error


def _damaged(name: str, what: str) -> DamagedDatasetError:
    return DamagedDatasetError(
        f"Dataset '{name}' is damaged ({what}).",
        "Prepare it again from its source: "
        f"`{format_command('data add', 'SOURCE', name=name, force=True)}`.",
    )
