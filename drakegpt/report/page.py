"""A comparison as one self-contained HTML page: no network, no other file.

The page is `template.html.j2`, with the files of `sections` and `style.css` in it. It is
readable without a script. Given the text of one, and an engine and models for it, they
are in the page too, and no other script can run there. Jinja2 escapes all that the
template prints but the figures, which `inline_svg` has escaped, the style and the scripts.

Here: the values that the template needs. Not here: the sentences (`summary`), the
figures (`plots`), the surprisal of a verse (`evaluation.surprisal`), what the scripts do.
"""

import base64
import hashlib
import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

from drakegpt.compute.device import choose_device
from drakegpt.config import LADDER
from drakegpt.data.dataset import Dataset
from drakegpt.evaluation.baseline import BIGRAM, Baseline
from drakegpt.evaluation.originality import LENGTHS
from drakegpt.evaluation.surprisal import Piece, Verse, compute_verse_surprisals, find_verse
from drakegpt.experiments.claims import TITLE, Claim
from drakegpt.experiments.formatting import (
    NOISE,
    describe_seeds,
    format_or_blank,
    format_range,
    format_with_spread,
)
from drakegpt.experiments.ladder import Comparison
from drakegpt.experiments.results import ResultRow
from drakegpt.models.registry import MODELS
from drakegpt.report.explanations import describe_idea
from drakegpt.report.live import Live
from drakegpt.report.originality import Originality, describe_copying, format_share
from drakegpt.report.plots import Mark, assign_marks, draw_plots, explain_signs
from drakegpt.report.reproduce import describe_reproduction
from drakegpt.report.samples import Samples
from drakegpt.report.summary import summarize
from drakegpt.runs.brief_originality import TEXTS
from drakegpt.runs.run import Run
from drakegpt.runs.stored_samples import Sample, choose_samples, list_samples
from drakegpt.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "template.html.j2"
# Surprisals in bits per character from which a piece of the verse has the next darker colour.
COLOUR_STEPS = (1, 2, 4, 6, 8)
MOST_SURPRISING = 3
SHOWN_SAMPLES = 4  # of the texts that a run wrote while it was trained
CONTEXT_SHOWN = 12  # characters shown before a surprising one
# The sections in their order, and how the table of contents names them.
SECTIONS = {
    "ladder": "The ladder", "write": "Write", "guess": "Guess", "surprise": "Surprise",
    "attention": "Where it looked", "learning": "Learning", "summary": "Results",
    "curves": "Curves", "baselines": "Baselines", "originality": "Copying",
    "reproduce": "Reproduce", "glossary": "Glossary",
}  # fmt: skip
NO_LICENCE = "not stated; state it when you pass the file on"
# What ends a script's element, or what a browser reads as other text than was hashed.
_NOT_IN_SCRIPTS = re.compile(r"</script|<!--|[\r\0]", re.IGNORECASE)


@dataclass(frozen=True)
class Rung:
    """A model of the ladder, trained or not."""

    number: int
    model: str
    idea: str
    row: ResultRow | None
    mark: Mark | None
    command: str  # trains it, if it is not trained


@dataclass(frozen=True)
class ColouredPiece:
    """Neighbouring pieces of the verse with the same colour."""

    text: str
    step: int  # 0: not coloured


@dataclass(frozen=True)
class VerseSurprisal:
    """The surprisal of the verse under one model."""

    mark: Mark
    mean: float  # bits per character
    pieces: tuple[ColouredPiece, ...]
    most: tuple[tuple[str, str, float], ...]  # (text before it, piece, bits), highest first


