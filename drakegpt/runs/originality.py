"""Judges how much a run copies: texts of its own, beside what people repeat.

Not here: how copies are found and counted (`evaluation.originality`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from drakegpt.data.dataset import Dataset
from drakegpt.data.suffix_array import load_suffix_array
from drakegpt.evaluation.originality import (
    LENGTHS,
    HumanBaseline,
    Originality,
    Span,
    find_spans,
    join_matches,
    match_text,
    measure_held_out,
    measure_songs,
    summarize,
)
from drakegpt.generation.sampling import Sampling
from drakegpt.generation.text import generate_texts
from drakegpt.runs.run import Run


@dataclass(frozen=True)
class CopiedSpan:
    """A span of a text, and the song of the training text where it stands."""

    span: Span
    title: str  # empty where the text has no songs, or they no titles


@dataclass(frozen=True)
class Judgement:
    """How much some texts copy, beside people."""

    texts: tuple[str, ...]
    all: Originality  # of the texts together
    people: HumanBaseline
    most_copied: int  # index of the text with the most characters in copied spans
    spans: tuple[CopiedSpan, ...]  # of that text, of at least the shortest of `LENGTHS`


def write_texts(run: Run, number: int, length: int, device: torch.device) -> list[str]:
    """Write texts of `length` characters with a run's last weights, with seeds 1, 2, ..."""
    model, seeds = run.load_model(device), range(1, number + 1)
    pieces = [""] * number
    # A token has at least a character, or part of one.
    for parts in generate_texts(model, run.tokenizer, "", 4 * length, Sampling(), seeds):
        pieces = [piece + part for piece, part in zip(pieces, parts, strict=True)]
        if min(map(len, pieces)) >= length:
            break
    return [piece[:length] for piece in pieces]


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
    named = tuple(
        CopiedSpan(span, _find_title(data, source.padded[: span.place].tobytes())) for span in spans
    )
    return Judgement(tuple(texts), summarize(join_matches(matches)), people, most, named)


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
