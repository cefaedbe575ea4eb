"""What users have, in all its forms, becomes a dataset; what cannot be read is left out or told."""

import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
import zipfile

import pytest

from drakegpt import home
from drakegpt.data import collection, dataset, sources
from drakegpt.errors import CorpusError, FetchError, UsageError

WORDS = "rain window street light late again morning coffee blue river hold letting home".split()


def make_songs(count=12, seed=1):
    chance = random.Random(seed)
    return ["\n".join(" ".join(chance.choices(WORDS, k=5)) for _ in range(8)) for _ in range(count)]


SONGS = make_songs()


def whole_text(data):
    return "".join(piece for split in ("train", "val") for piece in data.iter_text(split))


def songs_of(data):
    """The songs without blank lines after them, with their titles."""
    text, starts = whole_text(data), [song.start for song in data.songs]
    ends = [*starts[1:], data.metadata.characters + 1]
    return {
        (song.title, text[song.start : end - 1].rstrip())
        for song, end in zip(data.songs, ends, strict=True)
    }


@pytest.fixture
def folder(tmp_path):
    """A folder of songs, and of what people keep beside them."""
    place = tmp_path / "my songs"
    (place / "album").mkdir(parents=True)
    for number, song in enumerate(SONGS[:8]):
        (place / f"song {number}.txt").write_text(song)
    (place / "album" / "Ninth.md").write_text(f"\n\n{SONGS[8]}\n\n\n\n")
    (place / "album" / "tenth.LRC").write_text(
        "[ti:The Tenth]\n" + "\n".join(f"[00:01.00]{line}" for line in SONGS[9].split("\n"))
    )
    (place / "wide.txt").write_text(SONGS[10], encoding="utf-16")
    (place / "doubled.txt").write_bytes(SONGS[11].replace("\n", "\r\r\n").encode())
    return place


TITLES = [*(f"song {n}" for n in range(8)), "Ninth", "The Tenth", "wide", "doubled"]


def test_each_file_of_a_folder_is_a_song(folder):
    fetched = sources.fetch(str(folder))
    data = fetched.dataset
    assert data.name == "my-songs"
    assert songs_of(data) == set(zip(TITLES, SONGS, strict=True))
    assert fetched.summary == (
        "Taken: 12 files (1 .lrc, 1 .md, 10 .txt).",
        "Encoding: UTF-8 (11 files), UTF-16 (1 file).",
        r"1 file had line ends \r\r\n, each read as one.",
    )
    assert sources.fetch(str(folder)).outcome == "already there"
    (folder / "song 0.txt").write_text(SONGS[0] + "\none line more")
    assert sources.fetch(str(folder)).outcome == "changed"


def test_the_order_is_that_of_the_names(folder):
    data = sources.fetch(str(folder), split="contiguous").dataset
    order = ["Ninth", "The Tenth", "doubled", *(f"song {n}" for n in range(8)), "wide"]
    assert [song.title for song in data.songs] == order


def test_what_is_not_a_song_is_left_out_and_said(folder):
    expected = sources.fetch(str(folder), name="clean").dataset
    (folder / ".hidden.txt").write_text(SONGS[0])
    (folder / ".git").mkdir()
    (folder / ".git" / "x.txt").write_text(SONGS[0])
    (folder / "__MACOSX").mkdir()
    (folder / "empty.txt").write_text("\n \n")
    (folder / "latin1.txt").write_bytes("café au lait".encode("latin-1"))
    (folder / "packed.txt").write_bytes(gzip.compress(b"x" * 99))
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "README").write_text("about")
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder)
    fetched = sources.fetch(str(folder))
    assert fetched.dataset.metadata.version == expected.metadata.version
    left_out = fetched.summary[1]
    for words in (
        "2 files not readable (latin1.txt, packed.txt)",
        "1 file of another kind (.jpg) (cover.jpg)",
        "1 file of another kind (README)",
        "3 files hidden (.git/, .hidden.txt, __MACOSX/)",
        "1 file without text (empty.txt)",
        "1 file not a plain file (gone.txt)",
    ):
        assert words in left_out
    assert "latin1.txt is not UTF-8" in fetched.summary[2]
    assert "--encoding windows-1252" in fetched.summary[2]


