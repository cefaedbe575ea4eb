"""The ladder on a screen: its table, what counting reaches, curves, samples.

All of it fits the screen it is shown on: narrow, without colour, or none at all.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from drakegpt.cli import console
from drakegpt.cli.tables import Column, show_table
from drakegpt.experiments.formatting import NOISE, describe_seeds, format_or_blank

if TYPE_CHECKING:
    from drakegpt.evaluation.baseline import Baseline
    from drakegpt.experiments.claims import Claim
    from drakegpt.experiments.ladder import Comparison
    from drakegpt.experiments.results import ResultRow

_STYLES = {True: "green", False: "yellow", None: "dim"}


def render(
    comparison: "Comparison", samples: Mapping[str, str], claims: "Sequence[Claim] | None" = None
) -> None:
    """Tables, claims, curves and what each model writes, by the name of its first run."""
    from drakegpt.cli.plots import curves
    from drakegpt.experiments.plots import LOSSES, TAIL, curve_title, has_tail, has_validation
    from drakegpt.experiments.results import find_lowest

    rows = [*comparison.rows, *comparison.others]
    best = find_lowest(rows)
    title = f"The ladder on {comparison.data}"
    columns = _columns(comparison.unit)
    show_table(title, columns, rows, lambda row: row in best)
    gained = any(row.gain and row.gain.within_noise for row in rows)
    told = [
        f"Losses: nats per {comparison.unit} over the whole splits.",
        "Gain: how far validation fell from the rung before.",
        NOISE if gained else "",
        describe_seeds(len(row.seeds) for row in rows),
        _of_overfitting(comparison),
    ]
    console.show(" ".join(filter(None, told)))
    for row in rows:
        if row.differs:
            console.show(f"* {row.settings_note}")
    if any(row.unit != comparison.unit for row in rows):
        console.show(
            "Losses per token of other length stand for something else, so only bits per character "
            "are shown for those."
        )
    console.show("")
    _render_baselines(comparison)
    if claims is not None:
        _render_claims(claims)
    trained = [row for row in comparison.rows if row.evaluations]
    for key in LOSSES if comparison.rows else ():
        title = curve_title(key, trained)
        heading = f"\n{title}, estimated while training; each row has a scale of its own"
        console.show(console.styled(heading, "bold"))
        beside = key == "val_loss" and has_validation(trained)
        baselines = comparison.drawn_baselines if beside else ()
        console.show(curves(key, trained, console.results().width, baselines))
        if key == "val_loss" and has_tail(trained):
            console.show(TAIL)
    console.show(console.styled("\nBy each, with the same seed:", "bold"))
    for row in rows:
        console.show(console.styled(f"\n{row.label}", "bold cyan"))
        console.show_text(samples[row.runs[0]].strip("\n"))


def _render_claims(claims: "Sequence[Claim]") -> None:
    """What the original's documentation says, each with a verdict."""
    from rich.table import Table

    from drakegpt.experiments.claims import TITLE

    console.show(console.styled(f"{TITLE}:", "bold"))
    table = Table.grid(padding=(0, 1))
    for claim in claims:
        verdict = console.styled(claim.verdict, _STYLES[claim.holds])
        table.add_row(verdict, f"{claim.claim} {claim.finding}")
    console.show(table if claims else "None can be: that takes two models of one size.")


def _render_baselines(comparison: "Comparison") -> None:
    """The table of what counting reaches, and which rows are beyond it."""
    from drakegpt.report.summary import describe_baselines

    baselines, find_lowest = comparison.baselines, comparison.lowest_baseline
    title = "What counting alone reaches"
    show_table(title, _BASELINE_COLUMNS, baselines, lambda f: f is find_lowest)
    unit = baselines[0].unit
    longest = " (the longest of these runs)" if len(comparison.context_lengths) > 1 else ""
    console.show(
        f"Order: how many neighbouring {unit} are counted together, on the training split; "
        "n-grams: how many different ones it keeps, of that length and below. Smoothed by modified "
        f"Kneser-Ney, scored as the models are, in windows of {baselines[0].context_length} "
        f"{unit}{longest}."
    )
    console.show(" ".join(describe_baselines(comparison)))
    console.show("")


def _of_overfitting(comparison: "Comparison") -> str:
    """What that column says, if it says anything."""
    if not any(row.overfits_from for row in (*comparison.rows, *comparison.others)):
        return ""
    return (
        "Overfits from: the iteration after which validation rose, by more than a hundredth "
        "of a nat in the end, while training fell."
    )


def _columns(unit: str) -> "tuple[Column[ResultRow], ...]":
    """The columns; losses of rows with other units than the ladder's are left blank."""

    def alike(row: "ResultRow", figure: str) -> str:
        return figure if row.unit == unit else ""

    return (
        Column("model", lambda row: row.marked_label),
        Column("parameters", lambda row: f"{row.parameters:,}", 2),
        Column("train", lambda row: alike(row, f"{row.train_loss:.4f}"), 1),
        Column("validation", lambda row: alike(row, f"{row.val_loss:.4f}")),
        Column("±", lambda row: alike(row, format_or_blank(row.val_spread, ".4f")), 2),
        Column("gain", lambda row: row.formatted_gain, 3),
        Column("bits/char", lambda row: f"{row.bits_per_character:.3f}", 4),
        Column("perplexity", lambda row: alike(row, f"{row.perplexity:.2f}"), 7),
        Column("tokens/s", lambda row: format_or_blank(row.tokens_per_second, ",.0f"), 8),
        Column("seconds", lambda row: format_or_blank(row.seconds, ".1f"), 5),
        Column("overfits\nfrom", lambda row: format_or_blank(row.overfits_from, ","), 6),
    )


_BASELINE_COLUMNS: "tuple[Column[Baseline], ...]" = (
    Column("order", lambda baseline: str(baseline.order)),
    Column("validation", lambda baseline: f"{baseline.score.loss:.4f}"),
    Column("bits/char", lambda baseline: f"{baseline.score.bits_per_character:.3f}", 1),
    Column("n-grams", lambda baseline: f"{baseline.ngrams:,}", 2),
)
