"""What a comparison comes to, in sentences: computed from its rows, never written beforehand.

What lies within noise is told as neither gain nor loss; of rows that were trained
otherwise than the others, or whose losses are not finite, no verdict is told.

Not here: the original's claims (`claims`).
"""

from collections.abc import Sequence
from itertools import pairwise

from drakegpt.config import IDEAS
from drakegpt.experiments.agreement import TRAINED_BY
from drakegpt.experiments.formatting import format_range
from drakegpt.experiments.ladder import Comparison
from drakegpt.experiments.results import ResultRow, loss_decrease, lowest, val_loss
from drakegpt.wording import format_command


def summarize(comparison: Comparison) -> list[str]:
    """The sentences, most telling first."""
    sizes = _sizes(comparison)
    return [
        *_best(comparison),
        *(_descent(of_size) for of_size in sizes if len(of_size) > 1),
        *(_no_gain(row, before) for before, row in _without_gain(sizes)),
        *counting(comparison),
        *_overfitting(comparison),
        *_caveats(comparison),
    ]


def _best(comparison: Comparison) -> list[str]:
    rows = [*comparison.rows, *comparison.others]
    near_lowest = lowest(rows)
    if not near_lowest:
        return []
    best, *level = near_lowest
    apart = [row.label for row in rows if row.differs]
    among = f"Apart from {listed(apart)}, trained otherwise, " if apart else ""
    near = f" (within noise of it: {listed([row.label for row in level])})" if level else ""
    choices = 2 ** min(best.bits_per_character, 64.0)  # as good as no end of them
    hard = f"as hard to guess as one of {choices:,.1f} equally likely ones"
    also = f" ({_nats(best.val_loss, best.val_spread)} per {best.unit})"
    return [
        f"{among}{best.label} predicts best{near}: it needs {best.bits_per_character:.3f} bits for "
        f"a character of the validation text{also}, so that each is {hard}."
    ]


def _sizes(comparison: Comparison) -> list[list[ResultRow]]:
    """The ladder's rows that can be compared, those of a size together."""
    rows = [row for row in comparison.rows if row.comparable]
    return [
        [row for row in rows if row.size == size] for size in dict.fromkeys(r.size for r in rows)
    ]


def _descent(rows: Sequence[ResultRow]) -> str:
    """From the first rung to the last, and the largest step between neighbours."""
    first, last = rows[0], rows[-1]
    whole = loss_decrease(first, last, val_loss)
    moves = "falls" if whole.lower else "rises"
    moved = "stays level" if whole.within_noise else f"{moves} by {whole.amount} nats"
    told = f"From {first.label} to {last.label} the validation loss {moved}{whole.grounds}"
    gains = [(row.gain.fall, row) for row in rows if row.gain and row.gain.lower]
    if not gains:
        return f"{told}."
    step, largest = max(gains, key=lambda gain: gain[0])
    idea = IDEAS[largest.model]
    return f"{told}; the largest step, {step:.3f}, is {largest.label}'s: {idea}."


def _without_gain(sizes: Sequence[Sequence[ResultRow]]) -> list[tuple[ResultRow, ResultRow]]:
    """Neighbouring rungs of which the later one gains nothing."""
    neighbours = [pair for rows in sizes for pair in pairwise(rows)]
    return [(before, row) for before, row in neighbours if row.gain and not row.gain.lower]


def _no_gain(row: ResultRow, before: ResultRow) -> str:
    assert row.gain is not None
    neither = "neither gains nor loses" if row.gain.within_noise else "gains nothing"
    where = row.gain.where("below", "above", "level with")
    return f"{row.label} {neither}: it ends {where} {before.label}{row.gain.grounds}."


def counting(comparison: Comparison) -> list[str]:
    """Where counting stands and what it keeps for that, and which rows are beyond it."""
    lowest = comparison.lowest_baseline
    if lowest is None:
        return []
    what = f"n-grams of up to {lowest.order} {lowest.unit}" if lowest.order > 1 else lowest.unit
    told = [
        f"Counting alone reaches {lowest.score.bits_per_character:.3f} bits per character, with "
        f"the counts of {lowest.ngrams:,} different {what}.",
        *_beyond_counting(comparison),
    ]
    if comparison.pairs:
        beyond = [row.label for row in comparison.beside(comparison.pairs)[0]]
        told.append(
            f"{_of_all(beyond, len(comparison.rows) + len(comparison.others))} learnt more than "
            f"counting pairs: {listed(beyond) or 'none'}."
        )
    return told


def _beyond_counting(comparison: Comparison) -> list[str]:
    """Who does better than the best counts and who does not, and what each has for it."""
    groups = comparison.beside(comparison.lowest_baseline)
    count = sum(map(len, groups))
    told = []
    for rows, one, many in zip(
        groups,
        ("does better than that", "ends level with that", "stays behind that"),
        ("do better than that", "end level with that", "stay behind that"),
        strict=True,
    ):
        if rows:
            everyone = len(rows) == count > 2
            who = f"All {len(rows)} models" if everyone else listed([row.label for row in rows])
            parameters = format_range(sorted(row.parameters for row in rows))
            told.append(f"{who} {one if len(rows) == 1 else many}, with {parameters} parameters")
    return [f"{'; '.join(told)}."] if told else []


def _of_all(some: Sequence[str], count: int) -> str:
    return f"{len(some)} of {count} {'has' if len(some) == 1 else 'have'}"


def _overfitting(comparison: Comparison) -> list[str]:
    rows = (*comparison.rows, *comparison.others)
    return [
        f"{row.label} overfits: from about iteration {row.overfits_from:,} on, its validation "
        "loss rises while its training loss still falls."
        for row in rows
        if row.overfits_from is not None
    ]


def _caveats(comparison: Comparison) -> list[str]:
    """What keeps these rows from saying more."""
    every = (*comparison.rows, *comparison.others)
    told = [row.set_apart for row in comparison.rows if row.differs]
    told += [
        f"{row.label} has a loss that is not finite, so it is in no verdict."
        for row in every
        if not (row.differs or row.comparable)
    ]
    compared = [row for row in comparison.rows if row.comparable]
    lengths = sorted({row.iterations for row in compared if row.iterations})
    if len(lengths) > 1:
        told.append(
            f"These models were trained for different lengths, {lengths[0]:,} to "
            f"{lengths[-1]:,} iterations, so their differences are not those of the ideas alone."
        )
    single = [row.label for row in every if len(row.runs) == 1]
    if 0 < len(single) < len(every):
        told.append(f"Of one seed, beside means of several: {listed(single)}.")
    elif single and len(comparison.rows) > 1:
        told.append(
            "Each row is a single seed, and another would move it a little; "
            f"{_commands(comparison)} says by how much."
        )
    return told


def _commands(comparison: Comparison) -> str:
    """What trains more seeds with the settings that these have: a command for each size."""
    commands = {}
    for row in comparison.rows:
        if not row.differs:
            flags = [f"{name}={value}" for name, value in row.shared if name != TRAINED_BY]
            scaled = row.size == "scaled"
            asked = {"train": True, "seeds": 3, "data": comparison.data, "scaled": scaled}
            commands[row.size] = f"`{format_command('compare', **asked, set_=flags)}`"
    return " or ".join(commands.values())


def listed(names: Sequence[str]) -> str:
    """Names as people list them: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _nats(loss: float, spread: float | None) -> str:
    return f"{loss:.4f} nats" if spread is None else f"{loss:.4f} ± {spread:.4f} nats"
