"""Byte-level BPE: what it learns, that nothing is lost, and what it refuses."""

import codecs
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakegpt.data.tokenizers import base as tokens
from drakegpt.data.tokenizers.bpe import END, SPECIALS, BPETokenizer, split_into_pieces
from drakegpt.data.tokenizers.load import tokenizer_from_json
from drakegpt.errors import UsageError

EMOJI = "👩‍👩‍👧 e\u0301 ｆｕｌｌ नमस्ते 日本\u2028 \x00\x85\ufeff"
SPECIAL_TEXT = "<s>a</s> <mask><pad> <unk> </s>"
# White space of several kinds, and what may stand beside it.
alphabet = st.sampled_from("\n\n\n  \t\x1c\x85\xa0\u180e\u2028ab'st1!é日👩")
spaced = st.text(alphabet, max_size=80)
texts = st.text(max_size=200) | spaced | st.sampled_from([EMOJI, SPECIAL_TEXT])

LEARNT = BPETokenizer.train(
    ["the cat's  \n\n sat\n\n\nthe  cats\t\n é日é日 👩👩 </s></s>\n" * 9], 400
)
BEFORE = json.loads(LEARNT.to_json())


def test_worked_example():
    """Five words in lines; the pairs are counted within words.

    l-o and o-w stand 5 times each; the tie goes to the pair with the smaller numbers: "lo".
    Then lo-w 5 times, then low-e 3 times, then lowe-r twice; what is left stands once.
    """
    tokenizer = BPETokenizer.train(["low\nlow\nlower\nlo", "wer\nlowest"], 1000)
    new = [tokenizer.decode([token]) for token in range(261, tokenizer.vocab_size)]
    assert new == ["lo", "low", "lowe", "lower"]
    # A byte's number: 5 specials, then visible characters from "!" (0x21) on; the others come
    # after these 188 in order, so a line feed is 5 + 188 + 10 and a blank 5 + 188 + 32.
    s, t = 5 + ord("s") - 0x21, 5 + ord("t") - 0x21
    assert tokenizer.encode("lowest lower\n").tolist() == [263, s, t, 225, 264, 203]
    assert tokenizer.encode("slow").tolist() == [s, 262]


def test_a_smaller_vocabulary_is_the_beginning_of_a_larger_one():
    words = ["low\nlow\nlower\nlower\nlowest"]
    assert BPETokenizer.train(words, 263).vocab_size == 263
    assert BPETokenizer.train(words, 263).encode("lower").tolist()[0] == 262


def test_documents_are_not_joined():
    apart = BPETokenizer.train(["ab", None, "ab", None, "ab", None, "ab"], 300)
    assert apart.vocab_size == 262
    assert BPETokenizer.train(["ab", "ab", None, "a", "bab"], 300).decode([262]) == "abab"
    assert apart.encode("ab").tolist() == [261]
    (tokens,) = apart.encode_parts(["a", "b", None, None, "a"])
    assert tokens.tolist() == [261, END, END, 5 + ord("a") - 0x21]


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(texts, max_size=4), texts)
def test_any_text_survives_the_round_trip(learnt_from, text):
    for tokenizer in (BPETokenizer.train(learnt_from, 300), LEARNT):
        again = tokenizer_from_json(tokenizer.to_json())
        assert again.to_json() == tokenizer.to_json()
        tokens = tokenizer.encode(text)
        assert again.decode(again.encode(text)) == tokenizer.decode(tokens) == text
        assert tokenizer.unknown(text) == []
        assert tokenizer.count_characters()[tokens].sum() == len(text)
        assert not set(tokens.tolist()) & set(range(len(SPECIALS)))


@given(texts)
def test_streamed_bytes_lose_nothing(text):
    decoder = codecs.getincrementaldecoder("utf-8")()
    stream = [decoder.decode(LEARNT.to_bytes([token])) for token in LEARNT.encode(text)]
    assert "".join(stream) + decoder.decode(b"", final=True) == text


def test_special_tokens_are_no_text_and_their_names_are():
    assert LEARNT.decode(LEARNT.encode(SPECIAL_TEXT)) == SPECIAL_TEXT
    assert [LEARNT.decode([token]) for token in range(5)] == ["", "", "\n", "", ""]
    assert LEARNT.count_characters()[:5].tolist() == [0, 0, 1, 0, 0]
    assert LEARNT.encode("").tolist() == []
    assert LEARNT.encode("ab").dtype == np.int16


def test_half_a_character_is_shown_as_such():
    tokenizer = BPETokenizer.train([], 261)
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "\ufffd"
    assert tokenizer.to_bytes(tokenizer.encode("é")[:1]) == b"\xc3"


def test_half_a_surrogate_pair_is_no_text():
    assert LEARNT.unknown("a\udc80b\ud800\udc80") == ["\udc80", "\ud800"]
    with pytest.raises(ValueError, match="lone surrogates"):
        LEARNT.encode("a\udc80")


@given(spaced)
def test_before_a_line_feed_after_a_word_a_text_can_be_cut(text):
    whole = LEARNT.encode(text).tolist()
    for i in range(1, len(text)):
        if text[i] == "\n" and not text[i - 1].isspace():
            parts = LEARNT.encode(text[:i]).tolist() + LEARNT.encode(text[i:]).tolist()
            assert parts == whole


@given(st.lists(st.none() | spaced, max_size=8), st.integers(1, 30), st.randoms())
def test_pieces_do_not_depend_on_how_the_text_came(parts, size, chance):
    def joined(parts):
        return "".join("|" if part is None else part for part in parts)

    pieces = list(split_into_pieces(parts, size))
    assert joined(pieces) == joined(parts)
    assert all(piece is None or 0 < len(piece) <= size for piece in pieces)
    again = []
    for part in parts:
        place = chance.randint(0, len(part)) if part else 0
        again += [None] if part is None else [part[:place], part[place:]]
    assert list(split_into_pieces(again, size)) == pieces


