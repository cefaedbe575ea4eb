"""Judges how much a run copies, beside what people repeat, and limits it.

Not here: how copies are found and counted (`evaluation.originality`), and how texts are kept from
holding longer ones (`generation.copy_limit`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from drakegpt.compute.device import choose_device
from drakegpt.data.dataset import Dataset
from drakegpt.data.stored_ngrams import load_ngrams
from drakegpt.data.suffix_array import SuffixArray, load_suffix_array
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.evaluation.draft import DraftLine, read_draft
from drakegpt.evaluation.originality import (
    LENGTHS,
    HumanBaseline,
    Originality,
    Span,
    expect_by_counting,
    find_spans,
    join_matches,
    match_text,
    measure_held_out,
    measure_originality,
    measure_songs,
    summarize,
)
from drakegpt.generation.copy_limit import CopyLimit
from drakegpt.generation.sampling import Sampling
from drakegpt.generation.text import generate_texts
from drakegpt.models.layers import LanguageModel
from drakegpt.models.mixture import Mixture
from drakegpt.progress import Progress, silent
from drakegpt.runs.mixtures import HIGHEST_ORDER
from drakegpt.runs.run import Run
from drakegpt.runs.stored_samples import list_samples

ALARMING = 0.1  # share of copied characters below which nobody would say that a text is copied


@dataclass(frozen=True)
class CopiedSpan:
    """A span of a text, and the song of the training text where it stands."""

    span: Span
    title: str  # empty where the text has no songs, or they no titles
    expected: float  # times that counting would write it in a text as long as the training text

    @property
    def is_likely(self) -> bool:
        """Whether counting alone would write it, too."""
        return self.expected >= 1


@dataclass(frozen=True)
class CopiedAt:
    """How much of a text that a run wrote in training is copied."""

    iteration: int
    share: float  # of its characters, in spans of at least the shortest of `LENGTHS`


@dataclass(frozen=True)
class Judgement:
    """How much some texts copy, beside people."""

    texts: tuple[str, ...]
    all: Originality  # of the texts together
    people: HumanBaseline
    most_copied: int  # index of the text with the most characters in copied spans
    spans: tuple[CopiedSpan, ...]  # of that text, of at least the shortest of `LENGTHS`
    course: tuple[CopiedAt, ...] = ()  # of a run's own texts, along its training
    memorizes: bool = False  # copies more than people do
    memorizes_from: int | None = None  # the iteration of its first text in training that shows it


@dataclass(frozen=True)
class Copying:
    """The least that there is to say of copied text: the longest run, and shares."""

    longest: str  # of the texts that were judged, word for word in the training text
    copied: Originality
    people: Originality  # the validation text, measured alike

    def to_json(self) -> dict[str, Any]:
        """Return the run, and both shares of characters in runs of at least each length."""

        def shares(judged: Originality) -> dict[str, float]:
            return {str(least): share for least, share in zip(LENGTHS, judged.shares, strict=True)}

        return {
            "longest_copy": self.longest,
            "copied_shares": shares(self.copied),
            "held_out_shares": shares(self.people),
        }


def compare_copying(texts: Sequence[str], data: Dataset) -> Copying:
    """Measure texts, and text that people wrote, by the training split of a dataset."""
    source = load_suffix_array(data)
    copied = measure_originality(texts, source)
    longest = copied.longest.cut("".join(texts)) if copied.longest else ""
    return Copying(longest, copied, _measure_people(data, source))


def create_copy_limit(data: Dataset, longest: int | None = None) -> CopyLimit:
    """Create a limit for copying from the training split of a dataset.

    By default it is the longest run that the validation split has in common with it, and not less
    than what counts as copied anywhere.
    """
    source = load_suffix_array(data)
    if longest is None:
        people = _measure_people(data, source).longest
        longest = max(LENGTHS[0], people.length if people else 0)
    return CopyLimit(source, data.tokenizer, longest)


def _measure_people(data: Dataset, source: SuffixArray) -> Originality:
    return measure_originality(["".join(data.iter_text("val"))], source)


def write_texts(
    model: LanguageModel | Mixture,
    tokenizer: Tokenizer,
    number: int,
    length: int,
    report: Callable[[int], object] = lambda _: None,
) -> list[str]:
    """Write texts of `length` characters, with seeds 1, 2, ...

    `report` is told how long the shortest is already.
    """
    pieces = [""] * number
    # A token has at least a character, or part of one.
    steps = generate_texts(model, tokenizer, "", 4 * length, Sampling(), range(1, number + 1))
    for parts in steps:
        pieces = [piece + part for piece, part in zip(pieces, parts, strict=True)]
        shortest = min(map(len, pieces))
        report(min(shortest, length))
        if shortest >= length:
            break
    return [piece[:length] for piece in pieces]


def judge_run(
    run: Run,
    number: int,
    length: int,
    device: torch.device,
    *,
    best: bool = False,
    progress: Progress = silent,
) -> Judgement:
    """Judge what a run writes now, and what it wrote along its training.

    `best`: with the weights of its best evaluation, not the last.
    """
    texts = write_texts(
        run.load_model(device, best=best), run.tokenizer, number, length,
        lambda written: progress(f"texts of {run.name}", written, length),
    )  # fmt: skip
    judged = judge_texts(texts, run.load_dataset())
    if best or not is_memory(judged.all.shares[0], judged.people):
        return replace(judged, course=measure_course(run))
    course = measure_course(run)
    start = find_start(course, judged.people)
    return replace(judged, course=course, memorizes=True, memorizes_from=start)


def measure_course(run: Run) -> tuple[CopiedAt, ...]:
    """Measure the texts that a run wrote along its training."""
    source = load_suffix_array(run.load_dataset())
    return tuple(
        CopiedAt(sample.iteration, measure_originality([sample.text], source).shares[0])
        for sample in list_samples(run.evaluations)
    )


def is_memory(share: float, people: HumanBaseline) -> bool:
    """Whether a share of copied characters is more than people copy, and more than `ALARMING`.

    Of people that is what 95 % of their texts of that length do not exceed.
    """
    most = people.blocks.shares[0][2] if people.blocks else people.whole.shares[0]
    return share > max(ALARMING, most)


def find_start(course: Sequence[CopiedAt], people: HumanBaseline) -> int | None:
    """Find the first text of a run in training from which on all are memory; its iteration."""
    start = None
    for each in course:
        if not is_memory(each.share, people):
            start = None
        elif start is None:
            start = each.iteration
    return start


def read_lines(text: str, data: Dataset, run: Run | None, device: str) -> list[DraftLine]:
    """Read the lines of a draft, as a run on this dataset sees them if there is one.

    The draft has no characters that the dataset's tokenizer does not know.
    """
    source = load_suffix_array(data)
    if run is None:
        return read_draft(text, source)
    return read_draft(text, source, run.load_model(choose_device(device)), run.tokenizer)


def judge_texts(texts: Sequence[str], data: Dataset) -> Judgement:
    """Judge texts by the training split of a dataset."""
    source = load_suffix_array(data)
    matches = [match_text(text, source) for text in texts]
    block = max(1, min(len(text) for text in texts))
    if data.songs:
        people = measure_songs(_list_songs(data), block)
    else:
        people = measure_held_out("".join(data.iter_text("val")), source, block)
    shares = [summarize(each).shares[0] * len(each.lengths) for each in matches]
    most = max(range(len(texts)), key=lambda index: shares[index])
    spans = [span for span in find_spans(matches[most]) if span.length >= LENGTHS[0]]
    named = tuple(_describe_span(span, texts[most], data, source) for span in spans)
    return Judgement(tuple(texts), summarize(join_matches(matches)), people, most, named)


def _describe_span(span: Span, text: str, data: Dataset, source: SuffixArray) -> CopiedSpan:
    ngrams = load_ngrams(data, HIGHEST_ORDER)
    expected = expect_by_counting(span.cut(text), ngrams, source, data.tokenizer)
    return CopiedSpan(span, _find_title(data, source.padded[: span.place].tobytes()), expected)


def _list_songs(data: Dataset) -> list[str]:
    text = "".join(piece for split in ("train", "val") for piece in data.iter_text(split))
    starts = [song.start for song in data.songs]
    ends = [*(start - 1 for start in starts[1:]), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _find_title(data: Dataset, before: bytes) -> str:
    """Return the title of the song that goes on after these bytes of the text."""
    place = len(before.decode("utf-8", "ignore"))
    titles = [song.title for song in data.songs if song.start <= place]
    return titles[-1] if titles else ""
