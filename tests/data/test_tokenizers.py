import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakegpt.data.tokenizers.base import token_type
from drakegpt.data.tokenizers.bpe import SMALLEST_VOCAB_SIZE, BPETokenizer
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.data.tokenizers.load import tokenizer_from_json

texts = st.text(min_size=1, max_size=300)


@given(texts)
def test_any_text_survives_the_round_trip(text):
    tokenizer = tokenizer_from_json(CharTokenizer.from_text(text).to_json())
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab_size == len(set(text))


@given(texts, texts)
def test_unknown_characters_are_listed_and_refused(known, text):
    tokenizer = CharTokenizer.from_text(known)
    foreign = [c for c in dict.fromkeys(text) if c not in known]
    assert tokenizer.unknown(text) == foreign
    if foreign:
        with pytest.raises(ValueError, match="outside the vocabulary"):
            tokenizer.encode(text)


def test_worked_example():
    tokenizer = CharTokenizer.from_text("hello\n")
    assert tokenizer.characters == "\nehlo"
    assert tokenizer.encode("hole").tolist() == [2, 4, 3, 1]
    assert tokenizer.decode([2, 1, 0]) == "he\n"


def test_a_loss_is_per_character_or_per_token():
    assert CharTokenizer.from_text("ab").unit == "character"
    assert BPETokenizer.train(["ab"], SMALLEST_VOCAB_SIZE).unit == "token"


def test_token_types_hold_the_vocabulary():
    for size in (1, 256, 257, 2**15, 2**15 + 1):
        assert np.iinfo(token_type(size)).max >= size - 1


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"kind":"char"}', '{"kind":"char","characters":"ba"}',
     '{"kind":"char","characters":""}', '{"kind":"bpe","characters":"ab"}',
     '{"kind":"char","characters":5}', '{"kind":"char","characters":"aa"}'],
)  # fmt: skip
def test_damaged_tokenizers_are_refused(text):
    with pytest.raises(ValueError, match="the tokenizer"):
        tokenizer_from_json(text)
