"""Interpolated modified Kneser-Ney as it is written down: dictionaries, fractions, recursion."""

from collections import Counter
from fractions import Fraction


class KneserNey:
    """The probabilities that a text gives any other, one at a time."""

    def __init__(self, train, vocab_size, order):
        self.vocab_size, self.order = vocab_size, order
        self._first = {n: Counter(_runs(train, n)) for n in range(1, order + 1)}
        # Of each run, how many different tokens stand before it.
        self._lower = {
            n: Counter(run[1:] for run in set(_runs(train, n + 1))) for n in range(1, order)
        }

    def probability(self, context, target):
        """Of `target` after all the known tokens, of which the last n - 1 are looked at."""
        context = tuple(context)[max(0, len(context) - (self.order - 1)) :]
        return self._at_level(self._first[len(context) + 1], context, target)

    def _at_level(self, counts, context, target):
        level = len(context) + 1
        lower = Fraction(1, self.vocab_size)
        if level > 1:
            lower = self._at_level(self._lower[level - 1], context[1:], target)
        after = {w: counts[(*context, w)] for w in range(self.vocab_size)}
        total = sum(after.values())
        if not total:
            return lower
        taken = discounts_of(counts.values())
        left = sum(taken[min(3, count)] for count in after.values())
        own = after[target] - taken[min(3, after[target])]
        return (own + left * lower) / total


def discounts_of(counts):
    """D of 0, 1, 2, and 3 or more."""
    n = Counter(counts)
    found = Fraction(1, 2), Fraction(1), Fraction(3, 2)
    if n[1] and n[2] and n[3]:
        y = Fraction(n[1], n[1] + 2 * n[2])
        one, two, three = (r - (r + 1) * y * Fraction(n[r + 1], n[r]) for r in (1, 2, 3))
        found = one, two, three if n[4] else Fraction(3, 2)
    return [Fraction(0), *(max(Fraction(1, 20), d) for d in found)]


def _runs(train, length):
    return [tuple(train[at : at + length]) for at in range(len(train) - length + 1)]
