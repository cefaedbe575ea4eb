"""The ladder: choose its runs, score them, and show tables, curves and samples.

All of it fits the screen it is shown on: narrow, without colour, or none at all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drakegpt import files
from drakegpt.cli import console
from drakegpt.cli.compare.collecting import damaged_to_json, warn_of_damaged
from drakegpt.cli.tables import Column, show_table
from drakegpt.config import SIZES
from drakegpt.errors import RunError
from drakegpt.experiments.formatting import NOISE, describe_seeds, format_or_blank
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.evaluation.baseline import Baseline
    from drakegpt.experiments.claims import Claim
    from drakegpt.experiments.ladder import Comparison, Selection
    from drakegpt.experiments.results import ResultRow
    from drakegpt.report.originality import CopiedRow, Originality
    from drakegpt.runs.brief_originality import BriefOriginality
    from drakegpt.runs.run import Run

# The rung that may be worse than the one before it, and what is said of it then.
UNTAMED = "BlocksLM"
LOST = "deep without residuals; ResidualBlocksLM is the cure"
_VERDICT_STYLES = {True: "green", False: "yellow", None: "dim"}


@dataclass(frozen=True)
class Request:
    """What is asked of the comparison: which runs, and how to show them."""

    size: str | None
    settings: Mapping[str, Any]
    seeds: int | None
    prompt: str
    html: Path | None
    static: bool
    force: bool
    claims: bool
    train: bool
    json: bool
    quiet: bool


def prepare_target(html: Path | None, *, force: bool) -> None:
    """Check, before any work, that the page can be written there."""
    from drakegpt.report.target import check_target

    if html:
        check_target(html, "--html", replace=force)
        files.remove_leftovers(html.absolute().parent)


def compare_ladder(dataset: "Dataset", request: Request) -> None:
    """Compare the runs that the request chooses, trained first if it says so, and show it all."""
    from drakegpt.cli.progress import counting
    from drakegpt.experiments.claims import check_claims
    from drakegpt.generation.prompt import fit_prompt
    from drakegpt.report.contents import collect_contents
    from drakegpt.report.target import check_target

    prompt = fit_prompt(request.prompt, dataset.tokenizer, skip_unknown=False).text
    device = request.settings.get("device", "auto")
    chosen = _choose(dataset, request)
    warn_of_damaged(chosen.damaged)
    if not (together := chosen.by_row):
        raise RunError(f"{next(iter(chosen.damaged.values()))}", "Train the models again.")
    if not request.json:
        count = sum(map(len, together))
        console.note(f"Scoring {pluralize(count, 'run')} on the whole of '{dataset.name}'.")
    with counting("Comparison", quiet=request.quiet or request.json) as progress:
        contents = collect_contents(
            dataset, chosen, prompt=prompt, device_name=device, settings=request.settings,
            static=request.static or not request.html, progress=progress,
        )  # fmt: skip
    comparison, samples, originality = contents.comparison, contents.samples, contents.originality
    claims = check_claims(comparison.rows) if request.claims else None
    if request.html:
        text = contents.render(claims=claims or ())
        # Training may have taken hours.
        check_target(request.html, "--html", replace=request.force)
        files.write_text(request.html, text)
    figures = _draw_figures(comparison)
    if request.json:
        result = comparison.to_json() | {
            "figures": [str(path) for path in figures],
            "samples": samples.to_json(),
            "originality": originality.to_json(),
            "val_share_in_train": dataset.metadata.val_share_in_train,
            "val_songs_in_train": dataset.metadata.val_songs_in_train,
            "damaged": damaged_to_json(chosen.damaged),
        }
        result |= {"report": str(request.html)} if request.html else {}
        if claims is not None:
            result["claims"] = [asdict(claim) for claim in claims]
        console.show_json(result)
        return
    render(comparison, samples.texts, claims)
    _render_originality(comparison, originality)
    for path in figures:
        console.note(f"Figure: {path}")
    if request.html:
        console.note(f"Page: {request.html}")
    _show_what_differs(comparison)
    console.next_commands(
        [
            format_command("generate", data=comparison.data, length=500),
            format_command("export", "page", data=comparison.data),
        ]
    )


def _choose(dataset: "Dataset", request: Request) -> "Selection":
    """Choose the ladder's runs, trained first if requested, and other runs on the same text.

    Raises `RunError` if there are none.
    """
    from drakegpt.cli.run_launcher import RunLauncher
    from drakegpt.experiments.ladder import (
        choose_trained_settings,
        collect_ladder,
        select_ladder,
    )
    from drakegpt.runs.lookup import INCIDENTAL

    size, settings, seeds = request.size, request.settings, request.seeds
    if request.train:
        launcher = RunLauncher(dataset, quiet=request.quiet)
        settings = choose_trained_settings(size, settings)
        chosen = collect_ladder(dataset, size or "default", settings, seeds, launcher)
        if not launcher.trained and not request.quiet:
            console.note("Every model has a run with these settings; nothing to train.")
        return chosen
    chosen = select_ladder(dataset, [size] if size else SIZES, settings, seeds)
    for run, taken in chosen.left_out:
        console.note(_describe_left_out(run, taken))
    if not chosen.by_row and not chosen.damaged:
        asked = bool(settings.keys() - {*INCIDENTAL} or seeds or size)
        such = " with these settings" if asked else ""
        whole = f"`{format_command('compare', train=True, data=dataset.name)}`"
        raise RunError(
            f"No model has been trained on '{dataset.name}'{such} yet.",
            f"Train all six: {'the same command with --train' if asked else whole}.",
        )
    return chosen


def _describe_left_out(run: "Run", taken: "Run") -> str:
    """Say why a newer run is left out, and which settings would choose it."""
    from drakegpt.experiments.agreement import ORIGIN, find_differences, get_shared_settings

    told = f"Left out: {run.name}, newer but trained with other settings."
    if run.provenance:
        return told
    differing = find_differences(run, get_shared_settings(taken))
    chosen = [f"{name}={own}" for name, (own, _) in differing.items() if name != ORIGIN]
    asked = format_command("compare", data=run.config.data, set_=chosen)
    return f"{told} To choose it: `{asked}`."


def _draw_figures(comparison: "Comparison") -> list[Path]:
    """Draw the loss curves, and bits per character if there are other runs; return the files."""
    from drakegpt.experiments.plots import draw_bits, draw_curves

    data, rows = comparison.data, comparison.rows
    figures = draw_curves(data, rows, comparison.drawn_baselines) if rows else []
    if comparison.others:
        figures += draw_bits(data, [*rows, *comparison.others])
    return figures


def _show_what_differs(comparison: "Comparison") -> None:
    """Say which rows are not trained like the others, which models are missing, and the fix."""
    for row in (*comparison.rows, *comparison.others):
        for each in row.results:
            if each.history:
                console.warn(f"{each.run} was {each.history}")
    for row in comparison.rows:
        if row.differs:
            how = f"`{row.command}` trains it" if row.command else "it cannot be trained"
            console.warn(f"{row.label} was trained with other settings: {how} like the others")
    for missing in comparison.missing:
        makes = f"`{missing.command}` makes one" if missing.command else missing.why
        console.warn(f"no finished run of {missing.model}: {makes}")


def render(
    comparison: "Comparison", samples: Mapping[str, str], claims: "Sequence[Claim] | None" = None
) -> None:
    """Show tables, claims, curves and samples; `samples` are by the name of a row's first run."""
    _render_samples(comparison, samples)
    _render_losses(comparison)
    if claims is not None:
        _render_claims(claims)
    _render_curves(comparison)


