"""Reading texts from everywhere but Kaggle, which has a test file of its own."""

import hashlib
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from drakegpt.data import dataset, known_sources, sources, user_files
from drakegpt.errors import CorpusError, FetchError, UsageError

TEXT = "one two three\nfour five six\n" * 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_disk_that_is_full_while_a_pipe_is_copied(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "copy").symlink_to("/dev/full")
    writer = threading.Thread(target=lambda: pipe.write_text(TEXT), daemon=True)
    writer.start()
    with pytest.raises(FetchError, match="disk is full") as caught:
        user_files.find_file(pipe, tmp_path)
    writer.join()
    assert "Free some space" in caught.value.fix


def test_sample_is_original_size_and_shape():
    data = sources.fetch("sample").dataset
    assert data.metadata.songs >= 40
    assert data.metadata.characters >= 60_000
    text = data.text("train", 10**6) + data.text("val", 10**6)
    assert text == text.lower()
    for part in ("[verse", "[hook", "[bridge"):
        assert text.count(part) >= 10


def test_no_line_of_the_sample_is_shared_by_many_songs():
    import csv
    from importlib import resources

    table = (resources.files("drakegpt.data") / "sample_lyrics.csv").open(encoding="utf-8")
    with table:
        rows = list(csv.DictReader(table))
    assert list(rows[0]) == ["", "Artist", "Title", "Album", "Year", "Date", "Lyric"]
    owners = {}
    for row in rows:
        for line in set(row["Lyric"].splitlines()):
            if len(line.split()) > 2:
                owners.setdefault(line, []).append(row["Title"])
    shared = {line: titles for line, titles in owners.items() if len(titles) > 1}
    assert not shared


@pytest.mark.parametrize(
    "raw",
    [TEXT.encode(), TEXT.encode("utf-8-sig"), TEXT.replace("\n", "\r\n").encode(),
     TEXT.replace("\n", "\r").encode(), TEXT.encode("utf-16"), TEXT.encode("utf-32")],
)  # fmt: skip
def test_boms_and_line_ends_do_not_matter(tmp_path, raw):
    (tmp_path / "my song.txt").write_bytes(raw)
    data = sources.fetch(str(tmp_path / "my song.txt")).dataset
    assert data.name == "my-song"
    assert data.text("train", 10**6) + data.text("val", 10**6) == TEXT


def test_csv_column_is_joined_and_empty_rows_are_skipped(tmp_path):
    song = '"' + "la le, li\nlo " * 5 + '"'
    path = tmp_path / "songs.csv"
    path.write_text(f"id,words\n1,{song}\n2,\n3,  \n4,{song}\n", encoding="utf-8")
    data = sources.fetch(str(path), text_column="words").dataset
    assert data.metadata.songs == 2
    one = "la le, li\nlo " * 5
    assert data.text("train", 10**6) + data.text("val", 10**6) == f"{one}\n{one}"


