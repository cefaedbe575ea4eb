"""Preparing datasets of characters and of BPE: the same text, whatever its length and shape."""

import csv
import io
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drakegpt import home
from drakegpt.data import corpus, dataset, sources
from drakegpt.data.corpus import Document
from drakegpt.data.prepare import prepare_dataset
from drakegpt.data.tokenizers import base as tokens
from drakegpt.data.tokenizers.bpe import END, BPETokenizer
from drakegpt.errors import CorpusError, UsageError

ABOUT = {"source": "t", "provenance": "t", "source_sha256": ""}
WORDS = "the quick brown fox jumps over the lazy dog and é 日本 👩 away".split()


class Songs:
    """Songs in memory, each in two pieces."""

    has_songs = True
    left_out = 0

    def __init__(self, songs):
        self.songs = songs

    def documents(self, report=None):
        for song in self.songs:
            yield Document([song[:7], song[7:]])


def songs(count=60, seed=1):
    chance = random.Random(seed)
    return ["\n".join(" ".join(chance.choices(WORDS, k=5)) for _ in range(4)) for _ in range(count)]


def whole(data, split="both"):
    splits = ("train", "val") if split == "both" else (split,)
    return data.tokenizer.decode(np.concatenate([data.split(s).numpy() for s in splits]))


def test_the_sample_is_what_it_has_always_been():
    data = sources.fetch("sample").dataset
    got = data.metadata
    assert got.version == "eb17d8616e381d9ba8cb78b7a1454047cdf2344323d63b4d8439704e8e13dc61"
    assert got.array_sha256 == {
        "train": "0908bb50cd23b25c4b24ef24e73acf117a60a4123363032a64767de7a7139f03",
        "val": "77e42ab374859c9acd746a1481cf31e3146ce15de753eb9d115275fda3659a99",
    }
    assert got.source_sha256.startswith("e816503b43a3bf26")
    assert (got.characters, got.songs, got.vocab_size) == (108_249, 52, 48)
    assert (got.train_tokens, got.val_tokens) == (97_424, 10_825)
    assert (got.tokenizer, got.vocab_asked, data.tokenizer.end) == ("char", None, None)


@pytest.mark.parametrize("size", [1, 3, 50, 10**6])
def test_chunks_leave_no_trace(tmp_path, monkeypatch, size):
    (tmp_path / "t.txt").write_text("\r\n".join(songs()), encoding="utf-8", newline="")
    versions = set()
    for chunk in (10**6, size):
        monkeypatch.setattr(corpus, "CHUNK", chunk)
        monkeypatch.setattr(tokens, "BATCH", chunk)
        for kind in ("char", "bpe"):
            fetched = sources.fetch(str(tmp_path / "t.txt"), tokenizer=kind, force=True)
            fetched.dataset.verify()
            versions.add(fetched.dataset.metadata.version)
    assert len(versions) == 2


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text("ab \né日", min_size=1, max_size=40), min_size=1), st.randoms())
def test_both_tokenizers_hold_the_same_text(texts, chance):
    texts = texts + songs(8, chance.random())
    char = prepare_dataset(Songs(texts), name="c", **ABOUT)
    bpe = prepare_dataset(Songs(texts), name="b", tokenizer="bpe", vocab_size=300, **ABOUT)
    assert whole(char) == whole(bpe) == "\n".join(texts)
    assert char.metadata.text_sha256 == bpe.metadata.text_sha256
    cut = int(0.9 * char.metadata.characters)
    begun = bpe.tokenizer.count_characters()
    tokens = {split: bpe.split(split).numpy() for split in ("train", "val")}
    assert begun[tokens["train"]].sum() == len(whole(bpe, "train")) == cut
    assert begun[tokens["val"]].sum() == char.metadata.characters - cut
    assert sum((t == END).sum() for t in tokens.values()) == len(texts) - 1
    assert bpe.metadata.songs == len(texts)


def test_a_boundary_at_the_cut_opens_the_validation_split():
    data = prepare_dataset(
        Songs(["x" * 90, "ab cd ef gh i"[:9]]), name="b", tokenizer="bpe", vocab_size=261, **ABOUT
    )
    assert data.metadata.characters == 100
    assert data.split("val")[0] == END
    assert whole(data, "val") == "\nab cd ef "[:10]


