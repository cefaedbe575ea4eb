"""The longest copied stretch of a text, beside all substrings of short ones."""

from hypothesis import given
from hypothesis import strategies as st

from drakegpt.evaluation.copying import find_longest_copy

letters = st.text(alphabet="ab\n", max_size=12)


@given(letters, letters)
def test_it_is_the_longest_of_all_substrings(text, source):
    pieces = {text[i:j] for i in range(len(text) + 1) for j in range(i, len(text) + 1)}
    longest = max(len(piece) for piece in pieces if piece in source)
    found = find_longest_copy(text, source)
    assert len(found) == longest
    assert found in text
    assert found in source


def test_the_first_of_equally_long_ones():
    assert find_longest_copy("xabyz", "ab yz") == "ab"
    assert find_longest_copy("", "abc") == find_longest_copy("abc", "") == ""
