"""Prepare a dataset: scan a text, choose or train its tokenizer, encode and store its splits.

What a stored dataset consists of is in `dataset`, the passes over the text in `preprocess`.
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from drakegpt import files, home
from drakegpt.data import dataset, overlap, preprocess, song_split
from drakegpt.data.corpus import Corpus, StageProgress, Text, compute_checksum
from drakegpt.data.dataset import Dataset
from drakegpt.data.metadata import Metadata, metadata_from_json
from drakegpt.data.preprocess import CorpusStats, report_stage
from drakegpt.data.song_split import DividedSongs
from drakegpt.data.songs import SONGS, SongRecorder
from drakegpt.data.tokenizers.base import Tokenizer, token_type
from drakegpt.data.tokenizers.bpe import DEFAULT_VOCAB_SIZE, check_vocab_size
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.errors import CorpusError, DrakeGPTError
from drakegpt.wording import pluralize

# The default context is 8 tokens; the smaller split needs a window and its target.
SHORTEST_SPLIT = 9
SHORTEST_CORPUS = 90  # characters


def prepare_dataset(
    corpus: Corpus | str,
    *,
    name: str,
    source: str,
    provenance: str,
    source_sha256: str,
    tokenizer: str = "char",
    vocab_size: int | None = None,
    text_column: str = "",
    encoding: str = "",
    by_songs: bool = False,
    dedupe: bool = False,
    divided_at: int | None = None,
    progress: StageProgress | None = None,
) -> Dataset:
    """Split a text 90/10 by characters, tokenize it and store it as the dataset `name`.

    With `by_songs`, a text of songs is divided into whole songs, so that none stands in both
    splits; otherwise its last tenth is the validation split. `dedupe` leaves out songs that
    repeat others. `divided_at`: the characters for training of a text that is divided between
    two songs already. `text_column` and `encoding` are recorded.

    `tokenizer`: "char", or "bpe" with up to `vocab_size` tokens learned from the
    training split. Memory does not grow with the text, except for BPE, which learns from
    a table of distinct words. Raises `CorpusError` if the text is too short for the
    smallest model. The version that `name` had before stays on the disk.
    """
    corpus = Text(corpus) if isinstance(corpus, str) else corpus
    division = None
    if corpus.has_songs and (by_songs or dedupe):
        report = report_stage(progress, "comparing songs")
        division = song_split.split_songs(corpus, by_songs=by_songs, dedupe=dedupe, report=report)
        corpus = DividedSongs(corpus, division)
    stats = preprocess.scan(
        corpus,
        report_stage(progress, "reading"),
        division.train_characters if division and division.by_songs else divided_at,
    )
    _check_length(stats, name, source)
    made, version = _make_tokenizer(corpus, stats, name, tokenizer, vocab_size, progress)
    metadata = Metadata(
        name=name,
        version=version,
        source=source,
        provenance=provenance,
        source_sha256=source_sha256,
        prepared_at=datetime.now(UTC).isoformat(timespec="seconds"),
        characters=stats.characters,
        songs=stats.documents if corpus.has_songs else None,
        vocab_size=made.vocab_size,
        train_tokens=0,  # known after encoding, as are the checksums
        val_tokens=0,
        array_sha256={},
        tokenizer=tokenizer,
        text_sha256=stats.sha256,
        vocab_asked=None if made.end is None else vocab_size or DEFAULT_VOCAB_SIZE,
        text_column=text_column,
        rows_left_out=stats.left_out,
        encoding=encoding,
        split=stats.split,
        exact_copies=division.exact_copies if division else None,
        near_copies=division.near_copies if division else None,
        copies_left_out=division.exact_copies + division.near_copies
        if division and dedupe
        else None,
    )
    _store(_Preparation(corpus, stats, made, metadata, progress))
    dataset.set_default(name)
    return dataset.load(name)


@dataclass(frozen=True)
class _Preparation:
    """A text ready to be encoded: its statistics, tokenizer and metadata."""

    corpus: Corpus
    stats: CorpusStats
    tokenizer: Tokenizer
    metadata: Metadata
    progress: StageProgress | None

    @property
    def folder(self) -> Path:
        """The folder of this version of the dataset."""
        return home.datasets() / self.metadata.name / self.metadata.version[:16]


def _check_length(stats: CorpusStats, name: str, source: str) -> None:
    if stats.blank:
        raise CorpusError(f"{source} holds no text.", "Name a file with some text in it.")
    if stats.characters < SHORTEST_CORPUS:
        raise CorpusError(
            f"'{name}' has {pluralize(stats.characters, 'character')}; the smallest model needs "
            f"{SHORTEST_CORPUS}.",
            "Take a longer text.",
        )


def _make_tokenizer(
    corpus: Corpus,
    stats: CorpusStats,
    name: str,
    kind: str,
    vocab_size: int | None,
    progress: StageProgress | None,
) -> tuple[Tokenizer, str]:
    """Make the tokenizer for a corpus; returns it and the version of the resulting dataset."""
    report = report_stage(progress, "taking checksums")
    if kind == CharTokenizer.kind:
        made: Tokenizer = CharTokenizer(stats.alphabet)
        return made, preprocess.fingerprint(made, corpus, stats, report)
    vocab_size = vocab_size or DEFAULT_VOCAB_SIZE
    check_vocab_size(vocab_size)
    current = _load_current(name)
    if (
        current
        and current.metadata.answers(kind, vocab_size)
        and current.metadata.text_sha256 == stats.sha256
    ):
        # Training again gives the same tokenizer, unless the documents are divided differently.
        version = preprocess.fingerprint(current.tokenizer, corpus, stats, report)
        if version == current.metadata.version:
            return current.tokenizer, version
    made = preprocess.train_bpe(corpus, stats.train_characters, vocab_size, progress)
    return made, preprocess.fingerprint(made, corpus, stats, report)


def _load_current(name: str) -> Dataset | None:
    """Load the current version of a dataset; `None` if there is none that can be read."""
    try:
        return dataset.load(name)
    except DrakeGPTError:
        return None


def _store(preparation: _Preparation) -> None:
    """Store a version, or update its metadata if it is there, and make it the current one."""
    folder, metadata = preparation.folder, preparation.metadata
    stored = _load_intact_metadata(preparation)
    if not stored or stored.val_share_in_train is None or stored.songs != metadata.songs:
        report = report_stage(preparation.progress, "comparing the splits")
        shared = overlap.measure_overlap(preparation.corpus, preparation.stats, report)
        metadata = replace(
            metadata, val_share_in_train=shared.share, val_songs_in_train=shared.songs
        )
    with files.temporary_folder(home.datasets()) as place:
        if stored:
            _update_metadata(folder, metadata, stored, place)
            _update_songs(preparation, place)
        else:
            _write_version(replace(preparation, metadata=metadata), place)
        files.write_text(folder.parent / "current", folder.name, place)


def _load_intact_metadata(preparation: _Preparation) -> Metadata | None:
    """Load the metadata of this version if it is stored with exactly the right tokens."""
    folder, tokenizer = preparation.folder, preparation.tokenizer
    try:
        stored = (folder / "tokenizer.json").read_text(encoding="utf-8")
        metadata = metadata_from_json((folder / "dataset.json").read_text(encoding="utf-8"))
        Dataset(folder, metadata, tokenizer).verify()
    except (OSError, ValueError, DrakeGPTError):
        return None
    same = metadata.version == preparation.metadata.version and stored == tokenizer.to_json()
    return metadata if same else None


def _update_metadata(folder: Path, metadata: Metadata, stored: Metadata, place: Path) -> None:
    """Write the metadata of a version whose tokens are stored, if anything in them is new."""
    updated = replace(
        metadata,
        prepared_at=stored.prepared_at,
        train_tokens=stored.train_tokens,
        val_tokens=stored.val_tokens,
        array_sha256=stored.array_sha256,
        vocab_asked=stored.vocab_asked,  # the largest that gives these tokens
    )
    if updated.val_share_in_train is None:  # not measured again
        updated = replace(
            updated,
            val_share_in_train=stored.val_share_in_train,
            val_songs_in_train=stored.val_songs_in_train,
        )
    if updated != stored:
        files.write_text(folder / "dataset.json", updated.to_json(), place)


def _update_songs(preparation: _Preparation, place: Path) -> None:
    """Write the songs of a version whose tokens are stored, if they are new."""
    corpus, stats, path = preparation.corpus, preparation.stats, preparation.folder / SONGS
    if not corpus.has_songs:
        return
    if path.exists() and compute_checksum(path, SONGS) == stats.songs_sha256:
        return
    with files.write_atomically(path, place) as file:
        recorder = SongRecorder(corpus, lambda text: file.write(text.encode()))
        if preprocess.scan(recorder).sha256 != stats.sha256:
            raise preprocess.changed_text_error()


def _write_version(preparation: _Preparation, place: Path) -> None:
    """Write a version's files, unless another process is faster: it may be read already."""

    def is_stored() -> bool:
        return _load_intact_metadata(preparation) is not None

    with files.write_folder_atomically(preparation.folder, place, is_stored) as temporary:
        _write_files(preparation, temporary)


def _write_files(preparation: _Preparation, folder: Path) -> None:
    tokenizer, metadata = preparation.tokenizer, preparation.metadata
    corpus, stats = preparation.corpus, preparation.stats
    report, kind = report_stage(preparation.progress, "encoding"), token_type(tokenizer.vocab_size)
    with ExitStack() as stack:
        if corpus.has_songs:
            file = stack.enter_context(files.write_atomically(folder / SONGS))
            corpus = SongRecorder(corpus, lambda text: file.write(text.encode()))
        written = {
            split: files.write_array(folder / f"{split}.npy", kind, blocks)
            for split, blocks in preprocess.encode_splits(tokenizer, corpus, stats, report)
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
    files.write_text(folder / "tokenizer.json", tokenizer.to_json())
    files.write_text(folder / "dataset.json", metadata.to_json())
