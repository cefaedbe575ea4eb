"""How much the runs of a comparison copy, beside people.

Values and sentences. Not here: how copying is measured (`evaluation.originality`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from drakegpt.compute.device import choose_device
from drakegpt.data.dataset import Dataset
from drakegpt.evaluation.originality import LENGTHS
from drakegpt.experiments.results import ResultRow
from drakegpt.progress import Progress, silent
from drakegpt.report.summary import join_names
from drakegpt.runs.brief_originality import (
    BriefOriginality,
    judge_briefly,
    judge_counting,
    measure_people,
    summarize_people,
)
from drakegpt.runs.by_heart import ByHeart, find_by_heart
from drakegpt.runs.originality import ALARMING
from drakegpt.runs.run import Run
from drakegpt.wording import pluralize

# The numbers of models in words; more are written in figures.
_NUMBERS = (
    "none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip


@dataclass(frozen=True)
class Originality:
    """Brief judgements of several runs, by their names, and of text that people wrote."""

    people: BriefOriginality
    counting: BriefOriginality  # by n-gram counts alone
    runs: Mapping[str, BriefOriginality]
    # The same of the lowest loss with counts mixed in, by its name; empty if it cannot be.
    with_counts: Mapping[str, BriefOriginality]
    known: Mapping[str, ByHeart]  # of the runs for which it was measured before

    def to_json(self) -> dict[str, Any]:
        """Return shares, longest runs and iterations as plain values."""
        return {
            "people": {"share": self.people.share, "longest": self.people.longest},
            "counting": asdict(self.counting),
            "with_counts": {name: asdict(judged) for name, judged in self.with_counts.items()},
            "runs": {name: asdict(judged) for name, judged in self.runs.items()},
            "by_heart": {name: asdict(known) for name, known in self.known.items()},
        }


@dataclass(frozen=True)
class CopiedRow:
    """A row of the table: a model, or people."""

    label: str
    judged: BriefOriginality


def list_rows(rows: Sequence[ResultRow], judged: Originality) -> list[CopiedRow]:
    """List the rows of a comparison that were judged, counting, and people."""
    labels = {row.runs[0]: row.label for row in rows}
    return [
        *(CopiedRow(labels[name], each) for name, each in judged.runs.items()),
        *(CopiedRow(f"{labels[name]} + counts", each) for name, each in judged.with_counts.items()),
        CopiedRow("counts alone", judged.counting),
        CopiedRow("people: the held-out text", judged.people),
    ]


def judge_runs(
    runs: Sequence[Run],
    lowest: str,
    data: Dataset,
    device_name: str = "auto",
    progress: Progress = silent,
) -> Originality:
    """Judge runs on one text; those whose weights write nothing are left out.

    `lowest`: the name of the one with the lowest loss, which is judged with counts too.
    """
    progress("measuring how much people copy", 0, 1)
    people, device = measure_people(data), choose_device(device_name)
    judged = {run.name: judge_briefly(run, people, device, progress=progress) for run in runs}
    mixed = {
        run.name: judge_briefly(run, people, device, counts=True, progress=progress)
        for run in runs
        if run.name == lowest and judged[lowest]
    }
    known = {run.name: find_by_heart(run) for run in runs}
    return Originality(
        summarize_people(people),
        judge_counting(data, people),
        {name: each for name, each in judged.items() if each},
        {name: each for name, each in mixed.items() if each},
        {name: each for name, each in known.items() if each},
    )


def describe_copying(rows: Sequence[ResultRow], judged: Originality) -> list[str]:
    """Say how many of the judged runs copy, and how much; then what that is to be compared with.

    At least one run is judged.
    """
    labels = {row.runs[0]: row.label for row in rows}
    shares = sorted(
        ((labels[name], each.share) for name, each in judged.runs.items()),
        key=lambda pair: -pair[1],
    )
    memorizing = [labels[name] for name, each in judged.runs.items() if each.memorizes]
    unjudged = [label for name, label in labels.items() if name not in judged.runs]
    return [
        _describe_shares(shares),
        *_describe_memory(memorizing, shares),
        *_describe_unjudged(unjudged),
        _describe_people(judged.people),
        _describe_counting(labels, judged),
    ]


def _describe_shares(shares: Sequence[tuple[str, float]]) -> str:
    """Say which models copy, with the shares of their texts, the most first."""
    label, alone = shares[0][0], len(shares) == 1
    copying = [(name, share) for name, share in shares if share > 0]
    if not copying:
        subject = f"{label} does not copy" if alone else f"{_count_of(0, len(shares))} copies"
        return (
            f"{subject}: not one run of {LENGTHS[0]} characters from the training text, even in "
            f"the worst of {'its' if alone else 'their'} texts."
        )
    verb = "copies" if len(copying) == 1 else "copy"
    subject = label if alone else _count_of(len(copying), len(shares))
    (first, most), *others = copying
    of_others = "".join(f", {name} {format_share(share)}" for name, share in others)
    return (
        f"{subject} {verb}: {'it' if alone else first} has {format_share(most)} of its texts from "
        f"the training text, in runs of {LENGTHS[0]} characters or more{of_others}."
    )


def _count_of(part: int, whole: int) -> str:
    """Return "Two of the six" at the beginning of a sentence; of all or none, what is said."""
    if whole == 2 and part != 1:
        return "Both" if part else "Neither of the two"
    if part == whole:
        return f"All {_to_word(whole)}"
    return f"{_to_word(part).capitalize()} of the {_to_word(whole)}"


def _to_word(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"


def _describe_memory(memorizing: Sequence[str], shares: Sequence[tuple[str, float]]) -> list[str]:
    """Name the models that memorize; empty if none copies anything."""
    if len(memorizing) == 1:
        return [f"{memorizing[0]} memorizes: it copies more than people do."]
    if memorizing:
        return [f"{join_names(memorizing)} memorize: they copy more than people do."]
    if not shares[0][1]:
        return []
    subject = "It does not memorize" if len(shares) == 1 else "None memorizes"
    return [
        f"{subject}, which would be more than people copy and more than "
        f"{100 * ALARMING:.0f}\N{NO-BREAK SPACE}%."
    ]


def _describe_unjudged(labels: Sequence[str]) -> list[str]:
    if not labels:
        return []
    was = "was" if len(labels) == 1 else "were"
    return [f"{join_names(labels)} {was} not judged: the weights write nothing."]


def _describe_people(people: BriefOriginality) -> str:
    share = format_share(people.share) if people.share else "nothing"
    return (
        f"Of the validation text, which people wrote, {share} is in such runs; the longest that "
        f"it shares, in as much text, has {pluralize(people.longest, 'character')}."
    )


def _describe_counting(labels: Mapping[str, str], judged: Originality) -> str:
    mixed = "".join(
        f"; {labels[name]}, with counts mixed in, {format_share(each.share)}"
        for name, each in judged.with_counts.items()
    )
    return f"For comparison: counting alone copies {format_share(judged.counting.share)}{mixed}."


def format_share(share: float) -> str:
    """Format a share in per cent, kept on one line; what is not nothing is never 0.0 %."""
    if 0 < share < 0.0005:
        return "less than 0.1\N{NO-BREAK SPACE}%"
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
