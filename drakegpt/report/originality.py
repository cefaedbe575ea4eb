"""How much the runs of a comparison copy, beside people."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from drakegpt.compute.device import choose_device
from drakegpt.data.dataset import Dataset
from drakegpt.experiments.results import ResultRow
from drakegpt.progress import Progress, silent
from drakegpt.runs.brief_originality import (
    BriefOriginality,
    judge_briefly,
    judge_counting,
    measure_people,
    summarize_people,
)
from drakegpt.runs.by_heart import ByHeart, find_by_heart
from drakegpt.runs.run import Run


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
