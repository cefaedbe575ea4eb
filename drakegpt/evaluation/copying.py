"""The longest stretch of a text that another text has too, word for word."""


def find_longest_copy(text: str, source: str) -> str:
    """Return the longest part of `text` that stands in `source`, the first of equally long ones.

    Each character of `text` costs a search of `source`, so this is for some thousands of them.
    """
    start = length = 0
    for begin in range(len(text)):
        while begin + length < len(text) and text[begin : begin + length + 1] in source:
            start, length = begin, length + 1
    return text[start : start + length]
