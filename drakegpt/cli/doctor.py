"""`drakegpt doctor`: is it my machine? Shows facts about it, and whether it computes right.

Not here: the checks (`drakegpt.bench.doctor`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from drakegpt.cli import console, options
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.bench.doctor.checks import Check
    from drakegpt.bench.doctor.examination import Examination
    from drakegpt.bench.doctor.facts import Fact

SHOWN = {"ok": "ok", "warning": "warning", "failed": "FAILED", "not tested": "not tested"}
STYLES = {"ok": "", "warning": "yellow", "failed": "bold red", "not tested": "dim"}


def doctor(
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check whether this machine computes right, and what is missing; takes some 10 seconds.

    Each model's training step on the CPU, and on the device, is compared with textbook code
    in float64. It changes nothing. A report of a bug asks for the output. The exit code is 1
    if a check failed.
    """
    from drakegpt.bench.doctor.examination import examine
    from drakegpt.cli.progress import counting

    with counting("Checking", quiet=quiet) as progress:
        examination = examine(device, progress)
    if json:
        console.show_json(examination.to_json())
    else:
        _render(examination)
    if examination.result == "failed":
        raise typer.Exit(1)


def _render(examination: "Examination") -> None:
    from drakegpt.bench.doctor.checks import find_worst
    from drakegpt.cli.tables import Column, show_table

    facts: tuple[Column[Fact], ...] = (
        Column("fact", lambda fact: fact.title),
        Column("here", lambda fact: fact.text, wraps=True),
    )
    show_table("This machine", facts, examination.facts)
    subjects: dict[str, list[Check]] = {}
    for check in examination.checks:
        subjects.setdefault(check.subject, []).append(check)

    def result_of(row: "Sequence[Check]") -> str:
        return find_worst([check.result for check in row])

    rows: tuple[Column[Sequence[Check]], ...] = (
        Column("check", lambda row: row[0].subject),
        Column("result", lambda row: SHOWN[result_of(row)]),
        Column("measured", lambda row: "; ".join(each.finding.figure for each in row), wraps=True),
    )
    show_table("Checks", rows, list(subjects.values()), style=lambda row: STYLES[result_of(row)])
    _show_problems(examination.checks)


def _show_problems(checks: "Sequence[Check]") -> None:
    """Show a sentence for each check that did not pass, and each fix once, after them."""
    fixes: dict[str, list[Check]] = {}
    for check in checks:
        if check.finding.problem:
            fixes.setdefault(check.finding.fix, []).append(check)
    for fix, together in fixes.items():
        console.show("")
        for check in together:
            text = f"{SHOWN[check.result]}: {check.name}: {check.finding.problem}"
            console.show(console.styled(text, STYLES[check.result]))
        if fix:
            console.show(f"What to do: {fix}")
    count = {name: sum(check.result == name for check in checks) for name in SHOWN}
    counts = {
        f"{pluralize(count['ok'], 'check')} passed": 1,
        pluralize(count["warning"], "warning"): count["warning"],
        f"{count['failed']} FAILED": count["failed"],
        f"{count['not tested']} not tested": count["not tested"],
    }
    console.show("")
    console.show(f"{', '.join(text for text, shown in counts.items() if shown)}.")
