import pytest

from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.errors import UsageError
from drakegpt.generation.prompt import fit_prompt

LOWER = CharTokenizer.from_text("abcdefghijklmnopqrstuvwxyz '\"-.\n")


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        ("café", "cafe"),
        ("cafe\u0301", "cafe"),
        ("“it’s”", '"it\'s"'),
        ("Hello", "hello"),
        ("ÉTÉ", "ete"),
        ("wait… – what", "wait... - what"),
        ("ﬁne", "fine"),
        ("straße", "strasse"),
        ("a\r\nb", "a\nb"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_obvious_equivalents_are_taken(typed, seen):
    prompt = fit_prompt(typed, LOWER, skip_unknown=False)
    assert prompt.text == seen
    assert not prompt.skipped


def test_known_characters_are_never_changed():
    tokenizer = CharTokenizer.from_text("é’Aa'e")
    assert fit_prompt("é’A", tokenizer, skip_unknown=False).text == "é’A"


def test_a_vocabulary_of_separate_accents_keeps_them():
    tokenizer = CharTokenizer.from_text("abcde\u0301")
    assert fit_prompt("e\u0301", tokenizer, skip_unknown=False).text == "e\u0301"
    assert fit_prompt("\xe9", tokenizer, skip_unknown=False).text == "e\u0301"


def test_case_is_folded_before_accents_are_lost():
    assert fit_prompt("É", CharTokenizer.from_text("eé"), skip_unknown=False).text == "é"


def test_what_has_no_equivalent_is_listed():
    with pytest.raises(UsageError) as caught:
        fit_prompt("a 🎤 b 7 🎤", LOWER, skip_unknown=False)
    assert "'🎤' (U+1F3A4), '7' (U+0037)" in str(caught.value)
    assert "--unknown skip" in str(caught.value)


def test_or_skipped():
    prompt = fit_prompt("a 🎤 b 7", LOWER, skip_unknown=True)
    assert prompt.text == "a  b "
    assert prompt.skipped == ["🎤", "7"]


def test_upper_case_corpora_fold_upwards():
    assert fit_prompt("abc", CharTokenizer.from_text("ABC"), skip_unknown=False).text == "ABC"
