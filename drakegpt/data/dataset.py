"""A prepared dataset on disk: two arrays of tokens, the tokenizer, where it came from.

    data/<name>/current            which version the name stands for
    data/<name>/<version>/         train.npy  val.npy  tokenizer.json  dataset.json,
                                   and songs.json if its text is songs
    data/default                   the dataset used when none is named

A version is named after the checksum of its text and tokenizer and never
changes: fetching again, or fetching twice at once, can only add a version and
then point to it, and a run finds the very tokens it was trained on.

Not here: where texts come from (`sources`), how they become tokens (`passes`).
"""

import codecs
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drakegpt import paths
from drakegpt.data import arrays, overlap, preprocess
from drakegpt.data.corpus import Corpus, Progress, Text, checksum
from drakegpt.data.metadata import Metadata, metadata_from_json
from drakegpt.data.preprocess import CorpusStats, reporter
from drakegpt.data.songs import SONGS, Song, SongRecorder, songs_from_json
from drakegpt.data.tokenizers.base import Tokenizer, token_type
from drakegpt.data.tokenizers.bpe import DEFAULT_VOCAB_SIZE, check_vocab_size
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.data.tokenizers.load import tokenizer_from_json
from drakegpt.errors import (
    CorpusError,
    DamagedDatasetError,
    DrakeGPTError,
    UsageError,
    is_out_of_memory,
)
from drakegpt.wording import command, pluralize

