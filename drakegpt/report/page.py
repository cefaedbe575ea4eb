"""A comparison as one HTML page that needs nothing else: no network, no script, no file beside it.

The page is `template.html.j2` with `style.css` in it. Whatever the template
prints is escaped; only the figures, which hold no text of a user's, are not.

Here: what the page needs as plain values. Not here: the sentences (`summarize`),
the figures (`report_figures`), the surprise at a verse (`surprise`).
"""

import math
import os
import tempfile
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drakegpt.config import IDEAS, LADDER
from drakegpt.data.dataset import Dataset
from drakegpt.errors import UsageError
from drakegpt.evaluation.baseline import Baseline
from drakegpt.evaluation.surprisal import Piece, Verse, find_verse, verse_surprisals
from drakegpt.experiments.claims import INTRODUCTION, Claim
from drakegpt.experiments.formatting import NOISE, describe_seeds, format_or_blank, format_range
from drakegpt.experiments.ladder import PAIRS, Comparison
from drakegpt.experiments.results import ResultRow
from drakegpt.models.registry import choose_device
from drakegpt.report.plots import Mark, legend, marks_of, pictures
from drakegpt.report.reproduce import commands_for
from drakegpt.report.samples import Samples
from drakegpt.report.summary import summarize
from drakegpt.runs.run import Run
from drakegpt.version import __version__
from drakegpt.wording import quote

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "template.html.j2"
HEAD = 2000  # bytes of a page that hold what it says of itself
# Bits per character from which a piece of the verse is coloured one step more.
STEPS = (1, 2, 4, 6, 8)
MOST_SURPRISING = 3
NEARBY = 12  # characters shown before a surprising one


@dataclass(frozen=True)
class Rung:
    """One step of the ladder, trained or not."""

    number: int
    model: str
    idea: str
    row: ResultRow | None
    mark: Mark | None
    command: str  # that trains it, where it is not trained


@dataclass(frozen=True)
class Shown:
    """A piece of the verse as it is coloured."""

    text: str
    step: int  # from 0, not coloured
    bits: float


@dataclass(frozen=True)
class Surprised:
    """How a model took the verse."""

    mark: Mark
    mean: float  # bits per character
    shown: tuple[Shown, ...]
    most: tuple[tuple[str, str, float], ...]  # (right before it, piece, bits), highest first


