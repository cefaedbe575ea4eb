"""`drakegpt eval --originality`: how much a run, or a text of yours, copies, beside people."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from drakegpt.cli import console
from drakegpt.cli.inputs import read_text_file
from drakegpt.cli.short_forms import sparkline
from drakegpt.cli.tables import Column, show_table
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.evaluation.draft import DraftLine
    from drakegpt.evaluation.originality import HumanBaseline, Originality
    from drakegpt.runs.originality import Copying, Judgement
    from drakegpt.runs.run import Run

SHOWN_NGRAMS = (5, 10, 15, 20, 30)  # characters
SHOWN_SPANS, MOST_SHOWN = 10, 100  # spans in a list, and characters of one
MIN_BARS, MAX_BARS = 10, 40  # of a curve
LEAST_SIMILARITY = 0.6  # of lines: unrelated ones had up to 0.59 in a trial
MARKS = "«»"  # around copied spans, where there are no colours

# A row: its name, and its figures as text.
Row = tuple[str, tuple[str, ...]]


def describe_copying(copying: "Copying") -> str:
    """Say how much was copied, beside what people repeat."""
    from drakegpt.evaluation.originality import LENGTHS

    longest = copying.longest
    shown = f", {longest!r}" if longest else ""
    return (
        f"Longest run copied from the text: {pluralize(len(longest), 'character')}{shown}; "
        f"{copying.copied.shares[0]:.1%} is in runs of {LENGTHS[0]} or more (of held-out text that "
        f"people wrote: {copying.people.shares[0]:.1%})."
    )


def judge_run(
    run: "Run", samples: int, length: int, device: str, *, best: bool, json: bool
) -> None:
    """Have a run write, and show how much of it is copied."""
    from drakegpt.cli.progress import counting
    from drakegpt.compute.device import choose_device
    from drakegpt.runs import originality

    data = run.load_dataset()
    console.note(f"Writing {pluralize(samples, 'text')} of {pluralize(length, 'character')}.")
    with counting("Originality", quiet=False) as progress:
        judgement = originality.judge_run(
            run, samples, length, choose_device(device), best=best, progress=progress
        )
    if json:
        console.show_json({"run": str(run.folder), "data": data.name, **asdict(judgement)})
        return
    name = f"{run.name}, best weights" if best else run.name
    _show(judgement, f"{pluralize(samples, 'text')} of {name}", data)
    _show_course(judgement, run.name)
    _draw(judgement, name, data, f"originality_{run.name}" + ("_best" if best else ""))


def judge_file(path: Path, data: "Dataset", run: "Run | None", device: str, *, json: bool) -> None:
    """Show how much of a file is copied from a dataset, and its lines as a run reads them."""
    from drakegpt.runs.originality import judge_texts, read_lines

    text = _read_draft(path, data)
    judgement = judge_texts([text], data)
    lines = read_lines(text, data, run, device)
    if json:
        read = [asdict(line) for line in lines]
        console.show_json({"data": data.name, **asdict(judgement), "lines": read})
        return
    _show(judgement, path.name, data)
    _draw(judgement, path.name, data, "originality_of_a_file")
    _show_lines(lines, run)


def _read_draft(path: Path, data: "Dataset") -> str:
    """Read a draft in the characters of a dataset, in which its copies are searched."""
    from drakegpt.generation.prompt import fit_prompt

    text = read_text_file(path)
    fitted = fit_prompt(text, data.tokenizer, skip_unknown=True)
    if fitted.replaced:
        changes = ", ".join(f"{old} → {new}" for old, new in fitted.replaced.items())
        console.note(f"Replaced characters that the text of {data.name} has not: {changes}")
    if fitted.skipped:
        console.warn(
            f"left out characters that the text of {data.name} has not: {' '.join(fitted.skipped)}"
        )
    return fitted.text


def _show(judgement: "Judgement", name: str, data: "Dataset") -> None:
    people = judgement.people
    rows = [(name, _format(judgement.all)), (f"people: {people.what}", _format(people.whole))]
    if people.blocks:
        rows.insert(1, _describe_blocks(people))
    show_table(f"Copied from the training text of {data.name}", _COLUMNS, rows)
    console.show(
        "Longest: of the runs that stand there word for word, in characters. From 20, 30, 50: "
        "share of the characters in runs at least so long. Mean match: how many characters are "
        "copied from each one on. Brackets: 95 % of the blocks. People repeat each other, too: "
        "compare with their rows."
    )
    both = [(name, judgement.all), ("people", people.whole)]
    show_table(
        "Runs of characters that the training text does not have", _list_novelty_columns(), both
    )
    width = max(len(label) for label, _ in both)
    for label, judged in both:
        bars = min(len(judged.novelty), max(MIN_BARS, console.results().width - width - 1))
        curve = sparkline([0.0, *judged.novelty, 1.0], bars + 2)[1:-1]  # of all from 0 to 1
        console.show(f"{label:<{width}} {console.styled(curve, 'green')}")
    console.show(
        f"Curves: of runs of 1 to {len(judgement.all.novelty)} characters, from 0 to 100 %."
    )
    _show_most_copied(judgement)


def _draw(judgement: "Judgement", name: str, data: "Dataset", file: str) -> None:
    from drakegpt.experiments.originality_plot import draw_originality

    for path in draw_originality(judgement, name, data.name, file):
        console.note(f"Saved as {path}")


def _show_course(judgement: "Judgement", name: str) -> None:
    """Tell how copying grew in training."""
    if not judgement.course:
        return
    shares = [each.share for each in judgement.course]
    first, last = judgement.course[0].iteration, judgement.course[-1].iteration
    console.show(
        f"\nCopied in what it wrote from iteration {first:,} to {last:,}: {shares[0]:.0%} "
        f"{console.styled(sparkline(shares, MAX_BARS), 'green')} {shares[-1]:.0%}"
    )
    if judgement.memorizes:
        start = judgement.memorizes_from
        seen = "" if start is None else f", first seen at iteration {start:,}"
        console.show(f"{name} memorizes: it copies more than people do{seen}.")


def _show_lines(lines: "Sequence[DraftLine]", run: "Run | None") -> None:
    """Show each line of a draft, how surprising it is, and the line that is most like it."""
    console.show(console.styled("\nLine by line, and the nearest line of the text:", "bold"))
    for line in lines:
        bits = "" if line.bits_per_character is None else f"{line.bits_per_character:4.1f}  "
        console.show_text(bits + line.text)
        if line.similarity >= LEAST_SIMILARITY:
            console.show_text(f"{'':{len(bits)}}  {line.similarity:.0%} {line.nearest}")
    told = f"Per cent: letters in common, in the same order; below {LEAST_SIMILARITY:.0%}, which "
    told += "unrelated lines reach as well, no line is shown."
    if run:
        told += f" Numbers before lines: bits per character, by which {run.name} was surprised"
        from drakegpt.runs.stored_scores import read_scores

        if scores := read_scores(run):
            told += f"; of held-out text {scores.val.bits_per_character:.1f}"
        told += "."
    console.show(told)


def _format(judged: "Originality") -> tuple[str, ...]:
    longest = judged.longest.length if judged.longest else 0
    shares = (f"{share:.2%}" for share in judged.shares)
    return (f"{longest:,}", *shares, f"{judged.mean_match:.1f}")


def _describe_blocks(people: "HumanBaseline") -> Row:
    assert people.blocks
    blocks = people.blocks
    mean, low, high = blocks.longest
    least_share, least_low, least_high = blocks.shares[0]
    figures = (
        f"{mean:.1f} ({low:.0f} - {high:.0f})",
        f"{least_share:.2%} ({least_low:.0%} - {least_high:.0%})",
        *(f"{share:.2%}" for share, _, _ in blocks.shares[1:]),
        "",
    )
    return f"people, in blocks of {pluralize(blocks.length, 'character')}", figures


def _list_novelty_columns() -> "tuple[Column[tuple[str, Originality]], ...]":
    def share(length: int) -> "Column[tuple[str, Originality]]":
        return Column(f"{length} characters", lambda row: f"{row[1].novelty[length - 1]:.1%}")

    return (Column("text", lambda row: row[0], wraps=True), *map(share, SHOWN_NGRAMS))


def _show_most_copied(judgement: "Judgement") -> None:
    """Show the text that copies most, with its copied spans marked, and where they are from."""
    from drakegpt.evaluation.originality import LENGTHS

    if not judgement.spans:
        console.show(f"\nNo run of {LENGTHS[0]} characters or more is copied.")
        return
    text = judgement.texts[judgement.most_copied]
    which = "The text" if len(judgement.texts) == 1 else "The text that copies most"
    marked_from = f"{which}, with copied runs of {LENGTHS[0]} or more marked:"
    console.show(console.styled(f"\n{marked_from}", "bold"))
    marked, reached = "", 0
    for copied in judgement.spans:
        start, end = max(copied.span.start, reached), copied.span.start + copied.span.length
        marked += text[reached:start] + MARKS[0] + text[start:end] + MARKS[1]
        reached = end
    console.show_text((marked + text[reached:]).strip("\n"))
    longest_first = sorted(judgement.spans, key=lambda copied: -copied.span.length)
    for copied in longest_first[:SHOWN_SPANS]:
        title = f", in {copied.title}" if copied.title else ""
        length = pluralize(copied.span.length, "character")
        phrase = ", which counting would write too" if copied.is_likely else ""
        shown = copied.span.cut(text)
        if len(shown) > MOST_SHOWN:
            shown = f"{shown[:MOST_SHOWN]}…"
        console.show(f"{length}{title}{phrase}: {shown!r}")
    if (left := len(longest_first) - SHOWN_SPANS) > 0:
        console.show(f"{pluralize(left, 'shorter run')} are in --json.")
    longest = judgement.all.longest
    if longest and longest.length > longest_first[0].span.length:
        in_another = longest.cut("".join(judgement.texts))[:MOST_SHOWN]
        console.show(f"{pluralize(longest.length, 'character')}, in another text: {in_another!r}")


_COLUMNS: tuple[Column[Row], ...] = (
    Column("text", lambda row: row[0], wraps=True),
    Column("longest", lambda row: row[1][0]),
    Column("from 20", lambda row: row[1][1]),
    Column("from 30", lambda row: row[1][2], 1),
    Column("from 50", lambda row: row[1][3], 2),
    Column("mean match", lambda row: row[1][4], 3),
)
