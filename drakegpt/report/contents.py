"""What a report shows of some runs, collected once for the terminal and the page.

Not here: how it is shown (`page`, `cli.compare`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from drakegpt.config import SIZES
from drakegpt.data.dataset import Dataset
from drakegpt.errors import UsageError
from drakegpt.experiments.claims import Claim
from drakegpt.experiments.ladder import (
    Comparison,
    Selection,
    arrange_runs,
    compare,
    select_ladder,
)
from drakegpt.progress import Progress, silent
from drakegpt.report.embedded_model import Precision
from drakegpt.report.live import Live, check_text, make_live
from drakegpt.report.originality import Originality, judge_runs
from drakegpt.report.page import render
from drakegpt.report.samples import Samples, generate_samples
from drakegpt.runs.lookup import find_run
from drakegpt.runs.run import Run


@dataclass(frozen=True)
class Contents:
    """The losses of some runs, what they write, how much they copy, and their models."""

    data: Dataset
    runs: Sequence[Sequence[Run]]  # of each row, one for each seed
    comparison: Comparison
    samples: Samples
    originality: Originality
    live: Live | None  # `None` for a static page, and if no model can be in it
    device_name: str = "auto"

    def render(self, *, claims: Sequence[Claim] = (), title: str = "", licence: str = "") -> str:
        """Return the page; raises as `page.render` does."""
        return render(
            self.data, self.comparison, self.runs, self.samples, self.device_name, claims,
            self.originality, live=self.live, title=title, licence=licence,
        )  # fmt: skip


def choose_runs(data: Dataset, named: Sequence[Run]) -> Selection:
    """Choose the named runs, each once, or else those of `compare` and the best run on the text.

    Raises `UsageError` for a run on another text, and as `find_run` does without any run.
    """
    different = list({run.folder: run for run in named}.values())
    for run in different:
        _check_text(run, data)
    if different:
        return arrange_runs(different)
    selection = select_ladder(data, SIZES, {}, None)
    best = find_run(None, data=data.name)
    shown = [run.name for of_row in selection.by_row for run in of_row]
    return selection if best.name in shown or not best.finished else selection.add(best)


def _check_text(run: Run, data: Dataset) -> None:
    own = run.load_dataset().metadata
    if (own.text_sha256, own.split) != (data.metadata.text_sha256, data.metadata.split):
        raise UsageError(
            f"{run.name} was trained on '{run.config.data}', another text than '{data.name}'.",
            "Losses on different texts cannot be compared: make a page of each.",
        )


def collect_contents(
    data: Dataset,
    selection: Selection,
    *,
    prompt: str = "",
    device_name: str = "auto",
    settings: Mapping[str, Any] | None = None,
    named: bool = False,
    static: bool = False,
    precision: Precision | None = None,
    text: str = "",
    progress: Progress = silent,
) -> Contents:
    """Score runs, let them write, measure how much they copy, and embed their models.

    `prompt`: of the samples. `settings`: of the commands that train missing models. `named`:
    the runs were named, so that nothing is said of others, and all must be in the page; else
    as `make_live` has it, where `precision` and `text` are described too. `static`: no models.
    Raises `UsageError` for a text or a precision that cannot be.
    """
    check_text(text)
    if precision not in (None, *(known := get_args(Precision))):
        raise UsageError(f"There is no precision '{precision}'.", f"Take {', '.join(known)}.")
    runs = selection.by_row
    firsts = [first for first, *_ in runs]
    comparison = compare(data, selection.runs, device_name, selection.others, settings, progress)
    if named:
        comparison = comparison.without_missing()
    samples = generate_samples(firsts, prompt, device_name)
    live = None
    if not static:
        live = make_live(
            data, comparison, runs, samples,
            precision=precision, text=text, all_of_them=named, progress=progress,
        )  # fmt: skip
    lowest = comparison.lowest_row.runs[0]
    originality = judge_runs(firsts, lowest, data, device_name, progress)
    return Contents(data, runs, comparison, samples, originality, live, device_name)