# The default context is 8 tokens; the smaller split needs a window and its target.
SHORTEST_SPLIT = 9
SHORTEST_CORPUS = 90  # characters
NAME = re.compile(r"(?!default$)[A-Za-z0-9][\w.-]{0,63}", re.ASCII)  # safe as a folder everywhere
VERSION = re.compile("[0-9a-f]{16}")  # a version's folder: the beginning of its checksum
TAIL_SHARE = 10  # one part in so many of the training split is its tail
BLOCK = 1 << 16  # tokens that are decoded at once


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

    @cached_property
    def songs(self) -> tuple[Song, ...]:
        """The songs, in the order of the text.

        None if the text is not songs, or was prepared by a drakegpt that did not keep
        them; to fetch it again adds them. Raises `DamagedDatasetError`.
        """
        path = self.folder / SONGS
        if not self.metadata.songs or not path.exists():
            return ()
        try:
            songs = songs_from_json(_read(path, self.name), self.metadata.characters)
        except ValueError as error:
            raise _damaged(self.name, f"{SONGS}: {error}") from error
        # After a kill while songs are renewed, they may be others than those of the metadata.
        return songs if len(songs) == self.metadata.songs else ()

    def split(self, name: str) -> Tensor:
        """The tokens of "train" or "val", (N,), uint8 or wider, mapped from the disk."""
        try:
            with warnings.catch_warnings(action="error"):  # numpy's, that it had to guess
                array = np.load(self.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        except Exception as error:  # numpy meets bad headers with a dozen kinds of them
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
        return torch.from_numpy(array)

    @property
    def tail_tokens(self) -> int:
        """How many tokens the tail of the training split has: its last tenth."""
        return self.metadata.train_tokens // TAIL_SHARE

    def parts(self, *, tail: bool) -> tuple[Tensor, Tensor]:
        """What a run learns from, and what its evaluations score: the splits.

        With `tail` it is the training split without its tail, and the tail.
        """
        train = self.split("train")
        if not tail:
            return train, self.split("val")
        length = len(train) - self.tail_tokens
        return train[:length], train[length:]

    def verify(self) -> None:
        """Raise `CorpusError` if the tokens are not those that were prepared."""
        for name, expected in self.metadata.array_sha256.items():
            if arrays.checksum(self.split(name).numpy()) != expected:
                raise _damaged(self.name, f"{name}.npy has another checksum")

    def check_context(self, context_length: int, *, tail: bool = False) -> None:
        """Raise `CorpusError` if a split is too short for one window and its target.

        So may be the tail of the training split, if that is held out.
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
        """The first `length` tokens of a split as text, but for a last part of a character."""
        tokens = self._bytes(self.split(split)[:length])
        return codecs.getincrementaldecoder("utf-8")("replace").decode(tokens)

    def pieces(self, split: str) -> Iterator[str]:
        """The whole text of a split, bit by bit."""
        blocks = self.split(split).split(BLOCK)
        return codecs.iterdecode(map(self._bytes, blocks), "utf-8", "replace")

    def _bytes(self, tokens: Tensor) -> bytes:
        """The UTF-8 of tokens, (N,); `CorpusError` for numbers that are none."""
        if (
            len(tokens)
            and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.metadata.vocab_size
        ):
            raise _damaged(self.name, "its arrays hold numbers that are no tokens")
        return self.tokenizer.to_bytes(tokens.tolist())


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
    found = preprocess.scan(corpus, reporter(progress, "reading"))
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
        rows_left_out=found.left_out,
    )
    stored = _intact(folder, identity, made)
    measured = stored and stored.seen_share is not None and stored.songs == metadata.songs
    if not measured:
        both = overlap.measure(corpus, found, reporter(progress, "comparing the splits"))
        metadata = replace(metadata, seen_share=both.share, songs_in_both=both.songs)
    with paths.workplace(paths.datasets()) as place:
        if stored:
            _renew(folder, metadata, stored, place)
            if corpus.has_songs:
                _renew_songs(folder, corpus, found, place)
        else:
            _store(folder, metadata, made, corpus, found, place, progress)
        paths.write_text(folder.parent / "current", folder.name, place)
    make_default(name)
    return load(name)


def _check_length(found: CorpusStats, name: str, source: str) -> None:
    if found.blank:
        raise CorpusError(f"{source} holds no text.", "Name a file with some text in it.")
    if found.characters < SHORTEST_CORPUS:
        raise CorpusError(
            f"'{name}' has {pluralize(found.characters, 'character')}; the smallest model needs "
            f"{SHORTEST_CORPUS}.",
            "Take a longer text.",
        )


def _tokenizer(
    corpus: Corpus,
    found: CorpusStats,
    name: str,
    kind: str,
    vocab_size: int | None,
    progress: Progress | None,
) -> tuple[Tokenizer, str]:
    """The tokenizer for a corpus, and the identity of the dataset that comes of it."""
    naming = reporter(progress, "taking checksums")
    if kind == CharTokenizer.kind:
        made: Tokenizer = CharTokenizer(found.alphabet)
        return made, preprocess.fingerprint(made, corpus, naming)
    asked = vocab_size or DEFAULT_VOCAB_SIZE
    check_vocab_size(asked)
    before = _before(name)
    if (
        before
        and before.metadata.answers(kind, asked)
        and (before.metadata.text_sha256 == found.sha256)
    ):
        # Learning again would give the same, unless the text is in other documents now.
        identity = preprocess.fingerprint(before.tokenizer, corpus, naming)
        if identity == before.metadata.version:
            return before.tokenizer, identity
    made = preprocess.train_bpe(corpus, found.cut, asked, progress)
    return made, preprocess.fingerprint(made, corpus, naming)


def _before(name: str) -> Dataset | None:
    """What `name` stands for so far, if it can be read."""
    try:
        return load(name)
    except DrakeGPTError:
        return None


def load(name: str | None = None, version: str | None = None) -> Dataset:
    """The dataset of that name (or the default one), as it is now or in the given version."""
    name = default_name() if name is None else name
    if name == "":
        raise UsageError("An empty name names no dataset.", "`drakegpt data list` lists them.")
    if name is None or name not in names():
        here = ", ".join(names()) or "none yet"
        raise CorpusError(
            f"There is no dataset named '{name or 'drake'}'; prepared are: {here}.",
            "Run `drakegpt data fetch` with a source or a file of your own, "
            "or `drakegpt data list` to see what there is.",
        )
    parent = paths.datasets() / name
    named = version[:16] if version else _read(parent / "current", name)
    if not VERSION.fullmatch(named):
        raise _damaged(name, f"{named[:40]!r} is the name of no version")
    folder = parent / named
    if not folder.is_dir():
        if not version:
            raise _damaged(name, f"its version {named} is gone")
        raise CorpusError(
            f"The version {folder.name} of dataset '{name}' is gone from {parent}.",
            "Fetch the text it was made from again, or train on what there is.",
        )
    try:
        metadata = metadata_from_json(_read(folder / "dataset.json", name))
        tokenizer = tokenizer_from_json(_read(folder / "tokenizer.json", name))
    except ValueError as error:
        raise _damaged(name, str(error)) from error
    for what, stored, true in (
        ("name", metadata.name, name),
        ("version", metadata.version[:16], named),
        ("tokenizer", metadata.tokenizer, tokenizer.kind),
        ("vocab_size", metadata.vocab_size, tokenizer.vocab_size),
    ):
        if stored != true:
            raise _damaged(name, f"{what} in dataset.json is {stored!r:.60}, not {true!r}")
    return Dataset(folder, metadata, tokenizer)


def names() -> list[str]:
    """All prepared datasets, sorted."""
    return sorted(file.parent.name for file in paths.datasets().glob("[!.]*/current"))


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
    with paths.workplace(paths.datasets()) as place:
        paths.write_text(paths.datasets() / "default", name, place)


def _intact(folder: Path, identity: str, tokenizer: Tokenizer) -> Metadata | None:
    """What is stored of a version that is there already, with the very tokens it should have."""
    try:
        stored = (folder / "tokenizer.json").read_text(encoding="utf-8")
        metadata = metadata_from_json((folder / "dataset.json").read_text(encoding="utf-8"))
        Dataset(folder, metadata, tokenizer).verify()
    except (OSError, ValueError, DrakeGPTError):
        return None
    whole = metadata.version == identity and stored == tokenizer.to_json()
    return metadata if whole else None


def _renew(folder: Path, metadata: Metadata, stored: Metadata, place: Path) -> None:
    """Write what is known now of a version whose tokens are there already, if it is news."""
    known = replace(
        metadata,
        prepared_at=stored.prepared_at,
        train_tokens=stored.train_tokens,
        val_tokens=stored.val_tokens,
        array_sha256=stored.array_sha256,
        vocab_asked=stored.vocab_asked,  # the largest that leads here
    )
    if known.seen_share is None:  # not measured again
        known = replace(known, seen_share=stored.seen_share, songs_in_both=stored.songs_in_both)
    if known != stored:
        paths.write_text(folder / "dataset.json", known.to_json(), place)


def _renew_songs(folder: Path, corpus: Corpus, found: CorpusStats, place: Path) -> None:
    """Write the songs of a version whose tokens are there already, if they are news."""
    path = folder / SONGS
    if path.exists() and checksum(path, SONGS) == found.songs_sha256:
        return
    with paths.write_atomically(path, place) as file:
        recorder = SongRecorder(corpus, lambda text: file.write(text.encode()))
        if preprocess.scan(recorder).sha256 != found.sha256:
            raise preprocess.changed_text_error()


def _store(
    folder: Path,
    metadata: Metadata,
    tokenizer: Tokenizer,
    corpus: Corpus,
    found: CorpusStats,
    place: Path,
    progress: Progress | None,
) -> None:
    """Write a version's files, unless another fetch is faster with the same bytes."""
    try:
        _write(folder, metadata, tokenizer, corpus, found, place, progress)
    except OSError:
        if not _intact(folder, metadata.version, tokenizer):
            raise


def _write(
    folder: Path,
    metadata: Metadata,
    tokenizer: Tokenizer,
    corpus: Corpus,
    found: CorpusStats,
    place: Path,
    progress: Progress | None,
) -> None:
    kind = token_type(tokenizer.vocab_size)
    with paths.folder_atomically(folder, place) as temporary:
        with ExitStack() as stack:
            if corpus.has_songs:
                file = stack.enter_context(paths.write_atomically(temporary / SONGS))
                corpus = SongRecorder(corpus, lambda text: file.write(text.encode()))
            report = reporter(progress, "encoding")
            written = {
                split: arrays.write(temporary / f"{split}.npy", kind, blocks)
                for split, blocks in preprocess.encode_splits(tokenizer, corpus, found, report)
            }
        shortest = min(array.tokens for array in written.values())
        if shortest < SHORTEST_SPLIT:
            raise CorpusError(
                f"The smaller split of '{metadata.name}' has {pluralize(shortest, 'token')}; "
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
        paths.write_text(temporary / "dataset.json", metadata.to_json())


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
        f"`{command('data fetch', 'SOURCE', name=name, force=True)}`.",
    )
