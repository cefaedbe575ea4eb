"""A prepared dataset on disk: two arrays of tokens, the tokenizer, where it came from.

    data/<name>/current            which version the name stands for
    data/<name>/<version>/         train.npy  val.npy  tokenizer.json  dataset.json
    data/default                   the dataset used when none is named

A version is named after the checksum of its text and tokenizer and never
changes: fetching again, or fetching twice at once, can only add a version and
then point to it, and a run finds the very tokens it was trained on.

Not here: where texts come from (`sources`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drakegpt import paths
from drakegpt.data.tokenizers import CharTokenizer, Tokenizer, tokenizer_from_json
from drakegpt.errors import CorpusError, DrakeGPTError
from drakegpt.paths import parse_json

TRAIN_SHARE = 0.9
# The default context is 8 characters; the smaller split needs a window and its target.
SHORTEST_CORPUS = 90


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What is known of a prepared dataset, as stored in `dataset.json`."""

    name: str
    version: str  # sha256 of text and tokenizer
    source: str  # what was asked for: drake, shakespeare, sample or a path
    provenance: str  # where the bytes came from
    source_sha256: str  # of the bytes as they came
    prepared_at: str  # ISO 8601, UTC
    characters: int
    songs: int | None  # rows of a CSV that held text
    vocab_size: int
    train_tokens: int
    val_tokens: int
    array_sha256: Mapping[str, str]


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset, its arrays mapped into memory and read as needed."""

    folder: Path
    metadata: Metadata
    tokenizer: Tokenizer

    @property
    def name(self) -> str:
        """The name it was fetched under."""
        return self.metadata.name

    def split(self, name: str) -> Tensor:
        """The tokens of "train" or "val", (N,), uint8 or wider, mapped from the disk."""
        try:
            array = np.load(self.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:  # numpy's, for bad headers
            raise _damaged(self.name, f"{name}.npy: {error}") from error
        expected = {"train": self.metadata.train_tokens, "val": self.metadata.val_tokens}[name]
        if array.shape != (expected,):
            raise _damaged(self.name, f"{name}.npy holds {array.shape}, not {expected} tokens")
        return torch.from_numpy(array)

    def verify(self) -> None:
        """Raise `CorpusError` if the tokens are not those that were prepared."""
        for name, checksum in self.metadata.array_sha256.items():
            if hashlib.sha256(self.split(name).numpy().tobytes()).hexdigest() != checksum:
                raise _damaged(self.name, f"{name}.npy has another checksum")

    def check_context(self, context_length: int) -> None:
        """Raise `CorpusError` if a split is too short for one window and its target."""
        shortest = min(self.metadata.train_tokens, self.metadata.val_tokens)
        if shortest <= context_length:
            raise CorpusError(
                f"Dataset '{self.name}' is too short for a context of {context_length}: its "
                f"smaller split has {shortest} tokens, and {context_length + 1} are needed.",
                f"Take --context-length {max(1, shortest - 1)} or less, or a longer text.",
            )

    def text(self, split: str, length: int) -> str:
        """The first `length` tokens of a split as text."""
        return self.tokenizer.decode(self.split(split)[:length].numpy())


def prepare(
    text: str,
    *,
    name: str,
    source: str,
    provenance: str,
    source_sha256: str,
    songs: int | None = None,
) -> Dataset:
    """Split `text` 90/10 by characters, tokenise it, store it, and let `name` stand for it.

    Raises `CorpusError` if the text is too short for the smallest model. What
    `name` stood for before stays on the disk.
    """
    if len(text) < SHORTEST_CORPUS:
        raise CorpusError(
            f"'{name}' has {len(text)} characters; the smallest model needs {SHORTEST_CORPUS}.",
            "Take a longer text.",
        )
    tokenizer = CharTokenizer.of(text)
    cut = int(len(text) * TRAIN_SHARE)
    arrays = {"train": tokenizer.encode(text[:cut]), "val": tokenizer.encode(text[cut:])}
    identity = hashlib.sha256(tokenizer.to_json().encode() + b"\0" + text.encode()).hexdigest()
    folder = paths.datasets() / name / identity[:16]
    metadata = Metadata(
        name=name,
        version=identity,
        source=source,
        provenance=provenance,
        source_sha256=source_sha256,
        prepared_at=datetime.now(UTC).isoformat(timespec="seconds"),
        characters=len(text),
        songs=songs,
        vocab_size=tokenizer.vocab_size,
        train_tokens=len(arrays["train"]),
        val_tokens=len(arrays["val"]),
        array_sha256={key: hashlib.sha256(a.tobytes()).hexdigest() for key, a in arrays.items()},
    )
    if not _intact(folder, metadata):
        try:
            _store(folder, metadata, tokenizer, arrays)
        except OSError:
            if not _intact(folder, metadata):  # else another fetch was faster with the same bytes
                raise
    paths.write_text(folder.parent / "current", folder.name)
    make_default(name)
    return load(name)


def load(name: str | None = None, version: str | None = None) -> Dataset:
    """The dataset of that name (or the default one), as it is now or in the given version."""
    name = name or default_name()
    if name is None or name not in names():
        here = ", ".join(names()) or "none yet"
        raise CorpusError(
            f"There is no dataset named '{name or 'drake'}'; prepared are: {here}.",
            "Run `drakegpt data fetch` with a source or a file of your own, "
            "or `drakegpt data list` to see what there is.",
        )
    parent = paths.datasets() / name
    folder = parent / (version[:16] if version else _read(parent / "current", name))
    if not folder.is_dir():
        raise CorpusError(
            f"The version {folder.name} of dataset '{name}' is gone from {parent}.",
            "Fetch the text it was made from again, or train on what there is.",
        )
    try:
        metadata = Metadata(**parse_json(_read(folder / "dataset.json", name)))
        tokenizer = tokenizer_from_json(_read(folder / "tokenizer.json", name))
    except (ValueError, TypeError) as error:
        raise _damaged(name, str(error)) from error
    return Dataset(folder, metadata, tokenizer)


def names() -> list[str]:
    """All prepared datasets, sorted."""
    return sorted(file.parent.name for file in paths.datasets().glob("*/current"))


def default_name() -> str | None:
    """The dataset fetched last, which commands take when none is named; `None` if there is none."""
    try:
        name = (paths.datasets() / "default").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        name = ""
    existing = names()
    return name if name in existing else next(iter(existing), None)


def make_default(name: str) -> None:
    """Let commands take this dataset when none is named."""
    paths.write_text(paths.datasets() / "default", name)


def _intact(folder: Path, metadata: Metadata) -> bool:
    """Whether the version is there already, with the very tokens it should have."""
    try:
        return tokenizer_from_json(
            (folder / "tokenizer.json").read_text(encoding="utf-8")
        ).vocab_size == metadata.vocab_size and all(
            hashlib.sha256(np.load(folder / f"{split}.npy").tobytes()).hexdigest() == checksum
            for split, checksum in metadata.array_sha256.items()
        )
    except (OSError, ValueError, EOFError, SyntaxError):
        return False


def _store(
    folder: Path, metadata: Metadata, tokenizer: Tokenizer, arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a version's files."""
    with paths.folder_atomically(folder) as temporary:
        for split, array in arrays.items():
            with paths.write_atomically(temporary / f"{split}.npy") as file:
                np.save(file, array, allow_pickle=False)
        paths.write_text(temporary / "tokenizer.json", tokenizer.to_json())
        paths.write_text(temporary / "dataset.json", json.dumps(asdict(metadata), indent=2))


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(name, f"{path.name}: {error}") from error


def _damaged(name: str, what: str) -> DrakeGPTError:
    return CorpusError(
        f"Dataset '{name}' is damaged ({what}).",
        f"Prepare it again from its source: `drakegpt data fetch SOURCE --name {name} --force`.",
    )
