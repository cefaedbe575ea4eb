"""How surprised a model is by each piece of a verse that it was not trained on, in bits.

The surprise of a token is -log2 p, where p is the probability that the model
gave it: 0 bits for what was certain, 1 for the toss of a coin, log2 V where the
model knows nothing. Each token is predicted from the T tokens right before it,
as when the model writes, so no place in the verse is worse off than another; a
loss over windows side by side (`scoring`) is a little higher for that reason.

Not here: how a verse is coloured (`report`).
"""

import codecs
import math
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from drakegpt.data.dataset import Dataset
from drakegpt.data.overlap import SHORTEST_LINE, find_shared_lines
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import tokens_at_once

SHORTEST, LONGEST = 120, 400  # characters of a verse
LOOKED_AT = 20_000  # tokens of the validation split in which a verse is looked for
BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")


@dataclass(frozen=True)
class Verse:
    """A piece of the validation split."""

    text: str
    before: str  # all of the split that comes before it
    new: bool = True  # not in lines that the training split has too


@dataclass(frozen=True)
class Piece:
    """One character of a verse, or those that a token stands for, and its surprise in bits."""

    text: str
    bits: float

    @property
    def bits_per_character(self) -> float:
        """So that long tokens and single characters can be held side by side."""
        return self.bits / len(self.text)


def find_verse(data: Dataset) -> Verse:
    """The first stanza of the validation split that is new and long enough, cut at a line's end.

    New is what does not stand in the training split, line by line. Where no stanza
    has `SHORTEST` characters, whatever follows the first blank line, else the first
    line feed, else the beginning, up to `LONGEST` characters. Where none of this is
    new, new lines that follow each other; else the first of it, and `new` is false.
    The same dataset has the same verse.
    """
    text = data.text("val", LOOKED_AT)
    known = find_shared_lines(text, data.iter_text("train"))
    usual = [*_stanzas(text), _anything(text)]
    for start, stop in [*usual, *_new_lines(text, known)]:
        verse = Verse(_cut(text[start:stop]), text[:start])
        if _is_new(text, verse, known):
            return verse
    start, stop = usual[0]
    return Verse(_cut(text[start:stop]), text[:start], new=False)


def _stanzas(text: str) -> list[tuple[int, int]]:
    """Where the stanzas begin and end that are long enough."""
    breaks = list(BLANK_LINE.finditer(text))
    stops = [*(match.start() for match in breaks[1:]), len(text)]
    both = [(match.end(), stop) for match, stop in zip(breaks, stops, strict=False)]
    return [(start, stop) for start, stop in both if len(text[start:stop].rstrip()) >= SHORTEST]


def _anything(text: str) -> tuple[int, int]:
    """Where something long enough begins, if anything is, and the end of the text."""
    first = BLANK_LINE.search(text)
    starts = [*([first.end()] if first else []), text.find("\n") + 1, 0]
    start = next(s for s in starts if len(text[s:].rstrip()) >= SHORTEST or s == starts[-1])
    return start, len(text)


def _new_lines(text: str, known: Set[str]) -> list[tuple[int, int]]:
    """Where neighbouring lines begin and end that are new, together long enough."""
    found, start, place = [], 0, 0
    for line in (*text.split("\n"), None):
        if line is None or line in known:
            if len(text[start:place].strip()) >= SHORTEST:
                found.append((start, place))
            start = place + len(line or "") + 1
        place += len(line or "") + 1
    return found


def _is_new(text: str, verse: Verse, known: Set[str]) -> bool:
    """Whether no long line of a verse is known, and most of its characters are in new ones."""
    start = len(verse.before)
    stop = text.find("\n", start + len(verse.text))
    lines = text[start : stop if stop >= 0 else len(text)].split("\n")
    new = sum(len(line) for line in lines if line not in known)
    long = [line for line in lines if len(line) >= SHORTEST_LINE]
    return known.isdisjoint(long) and 2 * new >= sum(map(len, lines))


