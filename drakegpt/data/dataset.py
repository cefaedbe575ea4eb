"""A prepared dataset on disk: two arrays of tokens, the tokenizer, where it came from.

    data/<name>/current            which version the name stands for
    data/<name>/<version>/         train.npy  val.npy  tokenizer.json  dataset.json
    data/default                   the dataset used when none is named

A version is named after the checksum of its text and tokenizer and never
changes: fetching again, or fetching twice at once, can only add a version and
then point to it, and a run finds the very tokens it was trained on.

Not here: where texts come from (`sources`), how they become tokens (`passes`).
"""

import codecs
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drakegpt import paths
from drakegpt.data import arrays, passes
from drakegpt.data.bpe import DEFAULT_VOCAB_SIZE, check_vocab_size
from drakegpt.data.characters import CharTokenizer
from drakegpt.data.corpus import Corpus, Progress, Text
from drakegpt.data.passes import Survey, reporter
from drakegpt.data.tokenizers import tokenizer_from_json
from drakegpt.data.tokens import Tokenizer, token_type
from drakegpt.errors import CorpusError, DrakeGPTError
from drakegpt.paths import parse_json

# The default context is 8 tokens; the smaller split needs a window and its target.
SHORTEST_SPLIT = 9
SHORTEST_CORPUS = 90  # characters


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
    tokenizer: str = "char"  # its kind
    text_sha256: str = ""  # of the text as UTF-8, whatever the tokenizer; "" in old datasets
    vocab_asked: int | None = None  # tokens a BPE tokenizer could have had
    text_column: str = ""  # of a CSV, where it had to be named

    def answers(self, tokenizer: str, vocab_size: int | None) -> bool:
        """Whether preparing the same text with that tokenizer would lead to this one's again."""
        if tokenizer != self.tokenizer or tokenizer == CharTokenizer.kind:
            return tokenizer == self.tokenizer
        asked, before = vocab_size or DEFAULT_VOCAB_SIZE, self.vocab_asked or self.vocab_size
        return asked == before or (self.vocab_size < before and self.vocab_size <= asked)


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
            if arrays.checksum(self.split(name).numpy()) != checksum:
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
        """The first `length` tokens of a split as text, but for a last part of a character."""
        tokens = self.tokenizer.to_bytes(self.split(split)[:length].numpy())
        return codecs.getincrementaldecoder("utf-8")("replace").decode(tokens)


def prepare(
    corpus: Corpus | str,
    *,
    name: str,
    source: str,
    provenance: str,
    source_sha256: str,
    tokenizer: str = "char",
    vocab_size: int | None = None,
    text_column: str = "",
    progress: Progress | None = None,
) -> Dataset:
    """Split a text 90/10 by characters, tokenise it, store it, and let `name` stand for it.

    `tokenizer`: "char", or "bpe" with up to `vocab_size` tokens learnt from the
    training split. Memory does not grow with the text, but to learn BPE with its
    distinct words. Raises `CorpusError` if the text is too short for the smallest
    model. What `name` stood for before stays on the disk.
    """
    corpus = Text(corpus) if isinstance(corpus, str) else corpus
    found = passes.survey(corpus, reporter(progress, "reading"))
    _check_length(found, name, source)
    made, identity = _tokenizer(corpus, found, name, tokenizer, vocab_size, progress)
    folder = paths.datasets() / name / identity[:16]
    metadata = Metadata(
        name=name,
        version=identity,
        source=source,
        provenance=provenance,
        source_sha256=source_sha256,
        prepared_at=datetime.now(UTC).isoformat(timespec="seconds"),
        characters=found.characters,
        songs=found.documents if corpus.has_songs else None,
        vocab_size=made.vocab_size,
        train_tokens=0,  # not known yet, as the checksums
        val_tokens=0,
        array_sha256={},
        tokenizer=tokenizer,
        text_sha256=found.sha256,
        vocab_asked=None if made.end is None else vocab_size or DEFAULT_VOCAB_SIZE,
        text_column=text_column,
    )
    if not _intact(folder, identity, made):
        try:
            _store(folder, metadata, made, corpus, found, progress)
        except OSError:
            # Or another fetch was faster with the same bytes.
            if not _intact(folder, identity, made):
                raise
    paths.write_text(folder.parent / "current", folder.name)
    make_default(name)
    return load(name)


def _check_length(found: Survey, name: str, source: str) -> None:
    if found.blank:
        raise CorpusError(f"{source} holds no text.", "Name a file with some text in it.")
    if found.characters < SHORTEST_CORPUS:
        raise CorpusError(
            f"'{name}' has {found.characters} characters; the smallest model needs "
            f"{SHORTEST_CORPUS}.",
            "Take a longer text.",
        )


def _tokenizer(
    corpus: Corpus,
    found: Survey,
    name: str,
    kind: str,
    vocab_size: int | None,
    progress: Progress | None,
) -> tuple[Tokenizer, str]:
    """The tokenizer for a corpus, and the identity of the dataset that comes of it."""
    naming = reporter(progress, "taking checksums")
    if kind == CharTokenizer.kind:
        made: Tokenizer = CharTokenizer(found.alphabet)
        return made, passes.identity(made, corpus, naming)
    asked = vocab_size or DEFAULT_VOCAB_SIZE
    check_vocab_size(asked)
    before = _before(name)
    if (
        before
        and before.metadata.answers(kind, asked)
        and (before.metadata.text_sha256 == found.sha256)
    ):
        # Learning again would give the same, unless the text is in other documents now.
        identity = passes.identity(before.tokenizer, corpus, naming)
        if identity == before.metadata.version:
            return before.tokenizer, identity
    made = passes.learn(corpus, found.cut, asked, progress)
    return made, passes.identity(made, corpus, naming)


def _before(name: str) -> Dataset | None:
    """What `name` stands for so far, if it can be read."""
    try:
        return load(name)
    except DrakeGPTError:
        return None


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


def _intact(folder: Path, identity: str, tokenizer: Tokenizer) -> bool:
    """Whether the version is there already, with the very tokens it should have."""
    try:
        stored = (folder / "tokenizer.json").read_text(encoding="utf-8")
        metadata = Metadata(**parse_json((folder / "dataset.json").read_text(encoding="utf-8")))
        Dataset(folder, metadata, tokenizer).verify()
    except (OSError, ValueError, TypeError, AttributeError, DrakeGPTError):
        return False
    return (
        metadata.version == identity
        and stored == tokenizer.to_json()
        and metadata.array_sha256.keys() == {"train", "val"}
    )


def _store(
    folder: Path,
    metadata: Metadata,
    tokenizer: Tokenizer,
    corpus: Corpus,
    found: Survey,
    progress: Progress | None,
) -> None:
    """Write a version's files."""
    kind = token_type(tokenizer.vocab_size)
    with paths.folder_atomically(folder) as temporary:
        splits = passes.encoded(tokenizer, corpus, found, reporter(progress, "encoding"))
        written = {
            split: arrays.write(temporary / f"{split}.npy", kind, blocks)
            for split, blocks in splits
        }
        shortest = min(array.tokens for array in written.values())
        if shortest < SHORTEST_SPLIT:
            raise CorpusError(
                f"The smaller split of '{metadata.name}' has {shortest} tokens; "
                f"the smallest model needs {SHORTEST_SPLIT}.",
                "Take a longer text, or --tokenizer char.",
            )
        metadata = replace(
            metadata,
            train_tokens=written["train"].tokens,
            val_tokens=written["val"].tokens,
            array_sha256={split: array.sha256 for split, array in written.items()},
        )
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
