"""What a check of the machine finds, and how a check is run so that it cannot stop the others.

Imports no PyTorch: it must work where PyTorch does not.

Not here: the checks themselves, and how they are shown.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from drakegpt.errors import DivergedError, DrakeGPTError, is_out_of_memory, shorten

Result = Literal["ok", "warning", "failed", "not tested"]
# From the best to the worst: several results together are as bad as the worst of them.
ORDER: tuple[Result, ...] = ("ok", "not tested", "warning", "failed")


@dataclass(frozen=True)
class Finding:
    """What one check found: its result, in brief, and if it is not good, a sentence and a fix."""

    figure: str  # a few words with what was measured
    measured: dict[str, float] = field(default_factory=dict)
    result: Result = "ok"
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Planned:
    """A check that is to be run.

    `name` is stable: programs that read `--json` know it. Checks of one `subject` are
    shown together. `fix`: what to do where the check raises an exception.
    """

    name: str
    subject: str
    device: str
    work: Callable[[], Finding]
    fix: str


@dataclass(frozen=True)
class Check:
    """A check that was run."""

    name: str
    subject: str
    device: str
    finding: Finding
    seconds: float

    @property
    def result(self) -> Result:
        """Whether the check passed."""
        return self.finding.result

    def to_json(self) -> dict[str, Any]:
        """Return all of it; a figure that is not finite is `None`."""
        found = asdict(self.finding)
        finite = {
            name: value if math.isfinite(value) else None
            for name, value in self.finding.measured.items()
        }
        place = {"name": self.name, "subject": self.subject, "device": self.device}
        return place | found | {"measured": finite, "seconds": round(self.seconds, 3)}


def run_check(planned: Planned) -> Check:
    """Run a check; one that raises an exception has failed, with its message."""
    started = time.perf_counter()
    try:
        finding = planned.work()
    except Exception as error:  # a broken device raises anything
        finding = _explain(error, planned.fix)
    seconds = time.perf_counter() - started
    return Check(planned.name, planned.subject, planned.device, finding, seconds)


def _explain(error: Exception, fix: str) -> Finding:
    """Turn an exception into a failed check."""
    if is_out_of_memory(error):
        fix = "Close other programs, then try again."
        return Finding("no memory", {}, "failed", "there is not enough memory for this check.", fix)
    if isinstance(error, DivergedError):  # its advice, a lower learning rate, is for a real run
        problem = "a loss is not a finite number, though the model and its text are harmless."
        return Finding("not finite", {}, "failed", problem, fix)
    if isinstance(error, DrakeGPTError):
        return Finding("error", {}, "failed", error.problem, error.fix)
    lines = str(error).strip().splitlines()
    message = f"{type(error).__name__}: {shorten(lines[0])}" if lines else type(error).__name__
    return Finding("error", {}, "failed", f"it stopped with {message.rstrip('.')}.", fix)


def find_worst(results: Sequence[Result]) -> Result:
    """Return the worst of some results."""
    return max(results, key=ORDER.index, default="ok")


def is_worse(error: float, than: float) -> bool:
    """Tell whether an error is larger; NaN is larger than all, and nothing than NaN."""
    return not math.isnan(than) and not error <= than


def format_error(value: float) -> str:
    """Format a relative error: two digits, as 3.1e-07."""
    return f"{value:.1e}"