def _cut(text: str) -> str:
    """The beginning of a text, to a line's end if one comes late enough, else to a word's."""
    text = text.rstrip() or text
    if len(text) <= LONGEST:
        return text
    ends = (text.rfind(end, SHORTEST, LONGEST + 1) for end in ("\n", " "))
    return text[: next((end for end in ends if end > 0), LONGEST)].rstrip() or text[:LONGEST]


def verse_surprisals(model: LanguageModel, data: Dataset, verse: Verse) -> tuple[Piece, ...]:
    """The verse in pieces as the tokens of `data` cut it, each with its surprise.

    `data` is the dataset that the model was trained on, which may read the text in
    tokens of its own; put together, the pieces are the verse.
    """
    # Each token stands for one byte at least, so these reach to the verse's end.
    length = len((verse.before + verse.text).encode("utf-8", "surrogatepass"))
    tokens = data.split("val")[:length]
    first, last = _places(tokens, data.tokenizer, verse)
    history = torch.cat([data.split("train")[-model.config.context_length :], tokens[:last]])
    bits = token_surprisals(model, history, last - first)
    texts = _texts(tokens[first:last].tolist(), bits.tolist(), data.tokenizer)
    begun = data.tokenizer.to_bytes(tokens[:first].tolist())
    skipped = verse.before.encode("utf-8", "surrogatepass")[len(begun) :].decode("utf-8", "replace")
    return tuple(_pieces(texts, len(skipped), len(verse.text)))


@torch.no_grad()
def token_surprisals(model: LanguageModel, tokens: Tensor, count: int) -> Tensor:
    """The bits of the last `count` of a text's tokens, (N,) -> (count,), on the CPU.

    Each is predicted from the T tokens right before it, or from all there are
    where these are fewer; the first token has none, so `count` < N. The model is
    ready to evaluate (dropout off).
    """
    T = model.config.context_length
    device = next(model.parameters()).device
    text = tokens[max(0, len(tokens) - count - T) :].long().to(device)
    # Of the first window all places are of use, each of them sees all that is before it; of
    # those that follow, each one token further on, the last.
    guesses = [model(text[None, : min(T, len(text) - 1)])[0]]
    windows = text[1:-1].unfold(0, T, 1) if len(text) > T + 1 else text.new_zeros(0, T)
    at_once = max(1, tokens_at_once(device, model.config) // T)
    guesses += [model(some)[:, -1] for some in windows.split(at_once) if len(some)]
    chances = torch.cat(guesses)[-count:].cpu().double().log_softmax(-1)
    return -chances.gather(1, text[-count:, None].cpu())[:, 0] / math.log(2)


def _places(tokens: Tensor, tokenizer: Tokenizer, verse: Verse) -> tuple[int, int]:
    """The first token with a part of the verse, and the one after the last."""
    lengths = torch.tensor([len(tokenizer.to_bytes([token])) for token in tokens.tolist()])
    ends = lengths.cumsum(0)
    start = len(verse.before.encode("utf-8", "surrogatepass"))
    stop = start + len(verse.text.encode("utf-8", "surrogatepass"))
    return int((ends <= start).sum()), int((ends < stop).sum()) + 1


def _pieces(texts: Iterable[tuple[str, float]], skipped: int, length: int) -> Iterator[Piece]:
    """The characters after those `skipped`, as many as `length`, in pieces as they come."""
    for text, bits in texts:
        inside = text[skipped:][:length]
        skipped, length = max(0, skipped - len(text)), length - len(inside)
        if inside:
            yield Piece(inside, bits)


def _texts(
    tokens: Sequence[int], bits: Sequence[float], tokenizer: Tokenizer
) -> Iterator[tuple[str, float]]:
    """The tokens as text with their bits, one by one, but together where they share a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, held = "", 0.0
    for token, own in zip(tokens, bits, strict=True):
        text += decoder.decode(tokenizer.to_bytes([token]))
        held += own
        if text and not decoder.getstate()[0]:
            yield text, held
            text, held = "", 0.0
    if text := text + decoder.decode(b"", final=True):
        yield text, held