def _render_samples(comparison: "Comparison", samples: Mapping[str, str]) -> None:
    """Show what each model writes, worst first, with its loss and what it cannot do yet."""
    from drakegpt.models.registry import MODELS

    rows = [*comparison.rows, *comparison.others]
    console.show(console.styled("What they write, with the same seed, the worst first:", "bold"))
    for row in sorted(rows, key=lambda row: -row.bits_per_character):
        loss = f"{row.bits_per_character:.2f} bits per character"
        limit = LOST if row.gain and row.gain.higher and row.model == UNTAMED else ""
        limit = limit or MODELS[row.model].limit
        heading = console.styled(f"\n{row.label}", "bold cyan")
        heading.append(f": {loss}; {limit}." if limit else f": {loss}.", "not bold default")
        console.show(heading)
        console.show_text(samples[row.runs[0]].strip("\n"))
    console.show("")


def _render_losses(comparison: "Comparison") -> None:
    """Show the table of losses, and explain its columns and marks."""
    from drakegpt.experiments.results import find_lowest
    from drakegpt.report.summary import describe_baselines

    rows = [*comparison.rows, *comparison.others]
    best = find_lowest(rows)
    presets = {row.preset for row in comparison.rows} - {"none"}
    title = f"The ladder on {comparison.data}" + "".join(f", preset {name}" for name in presets)
    shown: list[ResultRow | Baseline] = [*rows, *comparison.drawn_baselines]
    show_table(title, _columns(comparison.unit), shown, lambda row: row in best)
    any_noise = any(row.gain and row.gain.within_noise for row in rows)
    sentences = [
        f"Losses: nats per {comparison.unit} over the whole splits.",
        "Gain: how much lower the validation loss is than that of the model before.",
        NOISE if any_noise else "",
        describe_seeds(len(row.seeds) for row in rows),
        _explain_overfitting(comparison),
        _explain_counting(comparison),
        *describe_baselines(comparison),
    ]
    console.show(" ".join(filter(None, sentences)))
    for row in rows:
        if row.differs:
            console.show(f"* {row.settings_note}")
    if any(row.unit != comparison.unit for row in rows):
        console.show(
            "Losses per token cannot be compared between tokenizers, so for those rows only bits "
            "per character are shown."
        )
    console.show("")


