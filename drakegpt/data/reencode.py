"""Encode a prepared dataset again, with BPE: the same text in the same splits.

Not here: the tokenizer and its training (`tokenizers.bpe`).
"""

from collections.abc import Iterator

from drakegpt.data import dataset
from drakegpt.data.corpus import ByteProgress, Document, StageProgress
from drakegpt.data.dataset import Dataset
from drakegpt.data.prepare import prepare_dataset

BPE_SUFFIX = "-bpe"


class PreparedText:
    """The text of a prepared dataset, song by song where it has songs."""

    left_out = None

    def __init__(self, data: Dataset) -> None:
        self._data, self._songs = data, data.songs
        self.has_songs = bool(self._songs)

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield the songs, or the whole text as one document."""
        pieces = self._read(report)
        if not self.has_songs:
            yield Document(pieces)
            return
        reader = _Reader(pieces)
        ends = [song.start - 1 for song in self._songs[1:]]  # a line feed stands between them
        for song, end in zip(self._songs, [*ends, self._data.metadata.characters], strict=True):
            yield Document(reader.read_to(end), song.title, song.artist)
            reader.skip(1)

    def _read(self, report: ByteProgress | None) -> Iterator[str]:
        done, size = 0, self._data.metadata.characters
        for split in ("train", "val"):
            for piece in self._data.iter_text(split):
                yield piece
                done += len(piece)
                if report:
                    report(done, size)


class _Reader:
    """Reads a text in pieces up to given places."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces, self._rest, self._place = pieces, "", 0

    def read_to(self, end: int) -> Iterator[str]:
        """Yield the text up to the character `end`."""
        while self._place < end:
            if not self._rest and not (piece := next(self._pieces, "")):
                return
            self._rest = self._rest or piece
            part = self._rest[: end - self._place]
            self._rest = self._rest[len(part) :]
            self._place += len(part)
            yield part

    def skip(self, characters: int) -> None:
        """Pass over some characters."""
        for _ in self.read_to(self._place + characters):
            pass


def encode_as_bpe(data: Dataset, vocab_size: int, progress: StageProgress | None = None) -> Dataset:
    """Return the text of a dataset with tokens of BPE: a dataset named after it, with `-bpe`.

    One that has such tokens already is returned as it is. The default dataset stays what it was.
    """
    about = data.metadata
    if about.tokenizer == "bpe":
        return data
    name = about.name + BPE_SUFFIX
    if name in dataset.list_names():
        encoded = dataset.load(name)
        same = (encoded.metadata.text_sha256, encoded.metadata.split) == (
            about.text_sha256,
            about.split,
        )
        if same and encoded.metadata.answers("bpe", vocab_size):
            return encoded
    default = dataset.get_default_name()
    by_songs = about.split == "songs"
    train_characters = sum(map(len, data.iter_text("train")))
    encoded = prepare_dataset(
        PreparedText(data),
        name=name,
        source=about.source,
        provenance=about.provenance,
        source_sha256=about.source_sha256,
        tokenizer="bpe",
        vocab_size=vocab_size,
        text_column=about.text_column,
        encoding=about.encoding,
        divided_at=train_characters if by_songs else None,
        progress=progress,
    )
    dataset.set_default(default or name)
    return encoded
