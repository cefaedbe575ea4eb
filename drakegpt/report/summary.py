"""The summary of a comparison, in sentences computed from its rows.

A difference within noise is reported as neither gain nor loss. Rows that were trained
with other settings, or whose losses are not finite, are excluded from all verdicts.

Not here: the original's claims (`experiments.claims`).
"""

from collections.abc import Sequence
from itertools import pairwise

from drakegpt.experiments.agreement import ORIGIN
from drakegpt.experiments.formatting import format_range, format_with_spread
from drakegpt.experiments.ladder import Comparison
from drakegpt.experiments.results import ResultRow, compare_losses, find_lowest, val_loss
from drakegpt.models.registry import MODELS
from drakegpt.wording import format_command


def summarize(comparison: Comparison) -> list[str]:
    """Summarize a comparison: sentences, the most important first."""
    sizes = _group_by_size(comparison)
    return [
        *_describe_best(comparison),
        *(_describe_ladder(of_size) for of_size in sizes if len(of_size) > 1),
        *(_describe_no_gain(row, before) for before, row in _find_without_gain(sizes)),
        *describe_baselines(comparison),
        *_describe_overfitting(comparison),
        *_list_caveats(comparison),
    ]


def _describe_best(comparison: Comparison) -> list[str]:
    """Name the row with the lowest loss, and those within noise of it."""
    rows = [*comparison.rows, *comparison.others]
    near_lowest = find_lowest(rows)
    if not near_lowest:
        return []
    best, *tied = near_lowest
    excluded = [row.label for row in rows if row.differs]
    among = f"Excluding {join_names(excluded)} (other settings), " if excluded else ""
    near = f" (within noise of it: {join_names([row.label for row in tied])})" if tied else ""
    choices = 2 ** min(best.bits_per_character, 64.0)  # more would overflow, and say no more
    nats = f"{format_with_spread(best.val_loss, best.val_spread)} nats per {best.unit}"
    return [
        f"{among}{best.label} has the lowest validation loss{near}: "
        f"{best.bits_per_character:.3f} bits per character ({nats}), as hard as guessing among "
        f"{choices:,.1f} equally likely characters."
    ]


def _group_by_size(comparison: Comparison) -> list[list[ResultRow]]:
    """Group the ladder's comparable rows by size."""
    rows = [row for row in comparison.rows if row.comparable]
    return [
        [row for row in rows if row.size == size] for size in dict.fromkeys(r.size for r in rows)
    ]


def _describe_ladder(rows: Sequence[ResultRow]) -> str:
    """Describe the change from the first rung to the last, and the largest single gain."""
    first, last = rows[0], rows[-1]
    whole = compare_losses(first, last, val_loss)
    verb = "falls" if whole.lower else "rises"
    change = (
        "stays level"
        if whole.within_noise
        else f"{verb} by {_in_bits(first, last)} ({whole.amount} nats)"
    )
    sentence = f"From {first.label} to {last.label} the validation loss {change}{whole.remarks}"
    gains = [
        (row.gain.decrease, before, row)
        for before, row in pairwise(rows)
        if row.gain and row.gain.lower
    ]
    if not gains:
        return f"{sentence}."
    step, before, largest = max(gains, key=lambda gain: gain[0])
    idea = MODELS[largest.model].idea
    gain = f"{_in_bits(before, largest)} ({step:.3f} nats)"
    return f"{sentence}; the largest gain, {gain}, is {largest.label}'s: {idea}."


def _in_bits(one: ResultRow, other: ResultRow) -> str:
    """Return the difference of two losses in bits per character."""
    return f"{abs(one.bits_per_character - other.bits_per_character):.2f} bits"


def _find_without_gain(sizes: Sequence[Sequence[ResultRow]]) -> list[tuple[ResultRow, ResultRow]]:
    """Find neighbouring rungs of which the later one has no gain."""
    neighbours = [pair for rows in sizes for pair in pairwise(rows)]
    return [(before, row) for before, row in neighbours if row.gain and not row.gain.lower]