def test_an_encoding_is_for_the_files_that_are_not_utf8(folder):
    (folder / "song 0.txt").write_text("näive café\n" + SONGS[0], encoding="utf-8")
    (folder / "song 1.txt").write_text("näive café\n" + SONGS[1], encoding="windows-1252")
    fetched = sources.fetch(str(folder), encoding="windows-1252")
    assert whole_text(fetched.dataset).count("näive café") == 2
    assert "windows-1252" in fetched.summary[1]
    assert fetched.dataset.metadata.encoding == "windows-1252"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("windows-1252", "“late” – café\n"), ("shift_jis", "日本語の歌\n"), ("utf-16-le", "plain\n"),
     ("iso2022_jp", "日本語の歌\n"), ("koi8-r", "поздно\n"), ("utf-32-be", "日本語\n")],
)  # fmt: skip
def test_named_encodings_are_read(tmp_path, encoding, text):
    (tmp_path / "t.txt").write_bytes((text * 40).encode(encoding))
    fetched = sources.fetch(str(tmp_path / "t.txt"), encoding=encoding)
    assert whole_text(fetched.dataset) == text * 40
    shown = encoding[:6].upper() if encoding.startswith("utf") else encoding
    assert fetched.summary == (f"Encoding: {shown}.",)


def test_marks_are_trusted_more_than_names(tmp_path):
    (tmp_path / "t.txt").write_text("late\n" * 40, encoding="utf-16")
    fetched = sources.fetch(str(tmp_path / "t.txt"), encoding="shift_jis")
    assert whole_text(fetched.dataset) == "late\n" * 40
    assert fetched.summary == ("Encoding: UTF-16.",)


@pytest.mark.parametrize(
    "name", ["nonsense", "hex", "rot13", "base64", "undefined", "idna", "punycode", "\0", "é"]
)
def test_names_that_are_no_encodings(tmp_path, name):
    (tmp_path / "t.txt").write_text("late\n" * 40)
    with pytest.raises(UsageError, match="There is no encoding"):
        sources.fetch(str(tmp_path / "t.txt"), encoding=name)


@pytest.mark.parametrize("name", ["ascii", "utf-8", "utf-7", "euc-jp"])
def test_a_wrong_encoding_is_explained(tmp_path, name):
    (tmp_path / "t.txt").write_bytes(b"line\n\xff\x81\xfd bad\n" * 40)
    with pytest.raises(CorpusError) as caught:
        sources.fetch(str(tmp_path / "t.txt"), encoding=name)
    assert "encoding" in caught.value.fix


def test_a_text_with_two_blank_lines_between_songs(tmp_path):
    text = "\n\n\n".join(SONGS)
    (tmp_path / "t.txt").write_text(text)
    fetched = sources.fetch(str(tmp_path / "t.txt"))
    assert fetched.summary[0] == "Two or more blank lines divide it into songs."
    assert songs_of(fetched.dataset) == {("", song) for song in SONGS}
    contiguous = sources.fetch(str(tmp_path / "t.txt"), split="contiguous")
    assert contiguous.outcome == "split differently"
    assert whole_text(contiguous.dataset) == text
    assert contiguous.dataset.metadata.train_tokens == int(0.9 * len(text))


def write_tables(place):
    """The same songs in every kind of table, the fourth without text."""
    rows = [{"title": f"T{i}", "lyrics": None if i == 3 else song} for i, song in enumerate(SONGS)]
    for suffix, separator in (("csv", ";"), ("tsv", "\t")):
        with (place / f"t.{suffix}").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["title", "lyrics"], delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for suffix in ("jsonl", "ndjson"):
        (place / f"t.{suffix}").write_text(lines)
    (place / "t.json").write_text(json.dumps(rows, indent=2))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "ndjson", "json"])
def test_the_same_songs_in_any_table_are_the_same_dataset(tmp_path, suffix):
    write_tables(tmp_path)
    fetched = sources.fetch(str(tmp_path / f"t.{suffix}"))
    data = fetched.dataset
    assert songs_of(data) == {(f"T{i}", song) for i, song in enumerate(SONGS) if i != 3}
    assert (data.metadata.rows_left_out, data.metadata.text_column) == (1, "lyrics")
    named = sources.fetch(str(tmp_path / f"t.{suffix}"), text_column="lyrics")
    assert named.outcome == "already there"
    assert any("1 row with nothing" in note for note in named.notes)


def test_a_zip_archive_is_like_its_folder(folder, tmp_path):
    (folder / "cover.jpg").write_bytes(b"\xff")
    with zipfile.ZipFile(tmp_path / "songs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/._song 0.txt", b"\0\1\2")
    packed = sources.fetch(str(tmp_path / "songs.zip"))
    plain = sources.fetch(str(folder))
    assert packed.dataset.metadata.version == plain.dataset.metadata.version
    assert packed.dataset.metadata.source_sha256 == plain.dataset.metadata.source_sha256
    assert packed.summary[0] == plain.summary[0]
    assert sources.fetch(str(tmp_path / "songs.zip")).outcome == "already there"


