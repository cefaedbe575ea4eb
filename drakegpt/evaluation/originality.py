"""Originality: how much of a text stands word for word in another one, beside what people do.

People repeat themselves, too: so the same is measured for text that people wrote, each held-out
song against the training text, or each song of a text against the others.

Copied spans are the longest runs of characters that stand in the training text, and are not part
of a longer one. Everything is in characters; a match begins and ends at one.

Not here: the search itself (`data.suffix_array`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.ngrams import NGrams
from drakegpt.data.suffix_array import SuffixArray, build_suffix_array
from drakegpt.data.tokenizers.base import Tokenizer

LENGTHS = (20, 30, 50)  # characters of a span from which on its share is told
LONGEST_NGRAM = 60
BEGUN = 8  # characters of a span that counting is given
MOST_SORTED = 5 * 10**8  # characters that are sorted, at most, for the songs of a text

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """A run of a text that stands in another one word for word, and is not part of a longer one."""

    start: int  # the first character of it, in the text
    length: int  # characters
    place: int  # the first byte of one place where it stands

    def cut(self, text: str) -> str:
        """Return the span out of its text."""
        return text[self.start : self.start + self.length]


@dataclass(frozen=True)
class Originality:
    """How much of a text was copied."""

    characters: int
    longest: Span | None
    shares: tuple[float, ...]  # of characters in spans of at least each of `LENGTHS`
    novelty: tuple[float, ...]  # share of n-grams, n = 1, 2, ..., that the other text has not
    mean_match: float  # characters, over all places


@dataclass(frozen=True)
class Matches:
    """For each character of one or several texts, (n,), the longest match that begins there."""

    lengths: Counts  # characters that stand in the other text, from there on
    places: Counts  # the first byte of one place where they do
    left: Counts  # characters to the end of their text, this one counted


def match_text(text: str, source: SuffixArray) -> Matches:
    """Match a text with another one; a match ends where a character does."""
    starts = _find_starts(text)
    lengths, places = source.measure_matches(text.encode())
    first = starts[:-1]
    ends = first + lengths[first]
    whole = np.searchsorted(starts, ends, side="right") - 1 - np.arange(len(text))
    return Matches(whole, places[first], np.arange(len(text), 0, -1))


def join_matches(matches: Sequence[Matches]) -> Matches:
    """Put the matches of several texts one after another."""
    names = ("lengths", "places", "left")
    empty = [np.zeros(0, np.int64)]
    return Matches(
        *(np.concatenate(empty + [getattr(each, name) for each in matches]) for name in names)
    )


def _find_starts(text: str) -> Counts:
    """Return where each character begins in the text's UTF-8, and where the last one ends."""
    sizes = [len(character.encode()) for character in text]
    return np.concatenate([[0], np.cumsum(np.array(sizes, np.int64))])


def find_spans(matches: Matches) -> list[Span]:
    """Return the spans that are not part of longer ones, in their order."""
    spans, reached = [], 0
    for start, length in enumerate(matches.lengths.tolist()):
        if length and start + length > reached:
            spans.append(Span(start, length, int(matches.places[start])))
            reached = start + length
    return spans


def summarize(matches: Matches) -> Originality:
    """Summarize the matches of a text."""
    lengths, spans = matches.lengths, find_spans(matches)
    characters = len(lengths)
    shares = tuple(
        _count_covered([span for span in spans if span.length >= least]) / max(1, characters)
        for least in LENGTHS
    )
    novelty = tuple(
        float((lengths[whole] < n).mean()) if (whole := matches.left >= n).any() else 0.0
        for n in range(1, LONGEST_NGRAM + 1)
    )
    longest = max(spans, key=lambda span: span.length, default=None)
    mean = float(lengths.mean()) if characters else 0.0
    return Originality(characters, longest, shares, novelty, mean)


def expect_by_counting(
    text: str, ngrams: NGrams, source: SuffixArray, tokenizer: Tokenizer
) -> float:
    """Return how often counting would write a span in a text as long as the training text.

    It would begin the span as often as the training text does, and continue it by its
    probabilities. From 1 on a span is a phrase that is as much the language's as the text's.
    """
    tokens = [int(token) for token in tokenizer.encode(text)]
    begun = len(tokenizer.encode(text[:BEGUN]))
    low, high = source.find(tokenizer.to_bytes(tokens[:begun]))
    expected = float(high - low)
    for end in range(begun, len(tokens)):
        context = tokens[max(0, end - ngrams.order + 1) : end]
        expected *= float(ngrams.predict_next(context).probabilities[tokens[end]])
    return expected


def measure_originality(texts: Sequence[str], source: SuffixArray) -> Originality:
    """Measure how much of some texts stands in `source`."""
    return summarize(join_matches([match_text(text, source) for text in texts]))


def _count_covered(spans: Sequence[Span]) -> int:
    """Count the characters in any of the spans, which are in order."""
    covered = reached = 0
    for span in spans:
        end = span.start + span.length
        covered += end - max(span.start, reached) if end > reached else 0
        reached = max(reached, end)
    return covered


@dataclass(frozen=True)
class BlockRange:
    """The same figures for the blocks of a text: of equal length, so that `longest` compares."""

    length: int  # characters of a block
    blocks: int
    longest: tuple[float, float, float]  # mean, and what 95 % of the blocks lie between
    shares: tuple[tuple[float, float, float], ...]  # for each of `LENGTHS`


@dataclass(frozen=True)
class HumanBaseline:
    """How much people repeat, on the scale of a text that is judged."""

    what: str  # which text was measured against which
    whole: Originality
    blocks: BlockRange | None  # `None` if the text is shorter than one block


def measure_blocks(matches: Matches, length: int) -> BlockRange | None:
    """Measure each block of `length` characters by itself: a match ends with its block."""
    number = len(matches.lengths) // length if length else 0
    if not number:
        return None
    left = np.arange(length, 0, -1)
    measured = [
        summarize(
            Matches(
                np.minimum(matches.lengths[start : start + length], left),
                matches.places[start : start + length],
                left,
            )
        )
        for start in range(0, number * length, length)
    ]
    longest = [float(each.longest.length if each.longest else 0) for each in measured]
    shares = zip(*(each.shares for each in measured), strict=True)
    return BlockRange(
        length, number, _describe_range(longest), tuple(_describe_range(each) for each in shares)
    )


def _describe_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean, and the range of the middle 95 %."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(np.mean(values)), float(low), float(high)


def measure_held_out(text: str, source: SuffixArray, block: int) -> HumanBaseline:
    """Measure text that people wrote and that is not in `source`, such as the validation split."""
    matches = match_text(text, source)
    what = "the validation text, in the training text"
    return HumanBaseline(what, summarize(matches), measure_blocks(matches, block))


def measure_songs(songs: Sequence[str], block: int) -> HumanBaseline:
    """Measure each song of a text against all others; its repeats of itself are its own.

    Of a long text some songs are measured, spread evenly, so that it takes a minute at most.
    """
    size = sum(map(len, songs))
    number = min(len(songs), max(2, MOST_SORTED // max(1, size)))
    chosen = np.linspace(0, len(songs) - 1, number).astype(int)
    matches = join_matches([_match_others(songs, int(index)) for index in chosen])
    some = "each song" if number == len(songs) else f"{number} of {len(songs):,} songs"
    return HumanBaseline(
        f"{some}, in all the others", summarize(matches), measure_blocks(matches, block)
    )


def _match_others(songs: Sequence[str], index: int) -> Matches:
    others = "\n".join([*songs[:index], *songs[index + 1 :]])
    return match_text(songs[index], build_suffix_array(others.encode()))
