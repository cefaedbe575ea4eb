"""A limit for copying: no more than N characters of the training text in a row.

Before a token is sampled, those are forbidden that would complete a longer run: the last
characters of the text are searched in the suffix array of the training text, and what follows
them there is what must not be written. A run counts in characters, and together with the prompt.

Not here: how tokens are sampled (`sampling`), and how copies are counted
(`evaluation.originality`).
"""

import codecs
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch

from drakegpt.data.suffix_array import SuffixArray
from drakegpt.data.tokenizers.base import Tokenizer

PROBE = 12  # characters at the end of a text: where the source has not these, it is far from a copy
KEPT = 1000  # characters of a text that are looked at, at most, beside those of the limit
LONGEST_CHARACTER = 4  # bytes of UTF-8


class CopyLimit:
    """The rule: at most `longest` characters in a row that stand in `source`."""

    def __init__(self, source: SuffixArray, tokenizer: Tokenizer, longest: int) -> None:
        self.longest = longest
        self.exceeded = 0  # tokens for which every choice would have made a longer run
        self._source, self._tokenizer = source, tokenizer
        self._continuations: dict[bytes, _Continuations] = {}
        self._known: dict[tuple[bytes, int], tuple[str, bytes]] = {}
        sizes = [len(self.read(b"", token)[0]) for token in range(tokenizer.vocab_size)]
        # Characters that one token can complete; parts of one may wait for it.
        self._longest_token = max(sizes) + (tokenizer.unit != "character")

    @property
    def vocab_size(self) -> int:
        """The number of tokens, V."""
        return self._tokenizer.vocab_size

    def watch(self, prompt: Sequence[int], texts: int, device: torch.device) -> "WatchedTexts":
        """Watch texts that all begin with a prompt."""
        return WatchedTexts(self, prompt, texts, device)

    def read(self, pending: bytes, token: int) -> tuple[str, bytes]:
        """Return the characters that a token completes, and the bytes after the last of them."""
        if (known := self._known.get((pending, token))) is None:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            text = decoder.decode(pending + self._tokenizer.to_bytes([token]))
            known = self._known[pending, token] = text, decoder.getstate()[0]
        return known

    def count_free(self, text: str) -> int:
        """Count tokens that may follow a text whatever they are; the search is for the others.

        Each run that is too long and ends soon holds the last characters of the text: if those
        stand nowhere in the source, it stands there neither.
        """
        size = min(PROBE, self.longest)
        if len(text) < size or self._source.holds(text[-size:].encode()):
            return 0
        return (self.longest + 1 - size) // self._longest_token

    def forbid(self, text: str, pending: bytes) -> list[int]:
        """List the tokens that must not follow a text, whose last character may be incomplete.

        If no token were left, those stay whose run is the shortest.
        """
        if pending not in self._continuations:
            pieces = [self.read(pending, token)[0] for token in range(self.vocab_size)]
            self._continuations[pending] = _Continuations(pieces)
        continuations, longest = self._continuations[pending], self.longest
        while len(forbidden := self._find(text, continuations, longest)) == len(continuations):
            longest += 1
        self.exceeded += longest > self.longest
        return sorted(forbidden)

    def _find(self, text: str, continuations: "_Continuations", longest: int) -> set[int]:
        """Find the tokens after which more than `longest` characters in a row stand in the source.

        A run that is too long ends at some character of the token, and `longest + 1` before.
        """
        forbidden = continuations.find_copies(self._source, longest)
        for number in range(min(len(continuations.tokens), longest), 0, -1):
            needed = longest + 1 - number
            if len(text) < needed:
                break
            before = text[len(text) - needed :]
            # The runs of smaller numbers begin with more of the text: they cannot stand there.
            low, high = self._source.find(before.encode())
            if low == high:
                break
            pieces = continuations.tokens[number - 1]
            if high - low > len(pieces):  # fewer to try than there are places to look at
                found = [each for each in pieces if self._source.holds((before + each).encode())]
            else:
                found = list(self._list_next(before.encode(), low, high, number))
            for piece in found:
                forbidden.update(pieces.get(piece, ()))
        return forbidden

    def _list_next(self, before: bytes, low: int, high: int, number: int) -> Iterator[str]:
        """Yield each text of `number` characters that follows `before` in the source."""
        while low < high:
            after = self._source.cut(low, len(before), LONGEST_CHARACTER * number)
            piece = after.decode("utf-8", "ignore")[:number]
            if len(piece) == number and after.startswith(piece.encode()):
                yield piece
                low = self._source.find_end(before + piece.encode(), low, high)
            else:  # the source ends there, or that is inside a character
                low += 1


class _Continuations:
    """What each token would add to a text."""

    def __init__(self, pieces: Sequence[str]) -> None:
        """`pieces`: for each token, the characters that it completes."""
        self._pieces = pieces
        # For n = 1, 2, ...: the first n characters of a token, and all tokens that begin with them.
        self.tokens: list[dict[str, list[int]]] = [
            defaultdict(list) for _ in range(max(map(len, pieces)))
        ]
        for token, piece in enumerate(pieces):
            for number in range(len(piece)):
                self.tokens[number][piece[: number + 1]].append(token)
        self._copies: dict[int, set[int]] = {}

    def __len__(self) -> int:
        return len(self._pieces)

    def find_copies(self, source: SuffixArray, longest: int) -> set[int]:
        """Find the tokens that alone hold more than `longest` characters of the source."""
        if longest not in self._copies:
            size = longest + 1
            self._copies[longest] = {
                token
                for token, piece in enumerate(self._pieces)
                for start in range(len(piece) - size + 1)
                if source.holds(piece[start : start + size].encode())
            }
        return set(self._copies[longest])


class WatchedTexts:
    """Texts that grow by a token each, and what must not come next in them.

    `mask`, (B, V), is added to the logits; it changes in place, so that a step can be recorded.
    """

    def __init__(
        self, limit: CopyLimit, prompt: Sequence[int], texts: int, device: torch.device
    ) -> None:
        self._limit = limit
        self._texts, self._pending = [""] * texts, [b""] * texts
        self._free = [0] * texts  # tokens that may follow whatever they are
        self._masked = [False] * texts
        self.mask = torch.zeros(texts, limit.vocab_size, device=device)
        for token in prompt:
            self._read([token] * texts)
        self._set_mask()

    def add(self, rows: Sequence[Sequence[int]]) -> int:
        """Add the next tokens of each text, in rows of one for each.

        Returns how many may be sampled before they must be added, at least one.
        """
        for tokens in rows:
            self._read(tokens)
        self._free = [free - len(rows) for free in self._free]
        self._set_mask()
        return max(1, min(self._free))

    def _read(self, tokens: Sequence[int]) -> None:
        for index, token in enumerate(tokens):
            piece, self._pending[index] = self._limit.read(self._pending[index], token)
            self._texts[index] = (self._texts[index] + piece)[-KEPT - self._limit.longest :]

    def _set_mask(self) -> None:
        for index, (text, pending) in enumerate(zip(self._texts, self._pending, strict=True)):
            if self._free[index] <= 0:
                self._free[index] = self._limit.count_free(text)
            forbidden = [] if self._free[index] else self._limit.forbid(text, pending)
            if self._masked[index]:
                self.mask[index] = 0
            if forbidden:
                self.mask[index, forbidden] = -torch.inf
            self._masked[index] = bool(forbidden)