def test_the_vocabulary_is_learnt_from_the_training_split_alone():
    text = "train " * 150 + "zebra " * 16
    data = prepare_dataset(text, name="b", tokenizer="bpe", **ABOUT)
    tokens = [data.tokenizer.decode([i]) for i in range(data.tokenizer.vocab_size)]
    assert " train" in tokens
    assert not any("ze" in token for token in tokens)
    assert data.metadata.vocab_asked == 20_000


def test_old_datasets_still_load(prepared):
    file = prepared.folder / "dataset.json"
    stored = json.loads(file.read_text())
    for new in ("tokenizer", "text_sha256", "vocab_asked", "text_column"):
        del stored[new]
    file.write_text(json.dumps(stored))
    metadata = dataset.load("small").metadata
    assert (metadata.tokenizer, metadata.text_sha256, metadata.vocab_asked) == ("char", "", None)
    assert metadata.text_column == ""
    dataset.load("small").verify()


def test_the_same_text_in_other_documents_is_another_dataset():
    first = prepare_dataset(Songs(songs()), name="b", tokenizer="bpe", **ABOUT)
    second = prepare_dataset("\n".join(songs()), name="b", tokenizer="bpe", **ABOUT)
    assert first.metadata.text_sha256 == second.metadata.text_sha256
    assert first.metadata.version != second.metadata.version
    assert whole(first) == whole(second)


def test_nothing_is_learnt_twice(tmp_path, monkeypatch):
    path = tmp_path / "t.txt"
    path.write_text("\n".join(songs()), encoding="utf-8")
    first = sources.fetch(str(path), tokenizer="bpe", vocab_size=300)
    assert (first.outcome, first.dataset.name) == ("prepared", "t-bpe")
    other = sources.fetch(str(path), tokenizer="bpe", vocab_size=301)
    assert (other.outcome, other.dataset.metadata.vocab_size) == ("prepared", 301)
    most = sources.fetch(str(path), tokenizer="bpe")
    assert most.dataset.metadata.vocab_size < 1000
    with monkeypatch.context() as patch:
        patch.setattr(BPETokenizer, "train", None)
        for size in (None, 5000, most.dataset.metadata.vocab_size):
            again = sources.fetch(str(path), tokenizer="bpe", vocab_size=size)
            assert again.outcome == "already there"
    path.write_text("\n".join(songs(61)), encoding="utf-8")
    assert sources.fetch(str(path), tokenizer="bpe").outcome == "changed"


def test_a_known_source_is_there_for_one_vocabulary():
    assert sources.fetch("sample", tokenizer="bpe", vocab_size=400).outcome == "prepared"
    assert sources.fetch("sample").dataset.name == "sample"
    assert sources.fetch("sample", tokenizer="bpe", vocab_size=400).outcome == "already there"
    assert sources.fetch("sample", tokenizer="bpe", vocab_size=500).outcome == "prepared"
    assert dataset.load("sample-bpe").metadata.vocab_size == 500


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vocab_size": 300}, "for --tokenizer bpe"),
        ({"tokenizer": "bpe", "vocab_size": 260}, "at least the 256 bytes"),
        ({"tokenizer": "word"}, "no tokenizer 'word'"),
    ],
)
def test_impossible_wishes_are_refused_before_anything_is_read(options, words):
    with pytest.raises(UsageError, match=words):
        sources.fetch("nowhere.txt", **options)


def test_few_tokens_are_too_few():
    with pytest.raises(CorpusError, match="needs 9") as caught:
        prepare_dataset("lalala" * 50, name="b", tokenizer="bpe", **ABOUT)
    assert "char" in caught.value.fix
    assert dataset.list_names() == []
    assert not list((home.datasets() / "b").glob(".*unfinished"))


