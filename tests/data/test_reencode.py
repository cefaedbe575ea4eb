"""A prepared text encoded again has the tokens that preparing it with BPE gives."""

from importlib import resources

import pytest

from drakegpt.data import dataset, sources
from drakegpt.data.reencode import PreparedText, encode_as_bpe

SAMPLE = (resources.files("drakegpt.data") / "sample_lyrics.csv").read_text(encoding="utf-8")


@pytest.fixture(params=["sample", "songs.csv", "plain.txt"])
def source(request, tmp_path):
    """The bundled songs, divided at a character; the same as a user's, by songs; a plain text."""
    if request.param == "sample":
        return "sample"
    path = tmp_path / request.param
    path.write_text(SAMPLE, encoding="utf-8")
    return str(path)


def test_it_is_what_preparing_with_bpe_gives(source):
    by_characters = sources.fetch(source, name="mine").dataset
    encoded = encode_as_bpe(by_characters, 1024)
    assert encoded.name == "mine-bpe"
    assert dataset.get_default_name() == "mine"
    directly = sources.fetch(source, name="direct", tokenizer="bpe", vocab_size=1024).dataset
    assert encoded.metadata.version == directly.metadata.version
    assert encoded.songs == directly.songs
    assert encoded.metadata.split == by_characters.metadata.split
    for split in ("train", "val"):
        assert encoded.split(split).equal(directly.split(split))
        assert "".join(encoded.iter_text(split)).strip("\n") == (
            "".join(by_characters.iter_text(split)).strip("\n")
        )


def test_it_is_encoded_once():
    data = sources.fetch("sample").dataset
    first, again = (encode_as_bpe(data, 1024) for _ in range(2))
    assert first.metadata.prepared_at == again.metadata.prepared_at
    assert encode_as_bpe(first, 512) is first


@pytest.mark.parametrize("length", [1, 7, 1 << 16])
def test_songs_are_read_whole_whatever_the_pieces(length, monkeypatch):
    monkeypatch.setattr(dataset, "DECODED_TOKENS", length)
    data = sources.fetch("sample").dataset
    songs = ["".join(document) for document in PreparedText(data).documents()]
    assert len(songs) == 52
    whole = "".join(piece for split in ("train", "val") for piece in data.iter_text(split))
    assert "\n".join(songs) == whole