def render(
    data: Dataset,
    comparison: Comparison,
    runs: Sequence[Sequence[Run]],
    samples: Samples,
    device_name: str = "auto",
    claims: Sequence[Claim] = (),
    originality: Originality | None = None,
    *,
    live: Live | None = None,
    title: str = "",
    licence: str = "",
) -> str:
    """Render the page; the same comparison gives the same bytes.

    `runs`: the runs of each row, one for each seed; the ladder's rows, then the others.
    `claims`: the original's claims, if they are to be shown. `originality`: how much they copy.
    `live`: what makes the page live; without it the page is static. `title`: instead of the
    usual one. `licence`: of the text and the models, in words.

    Raises `RunError` or `CorpusError` if a run or its dataset cannot be loaded, and
    `ValueError` if a script cannot be part of a page as it is.
    """
    from markupsafe import Markup

    style = _read_resource("style.css") + (live.style if live else "")
    script, engine, models = (live.script, live.engine, live.models) if live else ("", "", "")
    for name, code in (("script", script), ("engine", engine)):
        _check_script(name, code)
    marks = assign_marks(comparison)
    rows = (*comparison.rows, *comparison.others)
    plots = draw_plots(comparison, marks)
    verse = find_verse(data)
    learning = [(marks[first.name], list_progress(first)) for first, *_ in runs]
    absent = {
        "ladder": live and len(rows) == 1 and not comparison.missing,
        "guess": not (live and live.can_guess),
        "attention": not live,
        "learning": not any(stages for _, stages in learning),
        "curves": not plots,
        "baselines": not comparison.baselines,
        "originality": not (originality and originality.runs),
    }
    return _environment().get_template(TEMPLATE).render(
        title=title,
        subject=describe_subject(comparison),
        policy=content_security_policy(style, script),
        style=Markup(style),
        live=bool(live),
        live_models=live.count if live else 0,
        script=Markup(script),
        engine=Markup(engine),
        models=Markup(models.replace("<", r"\u003c")),
        licence=licence or NO_LICENCE,
        dates=describe_dates([run for row in runs for run in row]),
        sections=[(name, SECTIONS[name]) for name in SECTIONS if not absent.get(name)],
        version=__version__,
        data=data.metadata,
        comparison=comparison,
        claims=claims,
        claims_title=TITLE,
        rows=rows,
        marks=marks,
        findings=summarize(comparison),
        ladders=list_rungs(comparison, marks),
        ideas={first.name: describe_idea(first) for first, *_ in runs},
        scale=LossScale.of(comparison),
        means=describe_seeds(len(row.seeds) for row in rows),
        noise=NOISE if any(row.gain and row.gain.within_noise for row in rows) else "",
        columns=choose_columns(RESULT_COLUMNS, rows),
        training_columns=choose_columns(TRAINING_COLUMNS, rows),
        figures=[(plot, Markup(plot.svg)) for plot in plots],
        legend=explain_signs(plots),
        verse=verse,
        steps=COLOUR_STEPS,
        quote_piece=quote_piece,
        surprisals=compute_surprisals(verse, runs, marks, device_name),
        samples=samples,
        learning=learning,
        originality=originality,
        copying=describe_copying(rows, originality) if originality and originality.runs else (),
        copied_from=LENGTHS[0],
        texts_judged=TEXTS,
        format_share=format_share,
        reproduction=describe_reproduction(runs),
    )  # fmt: skip


def describe_subject(comparison: Comparison) -> str:
    """Return the title of a page that was given none, but for the name of the data."""
    rows = (*comparison.rows, *comparison.others)
    if len(rows) == 1:
        return f"{rows[0].model} on"
    return f"{'The ladder' if comparison.rows else 'Models'} on"


def compute_surprisals(
    verse: Verse, runs: Sequence[Sequence[Run]], marks: Mapping[str, Mark], device_name: str
) -> list[VerseSurprisal]:
    """Compute the surprisal of the verse under the first run of each row."""
    device = choose_device(device_name)
    surprisals = []
    for first, *_ in runs:
        pieces = compute_verse_surprisals(first.load_model(device), first.load_dataset(), verse)
        surprisals.append(summarize_surprisal(verse, pieces, marks[first.name]))
    return surprisals


def content_security_policy(style: str, script: str = "") -> str:
    """Return the policy of a page that has this text in its one `<style>`, and this script.

    Nothing else is applied or run, but what the script makes of a blob; nothing is fetched.
    """
    rules = ["default-src 'none'", f"style-src {_hash(style)}", "img-src data:"]
    if script:
        rules += [f"script-src {_hash(script)} blob:", "worker-src blob:"]
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _check_script(name: str, code: str) -> None:
    """Raise `ValueError` if a page cannot hold this text in a `<script>` as it is."""
    if found := _NOT_IN_SCRIPTS.search(code):
        raise ValueError(f"no {name} of a page may contain {found.group()!r}")


def describe_dates(runs: Sequence[Run]) -> str:
    """Return the day on which the runs were made (UTC), or the first and the last one."""
    days = sorted({str(run.info["created_at"])[:10] for run in runs})
    return f"{days[0]} to {days[-1]}" if len(days) > 1 else days[0]


def _environment() -> "Environment":
    """Return a Jinja2 environment that escapes everything and refuses undefined variables."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(_read_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=replace_forbidden,
    )


def _read_resource(name: str) -> str:
    return (resources.files("drakegpt.report") / name).read_text(encoding="utf-8")


def replace_forbidden(value: Any) -> Any:
    """Replace the characters of a text that HTML forbids by visible symbols.

    Applied to everything that the template prints; what is not text is returned as it is.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(map(_replace_if_forbidden, value))


def _replace_if_forbidden(character: str) -> str:
    code = ord(character)
    if code < 0x20 and character not in "\t\n":
        return chr(0x2400 + code)  # NUL is ␀
    if code == 0x7F:
        return "␡"
    # Other controls, halves of surrogate pairs, and code points that are not characters.
    forbidden = unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n"
    not_a_character = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return "\N{REPLACEMENT CHARACTER}" if forbidden or not_a_character else character


