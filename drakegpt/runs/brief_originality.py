"""How much each of several runs copies, in brief: measured once, and kept.

    runs/<name>/originality.json   what a few texts of its last weights share with its text
    runs/<name>/originality_with_counts.json   the same, mixed with counts
    data/<name>/<version>/originality_of_counts.json   the same, of counts alone

Not here: the whole measure, with blocks and songs left out (`originality`).
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from drakegpt import files
from drakegpt.data.dataset import Dataset
from drakegpt.data.stored_ngrams import load_ngrams
from drakegpt.data.suffix_array import load_suffix_array
from drakegpt.errors import RunError
from drakegpt.evaluation.originality import (
    LENGTHS,
    HumanBaseline,
    find_spans,
    match_text,
    measure_held_out,
    measure_originality,
)
from drakegpt.models.mixture import Mixture, WeightedCounts, load_general_weights
from drakegpt.progress import Progress, silent
from drakegpt.runs.mixtures import HIGHEST_ORDER, load_members
from drakegpt.runs.originality import CopiedAt, find_start, is_memory, measure_course, write_texts
from drakegpt.runs.run import Run
from drakegpt.runs.stored_scores import identify_scored
from drakegpt.runs.weights_file import pretrained_from_run

log = logging.getLogger("drakegpt")

FORMAT = 2
TEXTS, CHARACTERS = 20, 500  # of a judgement
STORED, STORED_WITH_COUNTS = "originality.json", "originality_with_counts.json"
STORED_OF_COUNTS = "originality_of_counts.json"


@dataclass(frozen=True)
class BriefOriginality:
    """How much some texts copy, and the one that copies most."""

    share: float  # of characters in spans of at least the shortest of `LENGTHS`
    longest: int  # characters
    text: str = ""  # the one that copies most
    spans: tuple[tuple[int, int], ...] = ()  # of it, so long: first character, and the one after
    memorizes: bool = False  # copies more than people do
    memorizes_from: int | None = None  # the iteration of its first text in training that shows it

    def cut(self) -> list[tuple[str, bool]]:
        """Cut the text into pieces, each of which is copied or not."""
        pieces, reached = [], 0
        for start, end in self.spans:
            start = max(start, reached)
            pieces += [(self.text[reached:start], False), (self.text[start:end], True)]
            reached = end
        return [(text, copied) for text, copied in [*pieces, (self.text[reached:], False)] if text]


def measure_people(data: Dataset) -> HumanBaseline:
    """Measure the validation text, in blocks as long as all texts of a run."""
    text = "".join(data.iter_text("val"))
    return measure_held_out(text, load_suffix_array(data), TEXTS * CHARACTERS)


def summarize_people(people: HumanBaseline) -> BriefOriginality:
    """Return the share of the whole text, and the mean of the longest runs of its blocks."""
    longest = people.whole.longest.length if people.whole.longest else 0
    if people.blocks:
        longest = round(people.blocks.longest[0])
    return BriefOriginality(people.whole.shares[0], longest)


def judge_briefly(
    run: Run,
    people: HumanBaseline,
    device: torch.device,
    *,
    counts: bool = False,
    progress: Progress = silent,
) -> BriefOriginality | None:
    """Judge what a run writes, with counts if asked for; `None` for weights that write nothing."""
    if stored := read_stored(run, counts=counts):
        return stored
    member = pretrained_from_run(run)
    what = f"texts of {run.name}" + (" with counts" if counts else "")
    try:
        model = load_members([member], device, counts=counts)
        texts = write_texts(
            model, run.tokenizer, TEXTS, CHARACTERS,
            lambda written: progress(what, written, CHARACTERS),
        )  # fmt: skip
    except RunError:  # its logits are NaN
        return None
    judged = _judge(texts, run.load_dataset(), people, () if counts else measure_course(run))
    _keep(_locate(run, counts=counts), _identify(run, counts=counts), judged)
    return judged


def read_stored(run: Run, *, counts: bool = False) -> BriefOriginality | None:
    """Read what `judge_briefly` kept, if it is whole and belongs to the run's present weights."""
    return _read_kept(_locate(run, counts=counts), lambda: _identify(run, counts=counts))


def _keep(path: Path, of: Mapping[str, Any], judged: BriefOriginality) -> None:
    try:
        files.write_text(path, json.dumps({"of": of, "judgement": asdict(judged)}, indent=2))
    except OSError as error:
        log.warning("The measure of copying cannot be kept in %s: %s.", path, error.strerror)


def _read_kept(path: Path, identify: Callable[[], Mapping[str, Any]]) -> BriefOriginality | None:
    """Read a judgement; `None` if it is not whole, or of something else than `identify` says."""
    try:
        stored = files.parse_json(path.read_text(encoding="utf-8"))
        return _read(stored["judgement"]) if stored["of"] == identify() else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _locate(run: Run, *, counts: bool) -> Path:
    return run.folder / (STORED_WITH_COUNTS if counts else STORED)


def _identify(run: Run, *, counts: bool) -> dict[str, Any]:
    """Return what a judgement belongs to: weights, dataset, and how much was written."""
    size = {"texts": TEXTS, "characters": CHARACTERS}
    of: dict[str, Any] = {"format": FORMAT, **size, **identify_scored(run)}
    return of | {"order": HIGHEST_ORDER} if counts else of


def judge_counting(data: Dataset, people: HumanBaseline) -> BriefOriginality:
    """Judge what the n-gram counts write that are mixed with runs, alone."""
    path, weights = data.folder / STORED_OF_COUNTS, load_general_weights()
    of: dict[str, Any] = {"format": FORMAT, "texts": TEXTS, "characters": CHARACTERS}
    of |= {"version": data.metadata.version, "order": HIGHEST_ORDER, "weights": weights.to_json()}
    if stored := _read_kept(path, lambda: of):
        return stored
    alone = Mixture((), WeightedCounts(load_ngrams(data, HIGHEST_ORDER), weights))
    judged = _judge(write_texts(alone, data.tokenizer, TEXTS, CHARACTERS), data, people)
    _keep(path, of, judged)
    return judged


def _judge(
    texts: list[str], data: Dataset, people: HumanBaseline, course: Sequence[CopiedAt] = ()
) -> BriefOriginality:
    source = load_suffix_array(data)
    copied = measure_originality(texts, source)
    spans = [
        [span for span in find_spans(match_text(text, source)) if span.length >= LENGTHS[0]]
        for text in texts
    ]
    most = max(range(len(texts)), key=lambda index: sum(span.length for span in spans[index]))
    places = tuple((span.start, span.start + span.length) for span in spans[most])
    longest = copied.longest.length if copied.longest else 0
    memorizes = is_memory(copied.shares[0], people)
    start = find_start(course, people) if memorizes else None
    return BriefOriginality(copied.shares[0], longest, texts[most], places, memorizes, start)


def _read(stored: Mapping[str, Any]) -> BriefOriginality:
    spans = tuple((int(start), int(end)) for start, end in stored["spans"])
    start = stored["memorizes_from"]
    return BriefOriginality(
        float(stored["share"]),
        int(stored["longest"]),
        str(stored["text"]),
        spans,
        bool(stored["memorizes"]),
        None if start is None else int(start),
    )