def test_a_song_may_be_longer_than_csv_likes(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("Lyric\n" + "a b" * 60_000 + "\n")
    assert sources.fetch(str(path)).dataset.metadata.characters == 180_000


def test_fetching_again_is_told_from_a_changed_file(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(TEXT)
    assert sources.fetch(str(path)).outcome == "prepared"
    assert sources.fetch(str(path)).outcome == "already there"
    path.write_text(TEXT + "seven\n")
    assert sources.fetch(str(path)).outcome == "changed"
    assert sources.fetch(str(path), force=True).outcome == "prepared"


def test_a_column_that_had_to_be_named_is_remembered(tmp_path, drakegpt):
    path = tmp_path / "t.csv"
    path.write_text("a b,Lyric\n" + "first,second\n" * 50)
    named = sources.fetch(str(path), text_column="a b").dataset
    assert named.metadata.text_column == "a b"
    assert re.search(r"^text_column: +a b$", drakegpt("data", "show", "t").out, re.M)
    usual = sources.fetch(str(path), text_column="Lyric").dataset
    assert usual.metadata.text_column == ""
    assert "text_column" not in drakegpt("data", "show", "t").out


def test_another_column_of_the_same_file_is_another_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "first,second\n" * 50)
    first = sources.fetch(str(path), text_column="a").dataset
    second = sources.fetch(str(path), text_column="b")
    assert second.outcome == "changed"
    assert second.dataset.metadata.version != first.metadata.version


@pytest.mark.parametrize(
    ("name", "raw", "options", "kind", "words"),
    [
        ("a.txt", b"", {}, CorpusError, ["no text"]),
        ("a.txt", b" \n \n", {}, CorpusError, ["no text"]),
        ("a.txt", b"short", {}, CorpusError, ["5 characters", "90"]),
        ("a.txt", b"ok\nna\xefve" + b"x" * 99, {}, CorpusError, ["line 2", "0xef", "UTF-8"]),
        ("a.txt", b"\xef\xbb\xbfok\n\xe9\n", {}, CorpusError, ["line 2", "0xe9", "position 6."]),
        ("a.txt", b"ok" * 99 + b"\n\xe6\x97", {}, CorpusError, ["line 2", "0xe6", "position 199"]),
        ("a.txt", TEXT.encode("utf-16-le"), {}, CorpusError, ["UTF-16", "iconv -f utf-16le"]),
        ("a.csv", b'Lyric\n"never closed\n' * 9, {}, CorpusError, ["line 4", "line 2"]),
        ("a.csv", b"Lyric\nnan\n,\n", {}, CorpusError, ["line 3", "2 fields"]),
        ("a.csv", b"Lyric\nnan\n", {}, CorpusError, ["no text"]),
        ("a.csv", TEXT.encode(), {"text_column": " "}, UsageError, ["--text-column is empty"]),
        ("a.txt", TEXT.encode(), {"name": ""}, UsageError, ["--name is empty"]),
        ("a.txt", TEXT.encode(), {"name": "sample"}, UsageError, ["already, from drakegpt/data"]),
        ("a.csv", b"x,y\n1,2\n", {}, CorpusError, ["no column 'Lyric'", "x, y", "--text-column"]),
        ("a.csv", b"", {}, CorpusError, ["no text"]),
        ("a.csv", b"Lyric\n\n", {}, CorpusError, ["no text"]),
        ("a.txt", TEXT.encode(), {"text_column": "x"}, UsageError, ["--text-column"]),
        ("a.txt", TEXT.encode(), {"name": "../up"}, UsageError, ["../up", "letters"]),
        ("a.txt", TEXT.encode(), {"name": "default"}, UsageError, ["default"]),
    ],
)
def test_bad_files_are_explained_and_change_nothing(tmp_path, name, raw, options, kind, words):
    sources.fetch("sample")
    before = dataset.list_names(), dataset.get_default_name()
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(kind) as caught:
        sources.fetch(str(path), **options)
    for word in words:
        assert word in str(caught.value)
    assert (dataset.list_names(), dataset.get_default_name()) == before


def test_another_file_of_the_same_name_does_not_take_its_place(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "song.txt").write_text(TEXT + folder)
    first = sources.fetch(str(tmp_path / "a" / "song.txt")).dataset
    with pytest.raises(UsageError, match="already, from") as caught:
        sources.fetch(str(tmp_path / "b" / "song.txt"))
    assert "--name" in caught.value.fix
    assert dataset.load("song").metadata == first.metadata
    assert sources.fetch(str(tmp_path / "b" / "song.txt"), name="other").outcome == "prepared"


def test_a_file_cannot_pose_as_a_known_source(tmp_path):
    (tmp_path / "mine.txt").write_text(TEXT)
    sources.fetch(str(tmp_path / "mine.txt"), name="sample")
    with pytest.raises(UsageError, match="'sample' already, from"):
        sources.fetch("sample")
    assert sources.fetch("sample", force=True).dataset.metadata.songs >= 40


def test_a_missing_file_and_a_folder_are_explained(tmp_path):
    with pytest.raises(UsageError, match="neither a known source nor a file"):
        sources.fetch(str(tmp_path / "nowhere.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="has no file of songs. It is empty"):
        sources.fetch(str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="The source is empty"):
        sources.fetch("")


class Web:
    """A loopback server with one body, and a status of one's choice."""

    def __init__(self, body, status=200, cut=0):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) - cut])

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/input.txt"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_a_download_is_verified_and_reports_progress(tmp_path):
    body = b"to be or not to be\n" * 10_000
    seen = []
    with Web(body) as web:
        got = known_sources.download_url(
            web.url, hashlib.sha256(body).hexdigest(), tmp_path / "x", lambda *p: seen.append(p)
        )
    assert got.read_bytes() == body
    assert seen[-1] == (len(body), len(body))
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("web", "words"),
    [
        (Web(b"other"), ["5 bytes", "checksum", "try again"]),
        (Web(b"x" * 100, cut=50), ["50 bytes", "checksum"]),
        (Web(b"", status=404), ["404", "browser"]),
        (Web(b"", status=503), ["503"]),
    ],
)
def test_failed_downloads_are_explained(web, words, tmp_path):
    with web, pytest.raises(FetchError) as caught:
        known_sources.download_url(web.url, "0" * 64, tmp_path / "x")
    for word in words:
        assert word in str(caught.value)


def test_no_network_is_explained(tmp_path):
    with pytest.raises(FetchError, match="could not be reached") as caught:
        known_sources.download_url("http://127.0.0.1:9/input.txt", "0" * 64, tmp_path / "x")
    assert "data add FILE" in caught.value.fix


def test_the_sample_steps_in_when_nothing_was_fetched(tmp_path):
    data, new = sources.load_or_prepare_sample(None)
    assert (data.name, new) == ("sample", True)
    assert sources.load_or_prepare_sample(None)[1] is False
    (tmp_path / "mine.txt").write_text(TEXT)
    sources.fetch(str(tmp_path / "mine.txt"))
    assert sources.load_or_prepare_sample(None)[0].name == "mine"
    with pytest.raises(CorpusError, match="no dataset named 'other'"):
        sources.load_or_prepare_sample("other")


def test_asking_for_the_sample_does_not_make_it_the_default(tmp_path):
    (tmp_path / "mine.txt").write_text(TEXT)
    sources.fetch(str(tmp_path / "mine.txt"))
    assert sources.load_or_prepare_sample("sample")[1] is True
    assert dataset.get_default_name() == "mine"
