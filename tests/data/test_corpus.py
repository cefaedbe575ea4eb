"""Texts read in chunks are the texts read at once."""

import csv
import io

import pytest

from drakegpt.data import corpus
from drakegpt.data.corpus import CsvColumn, File, TextFile, iter_parts
from drakegpt.errors import CorpusError, FetchError


def test_a_csv_comes_song_by_song_whatever_the_chunks(tmp_path, monkeypatch):
    songs = ['one, "two"\nthree', "  ", "", "fünf\n\nsechs", "x" * 100]
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerows([("id", "words"), *enumerate(songs)])
    (tmp_path / "t.csv").write_bytes(table.getvalue().encode("utf-8-sig"))
    for size in (1, 2, 3, 7, 1000):
        monkeypatch.setattr(corpus, "CHUNK", size)
        text = CsvColumn(File(tmp_path / "t.csv", "t.csv"), "words")
        assert ["".join(song) for song in text.documents()] == [songs[0], songs[3], songs[4]]
        assert list(iter_parts(text)) == [songs[0], None, songs[3], None, songs[4]]


def test_progress_ends_with_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "CHUNK", 10)
    (tmp_path / "t.txt").write_bytes(b"a" * 95)
    seen = []
    list(
        iter_parts(TextFile(File(tmp_path / "t.txt", "t.txt")), lambda *report: seen.append(report))
    )
    assert seen[0] == (10, 95)
    assert seen[-1] == (95, 95)


def test_a_file_that_went_away_is_explained(tmp_path):
    with pytest.raises(FetchError, match=r"t\.txt cannot be read: No such file"):
        list(iter_parts(TextFile(File(tmp_path / "t.txt", "t.txt"))))


def songs_of(tmp_path, text, column="Lyric"):
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    table = CsvColumn(File(tmp_path / "t.csv", "t.csv"), column)
    return ["".join(song) for song in table.documents()], table


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('a,Lyric\n1,"one\n2,two\n', "line 2: a quote opens a cell and is never closed"),
        ('a,Lyric\n\n1,one\n2,"two\n\n', "line 4: a quote opens a cell and is never closed"),
        ('a,Lyric\n1,"one\n2,"two"\n', "line 3: text follows the quote that closes a cell, which"
         " a quote in line 2"),
        ('a,Lyric\n1,"one" more\n', "line 2: text follows"),
        ("a,Lyric\n1,one\n2\n", "line 3 has 1 field, and the header 2 names, separated by c"),
        ("a,Lyric\n1,one, two\n", "row in line 2 has 3 fields"),
        ('a,Lyric\n1,"o\nn\ne"\n2,two,\n', "row in line 5 has 3 fields"),
        ("a;Lyric\n1;one;two\n", "line 2 has 3 fields, and the header 2 names, separated by s"),
        ("Lyric\n1,one\n", "row in line 2 has 2 fields, and the header 1 name,"),
        ("Lyric,Lyric\n1,2\n", "several columns 'Lyric'"),
        ("Lyric , Lyric\n1,2\n", "several columns 'Lyric'"),
        ("a;b\n1;2\n", "no column 'Lyric'; its columns are: a, b."),
        ("a\tb\n1\t2\n", "no column 'Lyric'; its columns are: a, b."),
        (",".join("x" * 99 for _ in range(99)) + "\n", "no column 'Lyric'; its columns are: xxx"),
    ],
)  # fmt: skip
def test_a_malformed_csv_is_an_error_with_its_line(tmp_path, text, words):
    with pytest.raises(CorpusError) as caught:
        songs_of(tmp_path, text)
    assert words in caught.value.problem
    assert len(caught.value.problem) < 2000
    assert caught.value.fix


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("blank", ["", " ", "  "])
def test_separators_and_blanks(tmp_path, separator, blank):
    rows = [("id", " Lyric "), ("1", '"one;,\t""1"""'), ("2", '"zwei\n\nTeile" '), ("", "three  ")]
    text = "\n" + "\n".join((separator + blank).join(row) for row in rows) + "\n  \n\n"
    songs, table = songs_of(tmp_path, text, " Lyric")
    assert songs == ['one;,\t"1"', "zwei\n\nTeile", f"{blank}three  "]
    assert (table.separator, table.left_out) == (separator, 0)


def test_rows_without_text_are_counted(tmp_path):
    cells = [
        "one",
        "",
        " ",
        "nan",
        "NaN",
        "null",
        '"NULL"',
        " nan ",
        "nano",
        "none",
        '"\n"',
        "\u3000",
    ]
    text = "id,Lyric\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))
    songs, table = songs_of(tmp_path, text)
    assert songs == ["one", "nano", "none"]
    assert table.left_out == 9


def test_quotes_elsewhere_are_characters(tmp_path):
    assert songs_of(tmp_path, 'Lyric\nsay "hi"\na"\n')[0] == ['say "hi"', 'a"']


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_csv_may_be_in_any_marked_encoding(tmp_path, encoding):
    assert songs_of(tmp_path, "id\tLyric\r\n1\té👩\r\n".encode(encoding))[0] == ["é👩"]


@pytest.mark.slow
def test_a_large_cell_is_held_in_little_more_than_its_size(tmp_path):
    """Also one of short pieces between quotes; measured by Python's own account of its memory."""
    import tracemalloc

    size = 2_000_000
    for unit in ("a song, ", 'a ""song"" ', "日本\n", "👩 and much of nothing "):
        cell = unit * (size // len(unit.encode()))
        (tmp_path / "t.csv").write_text(f'id,Lyric\n1,"{cell}"\n', encoding="utf-8")
        del cell
        tracemalloc.start()
        (song,) = CsvColumn(File(tmp_path / "t.csv", "t.csv"), "Lyric").documents()
        assert sum(map(len, song)) > size / 5
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * size + 2_000_000, unit  # some pieces of the file, of 2^18 bytes
