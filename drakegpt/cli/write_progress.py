"""What `drakegpt write` shows while a model trains: what it writes by now, and the time left."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from drakegpt.cli import console
from drakegpt.cli.progress import counting
from drakegpt.cli.short_forms import format_duration

if TYPE_CHECKING:
    from drakegpt.runs.run import Run
    from drakegpt.training.reports import Report

SAMPLE_LINES = 2
DRAW_SECONDS = 0.5


@contextmanager
def writing_progress(
    run: "Run", deadline: float, *, quiet: bool
) -> "Iterator[Callable[[Report], None]]":
    """Yield a callback for the reports of a run that ends at `deadline` of `time.monotonic`.

    At each evaluation it shows the loss in words, and two lines of what the model writes.
    """
    from drakegpt.training.reports import Evaluation

    metadata = run.load_dataset().metadata
    tokens = (metadata.train_tokens + metadata.val_tokens) / metadata.characters
    began, drawn = time.monotonic(), float("-inf")

    with counting("Training", quiet=quiet) as count:

        def show(report: "Report") -> None:
            nonlocal drawn
            now = time.monotonic()
            if isinstance(report, Evaluation) and not quiet:
                left = format_duration(max(0.0, deadline - now))
                console.note(
                    f"{describe_loss(report.val_loss * tokens)}; {left} left", style="bold"
                )
                for line in choose_lines(report.sample):
                    console.note(f"  {line}", style="")
            elif now - drawn > DRAW_SECONDS:
                drawn = now
                whole = max(1.0, deadline - began)
                count(f"iteration {report.iteration:,}", int(min(now - began, whole)), int(whole))

        yield show


def describe_loss(nats_per_character: float) -> str:
    """Say in words how well a model predicts: as well as a guess among that number of letters."""
    bits = nats_per_character / math.log(2)
    return f"{bits:.2f} bits per character, as unsure as among {2**bits:.1f} letters"


def choose_lines(sample: str) -> list[str]:
    """Return the first whole lines of a sample that hold something."""
    lines = [line.strip() for line in sample.splitlines()]
    return [line for line in lines if line][:SAMPLE_LINES]
