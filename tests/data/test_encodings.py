"""Bytes are read where their encoding is certain, and explained where it is not."""

import bz2
import codecs
import gzip
import io
import lzma
import random
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakegpt.data.encodings import HEAD, MARKS, decode_chunks
from drakegpt.errors import CorpusError

ENGLISH = "she said “stay” and it’s late … café\n" * 40
CHINESE = "日本語の文字です。ひらがな\n漢字\n" * 40
RUSSIAN = "она сказала: останься, уже поздно\n" * 40


def read(raw, size=10**6, source="x.txt"):
    return "".join(decode_chunks((raw[i : i + size] for i in range(0, len(raw), size)), source))


fragments = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\r\r\n", b"a", b"bc\x0b", "é".encode(), "日".encode(), "👩".encode(),
     "\u2028".encode(), b"\xef\xbb\xbf", b"\xc3", b"\xff", b"\xfe", b"\xe6\x97"]
)  # fmt: skip


def unify(text):
    """Line feeds for all line ends, "\\r\\r\\n" among them."""
    return text.replace("\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


def at_once(raw):
    """The text of a file's bytes or what is wrong with them, in the plainest way."""
    mark, encoding = next((m for m in MARKS if raw.startswith(m[0])), (b"", "utf-8"))
    try:
        text = raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        place = error.start + len(mark)
        line = unify(raw[len(mark) : place].decode(encoding)).count("\n") + 1
        return None, f"line {line} has the byte 0x{raw[place]:02x} at position {place}."
    return unify(text), None


@settings(max_examples=300, deadline=None)
@given(st.lists(fragments, max_size=12).map(b"".join), st.integers(1, 5))
def test_chunks_make_no_difference(raw, size):
    text, problem = at_once(raw)
    if problem is None:
        assert read(raw, size) == text
    else:
        with pytest.raises(CorpusError) as caught:
            read(raw, size)
        assert problem in caught.value.problem


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, RUSSIAN, "", "a\r\nb\rc\0d\ufeff"])
@pytest.mark.parametrize(("mark", "encoding"), MARKS)
@pytest.mark.parametrize("size", [1, 3, 10**6])
def test_marked_encodings_are_read(text, mark, encoding, size):
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    assert read(mark + text.encode(encoding), size) == plain


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, RUSSIAN, ENGLISH * 20, "a" * 200])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_encodings_without_a_mark_are_named(text, encoding):
    with pytest.raises(CorpusError) as caught:
        read(text.encode(encoding))
    assert (
        f"not UTF-8 but {encoding[:6].upper()}, without a byte-order mark" in caught.value.problem
    )
    name = caught.value.fix.split("iconv -f ")[1].split()[0]
    assert text.encode(encoding).decode(name) == text


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", ENGLISH)
    return file.getvalue()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (gzip.compress(ENGLISH.encode(), mtime=0), "gzip"),
        (bz2.compress(ENGLISH.encode()), "bzip2"),
        (lzma.compress(ENGLISH.encode()), "xz"),
        (zipped(), "zip"),
        (b"PK\5\6" + b"\0" * 18, "empty zip"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), "binary data"),
        (random.Random(1).randbytes(9000), "binary data"),
        (b"\0" * 500, "binary data"),
        (b"\x7fELF" + b"\0\1" * 900, "binary data"),
    ],
)
def test_what_is_no_text_is_named(raw, words):
    with pytest.raises(CorpusError) as caught:
        read(raw)
    assert caught.value.problem.startswith("x.txt is not text but ")
    assert words in caught.value.problem
    assert caught.value.fix


@pytest.mark.parametrize("before", ["", "plain\n" * HEAD])
def test_the_advice_for_windows_1252_gives_its_characters_back(before):
    raw = (before + ENGLISH).encode("windows-1252")
    with pytest.raises(CorpusError) as caught:
        read(raw, source="/a/my song.txt")
    assert "is not UTF-8: line " in caught.value.problem
    assert "iconv -f windows-1252 -t utf-8 'my song.txt' > utf8.txt" in caught.value.fix
    assert raw.decode("windows-1252") == before + ENGLISH


@pytest.mark.parametrize("rest", [b"a", b"a\0\0\xd8a\0"])
def test_a_mark_that_is_not_kept_is_damage(rest):
    with pytest.raises(CorpusError, match="its mark says UTF-16, but line 1"):
        read(codecs.BOM_UTF16_LE + rest)


def test_stray_control_characters_are_characters():
    text = "a line with a NUL \0 in it\n" * 20 + "\x1b[31mred\x1b[0m\x07\x0c\n" * 20
    assert read(text.encode()) == text
