"""The n-gram counts of a training split, packed for the page.

Only the n-grams of the highest order are stored, exactly. All shorter ones follow from them:
an n-gram without its last token is one of the next lower order, as often as all that begin
with it together; only those at the end of the text, its last n - 1 tokens, are followed by
nothing, so these tokens are stored too.

The n-grams are numbers, as in `data.ngrams`, in increasing order. Each is stored as twice its
distance from the one before it, plus 1 if it occurs more than once; its count less 2 follows
then. These numbers are LEB128 varints: seven bits a byte, the lowest first, and the eighth bit
says that more follow.

Not here: counting (`data.ngrams`), and the estimate, which the page computes itself
(`engine/ngrams.js`).
"""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from drakegpt.data.dataset import Dataset
from drakegpt.data.ngrams import IntArray, count_ngrams
from drakegpt.data.tokenizers.base import Tokens
from drakegpt.evaluation.baseline import HIGHEST_ORDER

LIMIT = 150_000  # characters of base64
EXACT_BITS = 53  # JavaScript's numbers hold integers below 2^53 exactly


@dataclass(frozen=True)
class PackedCounts:
    """The n-grams of one order in a text, from which those of all lower orders follow."""

    vocab_size: int  # V
    order: int  # n
    ngrams: int  # number of different n-grams of that order
    grams: str  # these and their counts, in base64
    tail: tuple[int, ...]  # the last n - 1 tokens of the text, or all if it is shorter

    def to_json(self) -> dict[str, Any]:
        """Return what `unpackCounts` in `engine/ngrams.js` reads."""
        return {
            "vocab_size": self.vocab_size,
            "order": self.order,
            "ngrams": self.ngrams,
            "grams": self.grams,
            "tail": list(self.tail),
        }


def pack_counts(data: Dataset, context_length: int, limit: int = LIMIT) -> PackedCounts | None:
    """Pack the counts of a dataset's training split, for models that see `context_length` tokens.

    `limit`: the most characters of base64. Returns `None` if not even order 1 fits it.
    Raises `DamagedDatasetError`.
    """
    order = min(HIGHEST_ORDER, context_length + 1)
    return pack_tokens(data.map_split("train"), data.tokenizer.vocab_size, order, limit)


def pack_tokens(
    tokens: Tokens, vocab_size: int, highest_order: int, limit: int = LIMIT
) -> PackedCounts | None:
    """Pack the counts of a text, (N,), of the highest order that fits.

    It is at most `highest_order`, at most N, and its n-grams must be exact numbers in
    JavaScript, also when doubled. Returns `None` if there is none.
    """
    packed = None
    for order in range(1, min(highest_order, len(tokens)) + 1):
        if 2 * vocab_size**order >= 2**EXACT_BITS:
            break
        grams, counts = count_ngrams(tokens, vocab_size, order)
        text = base64.b64encode(_encode_varints(_interleave(grams, counts))).decode("ascii")
        if len(text) > limit:
            break  # longer n-grams are larger numbers, and there are no fewer of them
        tail = tuple(tokens[len(tokens) - order + 1 :].tolist())
        packed = PackedCounts(vocab_size, order, len(grams), text, tail)
    return packed


def _interleave(grams: IntArray, counts: IntArray) -> IntArray:
    """List the distances of sorted n-grams, each followed by its count where that is above 1."""
    repeated = counts > 1
    places = np.arange(len(grams)) + np.cumsum(repeated) - repeated
    numbers = np.empty(len(grams) + int(repeated.sum()), np.int64)
    numbers[places] = 2 * np.diff(grams, prepend=0) + repeated
    numbers[places[repeated] + 1] = counts[repeated] - 2
    return numbers


def _encode_varints(numbers: IntArray) -> bytes:
    """Encode numbers that are not negative, (N,), as LEB128 varints."""
    lengths = np.ones(len(numbers), np.int64)
    for bits in range(7, 63, 7):
        lengths += numbers >> bits > 0
    ends = np.cumsum(lengths)
    result = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for place in range(int(lengths.max(initial=0))):
        reaches = lengths > place
        more = lengths[reaches] > place + 1
        septet = (numbers[reaches] >> 7 * place) & 127
        result[(ends - lengths)[reaches] + place] = septet + 128 * more
    return result.tobytes()