def test_a_zip_archive_of_a_table_or_of_one_text(tmp_path):
    write_tables(tmp_path)
    (tmp_path / "one.txt").write_text("\n\n\n".join(SONGS))
    for name, count in (("t.csv", 11), ("t.jsonl", 11), ("one.txt", 12)):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.write(tmp_path / name, f"deep/{name}")
        fetched = sources.fetch(str(tmp_path / "x.zip"), name=name)
        assert fetched.dataset.metadata.songs == count
    assert fetched.summary[1] == "Two or more blank lines divide it into songs."


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "C:\\evil.txt"])
def test_an_archive_that_leads_out_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, "\n".join(SONGS))
    with pytest.raises(FetchError, match="leads out"):
        sources.fetch(str(tmp_path / "x.zip"))
    assert dataset.list_names() == []


class Stdin:
    def __init__(self, content):
        self.buffer = io.BytesIO(content)

    def isatty(self):
        return False


def test_standard_input_is_a_text_or_a_table(tmp_path, monkeypatch):
    write_tables(tmp_path)
    text = "\n".join(SONGS)
    monkeypatch.setattr(sys, "stdin", Stdin(text.encode("utf-16")))
    fetched = sources.fetch("-")
    assert (fetched.dataset.name, whole_text(fetched.dataset)) == ("stdin", text)
    assert fetched.dataset.metadata.provenance == "standard input"
    for suffix in ("csv", "jsonl", "json"):
        monkeypatch.setattr(sys, "stdin", Stdin((tmp_path / f"t.{suffix}").read_bytes()))
        fetched = sources.fetch("-", text_column="lyrics", name="table")
        assert fetched.dataset.metadata.songs == 11
    assert fetched.outcome == "already there"
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="no standard input"):
        sources.fetch("-")


@pytest.mark.parametrize(
    ("name", "options", "kind", "words"),
    [
        ("t.txt", {"text_column": "x"}, UsageError, ["--text-column is for tables"]),
        ("texts", {"text_column": "x"}, UsageError, ["--text-column is for tables"]),
        ("t.txt", {"dedupe": True}, UsageError, ["--dedupe is for texts of songs"]),
        ("t.txt", {"split": "songs"}, UsageError, ["--split songs is for texts of songs"]),
        ("t.txt", {"split": "random"}, UsageError, ["no split 'random'"]),
        ("t.txt", {"encoding": " "}, UsageError, ["--encoding is empty"]),
        ("sample", {"encoding": "ascii"}, UsageError, ["--encoding is for files of your own"]),
        ("t.parquet", {"encoding": "ascii"}, UsageError, ["not for Parquet"]),
        ("t.jsonl", {"text_column": "nope"}, CorpusError, ["no column 'nope'", "title, lyrics"]),
        ("pictures", {}, CorpusError, ["no file of songs", "another kind", ".lrc"]),
        ("x.zip", {}, FetchError, ["damaged archive"]),
        ("nowhere", {}, UsageError, ["neither a known source nor a file"]),
    ],
)
def test_mistakes_are_explained_and_change_nothing(tmp_path, name, options, kind, words):
    write_tables(tmp_path)
    (tmp_path / "t.txt").write_text("\n".join(SONGS))
    for folder, suffix in (("texts", "txt"), ("pictures", "jpg")):
        (tmp_path / folder).mkdir()
        for number in range(3):
            (tmp_path / folder / f"{number}.{suffix}").write_text(SONGS[number])
    (tmp_path / "x.zip").write_bytes(b"PK\3\4")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    source = name if name == "sample" else str(tmp_path / name)
    with pytest.raises(kind) as caught:
        sources.fetch(source, **options)
    for word in words:
        assert word in str(caught.value)
    assert dataset.list_names() == []