def list_rungs(comparison: Comparison, marks: Mapping[str, Mark]) -> list[tuple[str, list[Rung]]]:
    """List the rungs of each size that has a row: the trained ones, and those that are missing."""
    rows = {(row.model, row.size): row for row in comparison.rows}
    commands_by_size = {
        size: {m.model: m.command for m in comparison.missing if m.size == size} for _, size in rows
    }
    return [
        (
            size,
            [
                _make_rung(model, rows.get((model, size)), marks, commands)
                for model in LADDER
                if (model, size) in rows or model in commands
            ],
        )
        for size, commands in commands_by_size.items()
    ]


def _make_rung(
    model: str, row: ResultRow | None, marks: Mapping[str, Mark], commands: Mapping[str, str]
) -> Rung:
    mark = marks[row.runs[0]] if row else None
    number = LADDER.index(model) + 1
    return Rung(number, model, MODELS[model].idea, row, mark, commands.get(model, ""))


@dataclass(frozen=True)
class LossScale:
    """The axis of the ladder: from the lowest loss of any rung or baseline to the highest."""

    low: float
    high: float
    baselines: tuple[Baseline, ...]  # drawn as upright lines

    @classmethod
    def of(cls, comparison: Comparison) -> "LossScale":
        """Return the scale for a comparison, with its bigram baseline and its best one."""
        lowest = comparison.lowest_baseline
        baselines = tuple(b for b in comparison.baselines if b.order == BIGRAM or b is lowest)
        losses = [loss for row in comparison.rows for loss in (row.train_loss, row.val_loss)]
        losses += [baseline.score.loss for baseline in baselines]
        losses = [loss for loss in losses if math.isfinite(loss)]
        return cls(min(losses, default=0.0), max(losses, default=1.0), baselines)

    def place(self, loss: float) -> str:
        """Return a loss's place on the scale in per cent; NaN is at the high end."""
        if not math.isfinite(loss):
            return "100.00"
        return f"{100 * (loss - self.low) / ((self.high - self.low) or 1.0):.2f}"


def summarize_surprisal(verse: Verse, pieces: Sequence[Piece], mark: Mark) -> VerseSurprisal:
    """Colour the verse by a model's surprisals, with the mean and the highest of them."""
    coloured = tuple(
        ColouredPiece("".join(piece.text for piece in alike), step)
        for step, alike in groupby(pieces, lambda piece: _colour_step(piece.bits_per_character))
    )
    starts = [0, *accumulate(len(piece.text) for piece in pieces)]
    ranked = sorted(range(len(pieces)), key=lambda place: -pieces[place].bits_per_character)
    most = tuple(
        (
            verse.text[max(0, starts[place] - CONTEXT_SHOWN) : starts[place]],
            pieces[place].text,
            pieces[place].bits,
        )
        for place in ranked[:MOST_SURPRISING]
    )
    mean = sum(piece.bits for piece in pieces) / len(verse.text)
    return VerseSurprisal(mark, mean, coloured, most)


def list_progress(run: Run) -> list[Sample]:
    """List a few texts that a run wrote while it was trained, its worst first."""
    return choose_samples(list_samples(run.evaluations), SHOWN_SAMPLES)


def quote_piece(piece: str) -> str:
    """Put a piece of the verse into quotes; name it if it is white space."""
    return {"\n": "the end of a line", " ": "a space"}.get(
        piece, f"“\N{FIRST STRONG ISOLATE}{piece}\N{POP DIRECTIONAL ISOLATE}”"
    )


def _colour_step(bits: float) -> int:
    """Return the colour step for a surprisal in bits per character; the darkest for NaN."""
    return len(COLOUR_STEPS) if math.isnan(bits) else bisect_right(COLOUR_STEPS, bits)


Column = tuple[str, Callable[[ResultRow], str], bool]  # title, value, whether per token


def choose_columns(columns: Sequence[Column], rows: Sequence[ResultRow]) -> list[Column]:
    """Choose the columns in which any row has a value."""
    return [column for column in columns if any(column[1](row) for row in rows)]


# The first columns are those that a phone shows.
RESULT_COLUMNS: tuple[Column, ...] = (
    ("bits/char", lambda row: f"{row.bits_per_character:.3f}", False),
    ("gain (nats)", lambda row: row.formatted_gain, True),
    ("parameters", lambda row: f"{row.parameters:,}", False),
    ("train (nats)", lambda row: format_with_spread(row.train_loss, row.train_spread), True),
    ("validation (nats)", lambda row: format_with_spread(row.val_loss, row.val_spread), True),
    ("perplexity", lambda row: f"{row.perplexity:.2f}", True),
    ("overfits from", lambda row: format_or_blank(row.overfits_from, ","), False),
)
TRAINING_COLUMNS: tuple[Column, ...] = (
    ("iterations", lambda row: format_range(row.lengths), False),
    ("seconds", lambda row: format_or_blank(row.seconds, ",.1f"), False),
    ("tokens/s", lambda row: format_or_blank(row.tokens_per_second, ",.0f"), False),
    ("seeds", lambda row: ", ".join(map(str, row.seeds)), False),
)