def _render_originality(comparison: "Comparison", judged: "Originality") -> None:
    """Show how much each model copies, beside people."""
    from drakegpt.evaluation.originality import LENGTHS
    from drakegpt.report.originality import list_rows
    from drakegpt.runs.brief_originality import CHARACTERS, TEXTS

    columns: tuple[Column[CopiedRow], ...] = (
        Column("text", lambda row: row.label, wraps=True),
        Column(f"copied from {LENGTHS[0]}", lambda row: f"{row.judged.share:.1%}"),
        Column("longest", lambda row: f"{row.judged.longest:,}"),
        Column("memorizes", lambda row: _describe_memory(row.judged), 1),
    )
    rows = list_rows([*comparison.rows, *comparison.others], judged)
    console.show("")
    show_table("Is it copying?", columns, rows)
    console.show(
        f"Copied: characters in runs of {LENGTHS[0]} or more that stand in the training text word "
        f"for word, of {TEXTS * CHARACTERS:,}. Longest: of all runs that stand there; of people, "
        "in as much text. "
        "`drakegpt eval RUN --originality` shows them."
    )


def _describe_memory(judged: "BriefOriginality") -> str:
    if not judged.memorizes:
        return ""
    start = judged.memorizes_from
    return "yes" if start is None else f"seen at {start:,}"


def _render_curves(comparison: "Comparison") -> None:
    """Draw the losses that were estimated while training."""
    from drakegpt.cli.plots import draw_curves
    from drakegpt.experiments.plots import LOSSES, TAIL, curve_title, has_tail, has_validation

    trained = [row for row in comparison.rows if row.evaluations]
    for key in LOSSES if comparison.rows else ():
        title = curve_title(key, trained)
        heading = f"\n{title}, estimated while training; each row has its own scale"
        console.show(console.styled(heading, "bold"))
        beside = key == "val_loss" and has_validation(trained)
        baselines = comparison.drawn_baselines if beside else ()
        console.show(draw_curves(key, trained, console.results().width, baselines))
        if key == "val_loss" and has_tail(trained):
            console.show(TAIL)


def _render_claims(claims: "Sequence[Claim]") -> None:
    """Show the claims of the original's documentation, each with a verdict."""
    from rich.table import Table

    from drakegpt.experiments.claims import TITLE

    console.show(console.styled(f"\n{TITLE}:", "bold"))
    table = Table.grid(padding=(0, 1))
    for claim in claims:
        verdict = console.styled(claim.verdict, _VERDICT_STYLES[claim.holds])
        table.add_row(verdict, f"{claim.claim} {claim.finding}")
    console.show(table if claims else "None can be tested: that takes two models of one size.")


def _explain_counting(comparison: "Comparison") -> str:
    """Explain the rows of n-gram counts."""
    if not (baselines := comparison.baselines):
        return ""
    unit = baselines[0].unit
    longest = " (the longest of these runs)" if len(comparison.context_lengths) > 1 else ""
    return (
        f"Counts: n-gram counts of the training split, with the number of distinct n-grams; "
        f"smoothed with modified Kneser-Ney, and scored like the models, in windows of "
        f"{baselines[0].context_length} {unit}{longest}."
    )


def _explain_overfitting(comparison: "Comparison") -> str:
    """Explain the column "overfits from", if it has values."""
    if not any(row.overfits_from for row in (*comparison.rows, *comparison.others)):
        return ""
    return (
        "Overfits from: the iteration after which the validation loss rose, by more than a "
        "hundredth of a nat in the end, while the training loss fell."
    )


def _columns(unit: str) -> "tuple[Column[ResultRow | Baseline], ...]":
    """Return the columns; losses in another unit than `unit` are left blank.

    A row is one of models, or one of n-gram counts, which has losses and a size.
    """
    from drakegpt.evaluation.baseline import Baseline

    def of_model(figure: "Callable[[ResultRow], str]") -> "Callable[[ResultRow | Baseline], str]":
        return lambda row: "" if isinstance(row, Baseline) else figure(row)

    def of_unit(figure: "Callable[[ResultRow], str]") -> "Callable[[ResultRow | Baseline], str]":
        return of_model(lambda row: figure(row) if row.unit == unit else "")

    def name(row: "ResultRow | Baseline") -> str:
        return row.label if isinstance(row, Baseline) else row.marked_label

    def size(row: "ResultRow | Baseline") -> str:
        return f"{row.ngrams:,}" if isinstance(row, Baseline) else f"{row.parameters:,}"

    def validation(row: "ResultRow | Baseline") -> str:
        if isinstance(row, Baseline):
            return f"{row.score.loss:.4f}"
        return f"{row.val_loss:.4f}" if row.unit == unit else ""

    def bits(row: "ResultRow | Baseline") -> str:
        score = row.score if isinstance(row, Baseline) else row
        return f"{score.bits_per_character:.3f}"

    return (
        Column("model", name),
        Column("parameters\nor n-grams", size, 2),
        Column("train", of_unit(lambda row: f"{row.train_loss:.4f}"), 4),
        Column("validation", validation),
        Column("±", of_unit(lambda row: format_or_blank(row.val_spread, ".4f")), 2),
        Column("gain", of_model(lambda row: row.formatted_gain), 3),
        Column("bits/char", bits, 1),
        Column("seconds", of_model(lambda row: format_or_blank(row.seconds, ".1f")), 5),
        Column("overfits\nfrom", of_model(lambda row: format_or_blank(row.overfits_from, ",")), 6),
    )