def _describe_no_gain(row: ResultRow, before: ResultRow) -> str:
    assert row.gain is not None
    neither = "neither gains nor loses" if row.gain.within_noise else "gains nothing"
    where = row.gain.where("below", "above", "level with")
    return f"{row.label} {neither}: it ends {where} {before.label}{row.gain.remarks}."


def describe_baselines(comparison: Comparison) -> list[str]:
    """Describe the best n-gram baseline, its size, and which rows are better than it."""
    lowest = comparison.lowest_baseline
    if lowest is None:
        return []
    what = f"sequences of up to {lowest.order} {lowest.unit}" if lowest.order > 1 else lowest.unit
    sentences = [
        f"The best n-gram baseline reaches {lowest.score.bits_per_character:.3f} bits per "
        f"character, with counts of {lowest.ngrams:,} different {what}.",
        *_rank_against_best_baseline(comparison),
    ]
    if comparison.bigram_baseline:
        better = [row.label for row in comparison.rank_against(comparison.bigram_baseline)[0]]
        count = len(comparison.rows) + len(comparison.others)
        sentences.append(
            f"Better than the bigram baseline: {join_names(better) or 'none'} "
            f"({len(better)} of {count})."
        )
    return sentences


def _rank_against_best_baseline(comparison: Comparison) -> list[str]:
    """Name the rows better than the best baseline, level with it and worse, with their sizes."""
    groups = comparison.rank_against(comparison.lowest_baseline)
    count = sum(map(len, groups))
    parts = []
    for rows, rank in zip(
        groups, ("better than it", "within noise of it", "worse than it"), strict=True
    ):
        if rows:
            are_all = len(rows) == count > 2
            names = (
                f"All {len(rows)} models" if are_all else join_names([row.label for row in rows])
            )
            verb = "is" if len(rows) == 1 else "are"
            parameters = format_range(sorted(row.parameters for row in rows))
            parts.append(f"{names} {verb} {rank}, with {parameters} parameters")
    return [f"{'; '.join(parts)}."] if parts else []


def _describe_overfitting(comparison: Comparison) -> list[str]:
    rows = (*comparison.rows, *comparison.others)
    return [
        f"{row.label} overfits: from about iteration {row.overfits_from:,} on, its validation "
        "loss rises while its training loss does not."
        for row in rows
        if row.overfits_from is not None
    ]


def _list_caveats(comparison: Comparison) -> list[str]:
    """List what limits the comparison: other settings, NaN losses, lengths, single seeds."""
    every = (*comparison.rows, *comparison.others)
    caveats = [row.settings_note for row in comparison.rows if row.differs]
    caveats += [
        f"{row.label} has a loss that is not finite, so it is excluded from all verdicts."
        for row in every
        if not (row.differs or row.comparable)
    ]
    compared = [row for row in comparison.rows if row.comparable]
    lengths = sorted({row.iterations for row in compared if row.iterations})
    if len(lengths) > 1:
        caveats.append(
            f"These models were trained for different lengths, {lengths[0]:,} to "
            f"{lengths[-1]:,} iterations, so their differences are not due to the ideas alone."
        )
    single = [row.label for row in every if len(row.runs) == 1]
    if 0 < len(single) < len(every):
        caveats.append(f"Single seed, compared with means over several: {join_names(single)}.")
    elif single and len(comparison.rows) > 1:
        caveats.append(
            "Each row is a single seed; "
            f"{_commands_for_more_seeds(comparison)} measures the variation between seeds."
        )
    return caveats


def _commands_for_more_seeds(comparison: Comparison) -> str:
    """Return the command that trains more seeds with the rows' settings, one for each size."""
    commands = {}
    for row in comparison.rows:
        if not row.differs:
            flags = [f"{name}={value}" for name, value in row.shared if name != ORIGIN]
            scaled = row.size == "scaled"
            asked = {"train": True, "seeds": 3, "data": comparison.data, "scaled": scaled}
            commands[row.size] = f"`{format_command('compare', **asked, set_=flags)}`"
    return " or ".join(commands.values())


def join_names(names: Sequence[str]) -> str:
    """Join names for a sentence: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
