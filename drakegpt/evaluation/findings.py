"""What a comparison comes to, in sentences: computed from its rows, never written beforehand.

Not here: the original's claims (`claims`).
"""

from collections.abc import Sequence
from itertools import pairwise

from drakegpt.config import IDEAS
from drakegpt.evaluation.comparison import PAIRS, Comparison
from drakegpt.evaluation.rows import Row
from drakegpt.evaluation.words import from_to


def findings(comparison: Comparison) -> list[str]:
    """The sentences, most telling first."""
    return [
        _best(comparison),
        *(_descent(of_size) for of_size in _sizes(comparison) if len(of_size) > 1),
        *(_rise(row, before) for before, row in _rising(comparison)),
        *counting(comparison),
        *_overfitting(comparison),
        *_caveats(comparison),
    ]


def _best(comparison: Comparison) -> str:
    rows = [*comparison.rows, *comparison.others]
    best = min(rows, key=lambda row: row.bits_per_character)
    choices = 2 ** min(best.bits_per_character, 64.0)  # as good as no end of them
    hard = f"as hard to guess as one of {choices:,.1f} equally likely ones"
    also = f" ({_nats(best.val_loss, best.val_spread)} per {best.unit})"
    return (
        f"{best.label} predicts best: it needs {best.bits_per_character:.3f} bits for a character "
        f"of the validation text{also}, so that each is {hard}."
    )


def _sizes(comparison: Comparison) -> list[list[Row]]:
    """The ladder's rows, those of a size together."""
    sizes = dict.fromkeys(row.size for row in comparison.rows)
    return [[row for row in comparison.rows if row.size == size] for size in sizes]


def _descent(rows: Sequence[Row]) -> str:
    """From the first rung to the last, and the largest step between neighbours."""
    first, last = rows[0], rows[-1]
    fall = first.val_loss - last.val_loss
    told = (
        f"From {first.label} to {last.label} the validation loss "
        f"{'falls' if fall > 0 else 'rises'} by {abs(fall):.3f} nats"
    )
    largest = max(rows, key=lambda row: row.val_gain or 0.0)
    if largest.val_gain is None or largest.val_gain <= 0:
        return f"{told}."
    idea = IDEAS[largest.model]
    return f"{told}; the largest step, {largest.val_gain:.3f}, is {largest.label}'s: {idea}."


def _rising(comparison: Comparison) -> list[tuple[Row, Row]]:
    """Neighbouring rungs of which the later one gains nothing."""
    neighbours = [pair for rows in _sizes(comparison) for pair in pairwise(rows)]
    return [(a, b) for a, b in neighbours if b.val_gain is not None and b.val_gain <= 0]


def _rise(row: Row, before: Row) -> str:
    rise = -(row.val_gain or 0.0)
    told = f"{row.label} gains nothing: it ends {rise:.3f} nats above {before.label}"
    spreads = [spread for spread in (row.val_spread, before.val_spread) if spread is not None]
    if len(spreads) == 2 and rise <= sum(spreads):
        told += ", no more than seeds differ by"
    return f"{told}."


def counting(comparison: Comparison) -> list[str]:
    """Where counting stands and what it keeps for that, and which rows are beyond it."""
    lowest = comparison.lowest_floor
    if lowest is None:
        return []
    what = f"n-grams of up to {lowest.order} {lowest.unit}" if lowest.order > 1 else lowest.unit
    told = [
        f"Counting alone reaches {lowest.score.bits_per_character:.3f} bits per character, with "
        f"the counts of {lowest.ngrams:,} different {what}.",
        _beyond_counting(comparison),
    ]
    if any(floor.order == PAIRS for floor in comparison.floors):
        beyond = [row.label for row in comparison.beyond_pairs]
        told.append(
            f"{_of_all(beyond, len(comparison.rows) + len(comparison.others))} learnt more than "
            f"counting pairs: {listed(beyond) or 'none'}."
        )
    return told


def _beyond_counting(comparison: Comparison) -> str:
    """Who does better than the best counts and who does not, and what each has for it."""
    every = (*comparison.rows, *comparison.others)
    beyond = comparison.beyond_counting
    behind = [row for row in every if row not in beyond]
    told = []
    for rows, one, many in (
        (beyond, "does better than that", "do better than that"),
        (behind, "stays behind that", "stay behind that"),
    ):
        if rows:
            everyone = len(rows) == len(every) > 2
            who = f"All {len(rows)} models" if everyone else listed([row.label for row in rows])
            parameters = from_to(sorted(row.parameters for row in rows))
            told.append(f"{who} {one if len(rows) == 1 else many}, with {parameters} parameters")
    return f"{'; '.join(told)}."


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
    told = []
    lengths = sorted({row.iterations for row in comparison.rows if row.iterations})
    if len(lengths) > 1:
        told.append(
            f"These models were trained for different lengths, {lengths[0]:,} to "
            f"{lengths[-1]:,} iterations, so their differences are not those of the ideas alone."
        )
    every = (*comparison.rows, *comparison.others)
    if all(len(row.runs) == 1 for row in every) and len(comparison.rows) > 1:
        told.append(
            "Each row is a single seed, and another would move it a little; "
            f"{_commands(comparison)}, with the settings that these have, says by how much."
        )
    return told


def _commands(comparison: Comparison) -> str:
    """What trains more seeds: a command for each size there is."""
    command = f"drakegpt compare --train --seeds 3 --data {comparison.data}"
    flags = {row.size: " --scaled" if row.size == "scaled" else "" for row in comparison.rows}
    return " or ".join(f"`{command}{flag}`" for flag in flags.values())


def listed(names: Sequence[str]) -> str:
    """Names as people list them: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _nats(loss: float, spread: float | None) -> str:
    return f"{loss:.4f} nats" if spread is None else f"{loss:.4f} ± {spread:.4f} nats"