def test_a_folder_of_too_many_files_is_not_walked(tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "MAX_FILES", 5)
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("x")
    with pytest.raises(FetchError, match="more than 5 files"):
        sources.fetch(str(tmp_path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of any bytes")
def test_names_that_are_not_utf8(folder):
    (folder / os.fsdecode(b"od\xffd.txt")).write_text(make_songs(1, seed=5)[0])
    data = sources.fetch(str(folder)).dataset
    assert "od\ufffdd" in {song.title for song in data.songs}


@pytest.mark.slow
def test_two_thousand_files_and_the_same_once_more(tmp_path):
    songs = make_songs(2000, seed=3)
    (tmp_path / "many").mkdir()
    for number, song in enumerate(songs):
        (tmp_path / "many" / f"{number}.txt").write_text(song)
    seen = []
    fetched = sources.fetch(
        str(tmp_path / "many"),
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    assert fetched.dataset.metadata.songs == 2000
    assert fetched.dataset.metadata.val_tokens / fetched.dataset.metadata.characters == (
        pytest.approx(0.1, abs=0.001)
    )
    for stage in dict.fromkeys(stage for stage, *_ in seen):
        assert [done for name, done, total in seen if name == stage][-1] > 0
    file = fetched.dataset.folder / "dataset.json"
    before = file.stat().st_mtime_ns
    assert sources.fetch(str(tmp_path / "many")).outcome == "already there"
    assert file.stat().st_mtime_ns == before
    assert len(list((home.datasets() / "many").iterdir())) == 2  # the version, and its name


def test_duplicates_are_reported_and_left_out_if_asked(tmp_path):
    songs = [*SONGS, SONGS[0], SONGS[1].upper().replace("\n", " !\n")]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": s}) + "\n" for s in songs))
    fetched = sources.fetch(str(tmp_path / "t.jsonl"))
    said = "2 songs repeat others (1 word for word, 1 but for case, spaces and punctuation)"
    assert f"{said}: copies stand in one split; --dedupe leaves them out." in fetched.notes
    deduped = sources.fetch(str(tmp_path / "t.jsonl"), dedupe=True)
    assert f"{said}: they are left out." in deduped.notes
    assert deduped.outcome == "changed"
    assert songs_of(deduped.dataset) == {("", song) for song in SONGS}


def test_a_version_from_before_keeps_its_split_and_the_file_added_again_is_a_new_one(tmp_path):
    (tmp_path / "t.csv").write_text("Lyric\n" + "".join(f'"{song}"\n' for song in SONGS))
    old = sources.fetch(str(tmp_path / "t.csv"), split="contiguous").dataset
    file = old.folder / "dataset.json"
    stored = json.loads(file.read_text())
    for new in ("encoding", "split", "exact_copies", "near_copies", "copies_left_out"):
        del stored[new]
    file.write_text(json.dumps(stored))
    fetched = sources.fetch(str(tmp_path / "t.csv"))
    assert fetched.outcome == "split differently"
    before = dataset.load("t", old.metadata.version)
    before.verify()
    assert before.metadata.split == "contiguous"
    assert before.metadata.train_tokens == int(0.9 * before.metadata.characters)
    assert dataset.load("t").metadata.split == "songs"
    assert sources.fetch(str(tmp_path / "t.csv")).outcome == "already there"


def test_the_known_sources_keep_their_split():
    assert sources.fetch("sample").dataset.metadata.split == "contiguous"
    by_songs = sources.fetch("sample", split="songs").dataset.metadata
    assert (by_songs.split, by_songs.songs) == ("songs", 52)
    assert sources.fetch("sample", split="songs").outcome == "already there"
    assert sources.fetch("sample").dataset.metadata.split == "contiguous"


def test_too_few_songs_are_told_of(tmp_path):
    (tmp_path / "t.csv").write_text(f'Lyric\n"{SONGS[0]}"\n')
    assert any("too few different songs (1)" in n for n in sources.fetch(f"{tmp_path}/t.csv").notes)


PREPARE = """
import sys
from pathlib import Path
from drakegpt.data import sources
def peak():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l)
    return int(line.split()[1]) / 1024
sources.fetch("sample", split="songs", name="first")
before = peak()
sources.fetch(sys.argv[1], dedupe=True)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("kind", ["jsonl", "txt", "zip"])
def test_memory_does_not_grow_with_the_text(tmp_path, kind):
    """Megabytes by which the peak grows, for songs and for five times as many."""
    grown = []
    for count in (200, 1000) if kind == "zip" else (3000, 15_000):
        songs = [f"{number}\n" + "\n".join(SONGS[:5]) for number in range(count)]
        path = tmp_path / f"{count}.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for number, song in enumerate(songs):
                    archive.writestr(f"{number}.txt", song * 15)
        elif kind == "txt":
            path.write_text("\n\n\n".join(songs))
        else:
            path.write_text("".join(json.dumps({"text": song}) + "\n" for song in songs))
        done = subprocess.run(
            [sys.executable, "-c", PREPARE, str(path)], capture_output=True, check=True
        )
        grown.append(float(done.stdout))
    assert path.stat().st_size > 15e6
    assert grown[1] < grown[0] + 8