@pytest.mark.parametrize("kind", ["char", "bpe"])
@pytest.mark.parametrize("letters", ["", "ZŻ"])
def test_a_text_that_changes_meanwhile_is_refused(kind, letters):
    """In its length alone, or by letters that it did not have."""

    class Growing(Songs):
        times = 0

        def documents(self, report=None):
            self.songs = [*self.songs, self.songs[0] + letters[: self.times]]
            self.times += 1
            return super().documents(report)

    with pytest.raises(CorpusError, match="changed while"):
        prepare_dataset(Growing(songs()), name="b", tokenizer=kind, **ABOUT)
    assert dataset.list_names() == []
    assert not list((home.datasets() / "b").glob(".*unfinished"))


def test_every_pass_reports_its_progress(tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(songs()), encoding="utf-8")
    size = (tmp_path / "t.txt").stat().st_size
    seen = []
    sources.fetch(
        str(tmp_path / "t.txt"), tokenizer="bpe", progress=lambda *report: seen.append(report)
    )
    assert (list(dict.fromkeys(what for what, _, _ in seen))) == [
        "reading", "finding words", "learning tokens", "taking checksums", "comparing the splits",
        "encoding",
    ]  # fmt: skip
    assert seen[-1] == ("encoding", size, size)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_preparing_again_mends_what_is_damaged(kind):
    data = prepare_dataset("\n".join(songs()), name="b", tokenizer=kind, **ABOUT)
    for file in ("train.npy", "val.npy", "tokenizer.json", "dataset.json"):
        good = (data.folder / file).read_bytes()
        (data.folder / file).write_bytes(good[:-3] + b"}}}")
        again = prepare_dataset("\n".join(songs()), name="b", tokenizer=kind, **ABOUT)
        again.verify()
        assert again.metadata.version == data.metadata.version
        if file != "dataset.json":
            assert (data.folder / file).read_bytes() == good


@pytest.mark.skipif(os.name != "posix", reason="no named pipes on this system")
def test_a_pipe_is_read_once(tmp_path):
    import threading

    text = "\n".join(songs())
    os.mkfifo(tmp_path / "pipe.txt")
    writer = threading.Thread(target=(tmp_path / "pipe.txt").write_bytes, args=[text.encode()])
    writer.start()
    data = sources.fetch(str(tmp_path / "pipe.txt")).dataset
    writer.join()
    assert whole(data) == text


def test_the_beginning_of_a_text_ends_with_a_whole_character():
    data = prepare_dataset("日本" * 500, name="b", tokenizer="bpe", vocab_size=261, **ABOUT)
    assert data.text("train", 8) == "日本"


PREPARE = """
import sys
from pathlib import Path
from drakegpt.data import sources
def peak():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l)
    return int(line.split()[1]) / 1024
sources.fetch("sample", tokenizer=sys.argv[2], name="first")
before = peak()
sources.fetch(sys.argv[1], tokenizer=sys.argv[2])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "suffix", "megabytes", "allowed"),
    [("char", "txt", (5, 50), 20), ("char", "csv", (2, 20), 16), ("bpe", "txt", (4, 40), 40)],
)
def test_memory_does_not_grow_with_the_text(tmp_path, kind, suffix, megabytes, allowed):
    """Megabytes by which the peak grows, for a text and for one ten times as long.

    A row of a table is a song, of which the split takes 25 bytes: 10 MB for 400,000 rows.
    """
    chance = random.Random(3)
    words = ["".join(chance.choices("abcdefghéß", k=chance.randint(2, 9))) for _ in range(5000)]
    lines = [" ".join(chance.choices(words, k=8)) for _ in range(10_000)]
    if suffix == "csv":
        table = io.StringIO(newline="")
        csv.writer(table).writerows([line] for line in lines)
        block = table.getvalue().encode()
    else:
        block = "".join(f"{line}\n" for line in lines).encode()
    grown = []
    for size in megabytes:
        path = tmp_path / f"{size}.{suffix}"
        with path.open("wb") as file:
            file.write(b"Lyric\n" if suffix == "csv" else b"")
            while file.tell() < size * 1e6:
                file.write(block)
        done = subprocess.run(
            [sys.executable, "-c", PREPARE, str(path), kind], capture_output=True, check=True
        )
        grown.append(float(done.stdout))
    assert grown[1] < grown[0] + allowed