def check_target(path: Path, *, replace: bool = False) -> None:
    """Raise `UsageError` if no report may be written there; leaves all as it was.

    A file that is there may be replaced if it is a report, and any other with `replace`.
    """
    folder = path.absolute().parent
    if path.is_symlink():
        raise UsageError(f"{path} is a link.", "Name a new file with --html, or the one it means.")
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder.", f"Name a file: --html {quote(str(path / 'report.html'))}"
        )
    if not folder.is_dir():
        raise UsageError(
            f"No report can be written to {path}: there is no folder {folder}.",
            "Make the folder first, or name a file elsewhere with --html.",
        )
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no plain file.", "Name a new file with --html.")
    if path.exists() and not replace and not _is_report(path):
        raise UsageError(
            f"{path} is there already, and is not a report of drakegpt.",
            "Name a new file with --html, or replace this one with --force.",
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(
            f"No report can be written to {path}: {reason} ({folder}).",
            "Name a file in a folder of your own with --html.",
        ) from error


def _is_report(path: Path) -> bool:
    """Whether a file says at its beginning that this program has written it."""
    try:
        with path.open("rb") as file:
            return b'<meta name="generator" content="drakegpt ' in file.read(HEAD)
    except OSError:
        return False


def render(
    data: Dataset,
    comparison: Comparison,
    runs: Sequence[Sequence[Run]],
    samples: Samples,
    device_name: str = "auto",
    claims: Sequence[Claim] = (),
) -> str:
    """The page. The same comparison gives the same page.

    `runs`: those of each row, of all its seeds; the ladder's rows and then the others.
    `claims`: the original's, if they are to be shown.
    Raises `RunError` or `CorpusError` if one of them cannot be loaded.
    """
    from markupsafe import Markup

    marks = marks_of(comparison)
    rows = (*comparison.rows, *comparison.others)
    drawn = pictures(comparison, marks)
    verse = find_verse(data)
    device = choose_device(device_name)
    surprised = []
    for first, *_ in runs:
        pieces = verse_surprisals(first.load_model(device), first.dataset(), verse)
        surprised.append(surprised_by(verse, pieces, marks[first.name]))
    return _environment().get_template(TEMPLATE).render(
        version=__version__,
        data=data.metadata,
        comparison=comparison,
        claims=claims,
        claims_title=INTRODUCTION,
        rows=rows,
        marks=marks,
        summarize=summarize(comparison),
        ladders=ladders(comparison, marks),
        scale=Scale.of(comparison),
        means=describe_seeds(len(row.seeds) for row in rows),
        noise=NOISE if any(row.gain and row.gain.within_noise for row in rows) else "",
        columns=[column for column in COLUMNS if any(column[1](row) for row in rows)],
        figures=[(picture, Markup(picture.svg)) for picture in drawn],
        legend=legend(drawn),
        verse=verse,
        steps=STEPS,
        spelt=spelt,
        surprised=surprised,
        samples=samples,
        recipes=commands_for(runs),
    )  # fmt: skip


def _environment() -> "Environment":
    """Jinja2 that escapes everything, and knows no variable it was not given."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(_file),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )


def _file(name: str) -> str:
    return (resources.files("drakegpt.report") / name).read_text(encoding="utf-8")


def visible(value: Any) -> Any:
    """Text without the characters that HTML forbids: a picture of each stands there instead.

    Everything that the template prints comes through here.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(map(_visible, value))


def _visible(character: str) -> str:
    code = ord(character)
    if code < 0x20 and character not in "\t\n":
        return chr(0x2400 + code)  # NUL is ␀
    if code == 0x7F:
        return "␡"
    # Other controls, halves of surrogate pairs, and the code points that are no characters.
    forbidden = unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n"
    no_character = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return "\N{REPLACEMENT CHARACTER}" if forbidden or no_character else character


def ladders(comparison: Comparison, marks: Mapping[str, Mark]) -> list[tuple[str, list[Rung]]]:
    """All six rungs of each size that has been begun, whether they are trained or not."""
    begun = {(row.model, row.size): row for row in comparison.rows}
    sizes = {
        size: {m.model: m.command for m in comparison.missing if m.size == size}
        for _, size in begun
    }
    return [
        (size, [_rung(model, begun.get((model, size)), marks, makes) for model in LADDER])
        for size, makes in sizes.items()
    ]


def _rung(
    model: str, row: ResultRow | None, marks: Mapping[str, Mark], makes: Mapping[str, str]
) -> Rung:
    mark = marks[row.runs[0]] if row else None
    number = LADDER.index(model) + 1
    return Rung(number, model, IDEAS[model], row, mark, makes.get(model, ""))


@dataclass(frozen=True)
class Scale:
    """Where a loss lies between the lowest and the highest of the ladder, from 0 to 100."""

    low: float
    high: float
    baselines: tuple[Baseline, ...]  # what counting alone reaches

    @classmethod
    def of(cls, comparison: Comparison) -> "Scale":
        """The scale of all rungs of a comparison, and the baselines of interest."""
        lowest = comparison.lowest_baseline
        baselines = tuple(f for f in comparison.baselines if f.order == PAIRS or f is lowest)
        losses = [loss for row in comparison.rows for loss in (row.train_loss, row.val_loss)]
        losses += [baseline.score.loss for baseline in baselines]
        losses = [loss for loss in losses if math.isfinite(loss)]
        return cls(min(losses, default=0.0), max(losses, default=1.0), baselines)

    def place(self, loss: float) -> str:
        """In per cent of the way from low to high, for CSS; what is not finite, at the high end."""
        if not math.isfinite(loss):
            return "100.00"
        return f"{100 * (loss - self.low) / ((self.high - self.low) or 1.0):.2f}"


def surprised_by(verse: Verse, pieces: Sequence[Piece], mark: Mark) -> Surprised:
    """What is shown of a model's surprise at the verse."""
    shown = tuple(
        Shown(piece.text, _step(piece.bits_per_character), piece.bits) for piece in pieces
    )
    starts = [0, *accumulate(len(piece.text) for piece in pieces)]
    ranked = sorted(range(len(pieces)), key=lambda place: -pieces[place].bits_per_character)
    most = tuple(
        (
            verse.text[max(0, starts[place] - NEARBY) : starts[place]],
            pieces[place].text,
            pieces[place].bits,
        )
        for place in ranked[:MOST_SURPRISING]
    )
    mean = sum(piece.bits for piece in pieces) / len(verse.text)
    return Surprised(mark, mean, shown, most)


def spelt(piece: str) -> str:
    """A piece of the verse in a sentence: in quotes, unless there is nothing to see."""
    return {"\n": "the end of a line", " ": "a space"}.get(
        piece, f"“\N{FIRST STRONG ISOLATE}{piece}\N{POP DIRECTIONAL ISOLATE}”"
    )


def _step(bits: float) -> int:
    """How strongly so many bits per character are coloured; as nothing else what is no number."""
    return bisect_right(STEPS, bits) if bits == bits else len(STEPS)


def _nats(loss: float, spread: float | None = None) -> str:
    return f"{loss:.4f}" if spread is None else f"{loss:.4f} ± {spread:.4f}"


# The columns of the table of all figures: title, value, whether it is a loss per token.
COLUMNS: tuple[tuple[str, Any, bool], ...] = (
    ("parameters", lambda row: f"{row.parameters:,}", False),
    ("train", lambda row: _nats(row.train_loss, row.train_spread), True),
    ("validation", lambda row: _nats(row.val_loss, row.val_spread), True),
    ("gain", lambda row: row.gain_shown, True),
    ("bits/char", lambda row: f"{row.bits_per_character:.3f}", False),
    ("perplexity", lambda row: f"{row.perplexity:.2f}", True),
    ("overfits from", lambda row: format_or_blank(row.overfits_from, ","), False),
    ("iterations", lambda row: format_range(row.lengths), False),
    ("tokens/s", lambda row: format_or_blank(row.tokens_per_second, ",.0f"), False),
    ("seconds", lambda row: format_or_blank(row.seconds, ",.1f"), False),
    ("seeds", lambda row: ", ".join(map(str, row.seeds)), False),
)
