"""A zip archive is unpacked under numbers, and refused if it tries anything."""

import stat
import struct
import zipfile

import pytest

from drakegpt.data import archives
from drakegpt.errors import FetchError


def make(path, *members):
    """Write an archive; a member is a name, or an entry, with its bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in members:
            archive.writestr(entry, content)
    return path


def unpack(path, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    return archives.unpack(path, path.name, folder), folder


def test_members_are_written_under_numbers(tmp_path):
    names = ["b/song.txt", "a.txt", "con.txt", "odd\x1b[31m.txt", "x/y/z/deep.txt"]
    path = make(tmp_path / "a.zip", *((name, name.encode()) for name in names), ("empty/", b""))
    members, folder = unpack(path, tmp_path)
    assert [member.name for member in members] == sorted(names)
    assert all(member.path.read_bytes().decode() == member.name for member in members)
    assert sorted(file.name for file in folder.iterdir()) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "name",
    ["../up.txt", "a/../../up.txt", "/etc/x.txt", "..", "a/..", "C:/x.txt", "c:x.txt",
     "a\\..\\..\\up.txt", "\\\\server\\x.txt"],
)  # fmt: skip
def test_names_that_lead_out_are_refused_with_everything(tmp_path, name):
    path = make(tmp_path / "a.zip", ("good.txt", b"good"), (name, b"bad"))
    with pytest.raises(FetchError, match="leads out of it"):
        unpack(path, tmp_path)
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize("name", ["a..b.txt", "...txt", "a/.. b.txt", "wow...txt", "ab:c.txt"])
def test_dots_in_names_are_dots(tmp_path, name):
    (member,), _ = unpack(make(tmp_path / "a.zip", (name, b"x")), tmp_path)
    assert member.path


def test_links_and_encrypted_members_are_left_out(tmp_path):
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = make(tmp_path / "a.zip", ("a.txt", b"good"), (link, b"/etc/passwd"), ("secret", b"x"))
    raw = bytearray(path.read_bytes())
    central = raw.rindex(b"PK\x01\x02")
    flags = struct.unpack_from("<H", raw, central + 8)[0]
    struct.pack_into("<H", raw, central + 8, flags | 1)
    path.write_bytes(raw)
    members, folder = unpack(path, tmp_path)
    assert [(m.name, m.reason) for m in members] == [
        ("a.txt", ""), ("link.txt", "a link"), ("secret", "encrypted"),
    ]  # fmt: skip
    assert [file.read_bytes() for file in folder.iterdir()] == [b"good"]


@pytest.mark.parametrize(("limit", "value"), [("MAX_UNPACKED", 1000), ("MAX_MEMBERS", 1)])
def test_too_much_is_refused_before_anything_is_written(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(archives, limit, value)
    path = make(tmp_path / "a.zip", ("a.txt", b"\0" * 900), ("b.txt", b"\0" * 900))
    with pytest.raises(FetchError, match="has more than"):
        unpack(path, tmp_path)
    assert not list((tmp_path / "in").iterdir())


def test_a_bomb_that_lies_about_its_size_is_stopped(tmp_path):
    path = make(tmp_path / "a.zip", ("a.txt", b"\0" * 10**6))
    raw = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", raw, raw.index(signature) + offset, 10)
    path.write_bytes(raw)
    with pytest.raises(FetchError, match="damaged"):
        unpack(path, tmp_path)
    assert (tmp_path / "in" / "0").stat().st_size <= 10


@pytest.mark.parametrize("raw", [b"", b"PK\3\4 not really", b"text"])
def test_what_is_not_an_archive_is_explained(tmp_path, raw):
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(FetchError, match="damaged archive"):
        unpack(tmp_path / "a.zip", tmp_path)