@given(st.lists(st.text("ab \n", min_size=1, max_size=20), max_size=20))
def test_pieces_end_where_words_do(lines):
    text = "".join(f"{line}x\n" for line in lines)
    pieces = list(split_into_pieces([text], 60))
    assert not any(piece[-1].isspace() for piece in pieces[:-1])
    assert all(piece[0] == "\n" for piece in pieces[1:])


def test_long_texts_are_encoded_in_batches(monkeypatch):
    text = "the cat sat\n\n" * 300
    whole = LEARNT.encode(text)
    monkeypatch.setattr(tokens, "BATCH", 100)
    blocks = list(LEARNT.encode_parts(iter([text[:555], text[555:]])))
    assert np.array_equal(np.concatenate(blocks), whole)
    assert len(blocks) == 1
    blocks = list(LEARNT.encode_parts(["the cat", None] * 300))
    assert len(blocks) > 10
    assert LEARNT.decode(np.concatenate(blocks)) == "the cat\n" * 300


@pytest.mark.parametrize("size", [-1, 0, 260, 2**20 + 1])
def test_impossible_vocabularies_are_refused(size):
    with pytest.raises(UsageError, match="vocab-size 261"):
        BPETokenizer.train(["a"], size)


def test_learning_is_the_same_everywhere():
    """In other processes, with other hashes, with and without threads."""
    script = (
        "import hashlib, random; from drakegpt.data.tokenizers.bpe import BPETokenizer\n"
        "chance = random.Random(5)\n"
        "words = [''.join(chance.choices('abcdefgh', k=4)) for _ in range(500)]\n"
        "pieces = ['\\n'.join(chance.choices(words, k=5000)) for _ in range(4)]\n"
        "print(hashlib.sha256(BPETokenizer.train(pieces, 900).to_json().encode()).hexdigest())\n"
    )
    found = set()
    for number, parallel in enumerate(["true", "false", None]):
        variables = {**os.environ, "PYTHONHASHSEED": str(number), "RAYON_NUM_THREADS": "3"}
        if parallel:
            variables["TOKENIZERS_PARALLELISM"] = parallel
        done = subprocess.run(
            [sys.executable, "-c", script], env=variables, capture_output=True, check=True
        )
        assert not done.stderr
        found.add(done.stdout)
    assert len(found) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_fork_is_quiet_and_works():
    script = (
        "import os; from drakegpt.data.tokenizers.bpe import BPETokenizer\n"
        "t = BPETokenizer.train(['a b c\\n' * 9000], 300)\n"
        "t.encode('a b c\\n' * 9000)\n"
        "if not os.fork():\n"
        "    os._exit(0 if t.decode(t.encode('a b c\\n' * 9000)) == 'a b c\\n' * 9000 else 1)\n"
        "assert os.wait()[1] == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_characters_alone_do_not_load_the_library():
    script = (
        "import sys; from drakegpt.data import sources\n"
        "from drakegpt.data.tokenizers import char, load\n"
        "t = char.CharTokenizer.from_text('abc'); t.decode(t.encode('cab'))\n"
        "assert 'tokenizers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --- Data from outside ------------------------------------------------------------------------


def changed(path, value):
    """`BEFORE` with another value at that place, as JSON."""
    data = json.loads(json.dumps(BEFORE))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    "text",
    [
        '{"kind":"bpe"}',
        '{"kind":"bpe","tokenizer":[]}',
        '{"kind":"bpe","tokenizer":{}}',
        '{"kind":"word","tokenizer":{}}',
        changed(["tokenizer", "normalizer"], {"type": "Lowercase"}),
        changed(["tokenizer", "pre_tokenizer", "add_prefix_space"], True),
        changed(["tokenizer", "pre_tokenizer"], {"type": "Whitespace"}),
        changed(["tokenizer", "decoder"], None),
        changed(["tokenizer", "model", "type"], "WordPiece"),
        changed(["tokenizer", "model", "unk_token"], "<unk>"),
        changed(["tokenizer", "added_tokens"], BEFORE["tokenizer"]["added_tokens"][:4]),
        changed(["tokenizer", "added_tokens", 2, "content"], "<end>"),
        changed(["tokenizer", "model", "vocab", "</s>"], 3),
        changed(["tokenizer", "model", "vocab", "a"], 10**30),
        changed(["tokenizer", "model", "vocab", "a"], "70"),
        changed(["tokenizer", "model", "vocab", "too many"], 5),
        changed(["tokenizer", "model", "merges", 0], "t h"),
        changed(["tokenizer", "model", "merges", 0], ["t", "?"]),
        changed(["tokenizer", "model", "merges", 0], ["<s>", "a"]),
        changed(["tokenizer", "model", "merges"], None),
    ],
)
def test_what_is_no_tokenizer_is_refused(text):
    with pytest.raises(ValueError, match="^the tokenizer"):
        tokenizer_from_json(text)


def places(data, path=()):
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
values |= st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3)
fields = [p for p in places(BEFORE) if p and not (len(p) > 3 and p[2] == "vocab")]


@settings(deadline=None)
@given(st.sampled_from(fields) | st.sampled_from(list(places(BEFORE))[1:]), values)
def test_any_change_is_refused_or_harmless(path, value):
    text, refused = changed(path, value), False
    try:
        tokenizer = tokenizer_from_json(text)
    except ValueError as error:
        refused = str(error).startswith("the tokenizer")
    assert refused or tokenizer.decode(tokenizer.encode(EMOJI)) == EMOJI
