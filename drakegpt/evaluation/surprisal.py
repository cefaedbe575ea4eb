"""Computes the surprisal, in bits, of each piece of a verse from the validation split.

The surprisal of a token is -log2 p, where p is the model's probability for it: 0 bits
for a certain token, log2 V for a uniform guess. Each token is predicted from the T tokens
before it, as in generation. Over consecutive windows (`scoring`) the loss is a little
higher, because the first tokens of a window have less context.

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
from drakegpt.data.metadata import SHORTEST_LINE
from drakegpt.data.overlap import find_shared_lines
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import choose_batch_tokens

MIN_LENGTH, MAX_LENGTH = 120, 400  # characters of a verse
SEARCHED = 20_000  # tokens of the validation split in which a verse is searched
BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")


@dataclass(frozen=True)
class Verse:
    """A piece of the validation split."""

    text: str
    before: str  # all text of the split before it
    new: bool = True  # whether its lines are not in the training split


@dataclass(frozen=True)
class Piece:
    """A character of a verse, or the characters of one token, and its surprisal in bits."""

    text: str
    bits: float

    @property
    def bits_per_character(self) -> float:
        """The surprisal by which long tokens and single characters can be compared."""
        return self.bits / len(self.text)


def find_verse(data: Dataset) -> Verse:
    """Find the first stanza of the validation split that is new and long enough.

    New means that its lines are not in the training split. If no stanza has `MIN_LENGTH`
    characters, the candidate is the text after the first blank line, or else after the
    first line feed, or else all of it. If no candidate is new, consecutive new lines are
    taken; if those are too short, the first candidate, and `new` is false. The verse is
    shortened to `MAX_LENGTH` characters. The same dataset gives the same verse.
    """
    text = data.text("val", SEARCHED)
    known = find_shared_lines(text, data.iter_text("train"))
    candidates = [*_find_stanzas(text), _find_fallback(text)]
    for start, stop in [*candidates, *_find_new_lines(text, known)]:
        verse = Verse(_shorten(text[start:stop]), text[:start])
        if _is_new(text, verse, known):
            return verse
    start, stop = candidates[0]
    return Verse(_shorten(text[start:stop]), text[:start], new=False)


def _find_stanzas(text: str) -> list[tuple[int, int]]:
    """Find where stanzas that are long enough begin and end."""
    breaks = list(BLANK_LINE.finditer(text))
    stops = [*(match.start() for match in breaks[1:]), len(text)]
    spans = [(match.end(), stop) for match, stop in zip(breaks, stops, strict=False)]
    return [(start, stop) for start, stop in spans if len(text[start:stop].rstrip()) >= MIN_LENGTH]


def _find_fallback(text: str) -> tuple[int, int]:
    """Return where the text that is taken if no stanza is long enough begins and ends."""
    first = BLANK_LINE.search(text)
    starts = [*([first.end()] if first else []), text.find("\n") + 1, 0]
    start = next(s for s in starts if len(text[s:].rstrip()) >= MIN_LENGTH or s == starts[-1])
    return start, len(text)


def _find_new_lines(text: str, known: Set[str]) -> list[tuple[int, int]]:
    """Find where consecutive new lines that are long enough together begin and end."""
    found, start, position = [], 0, 0
    for line in (*text.split("\n"), None):
        if line is None or line in known:
            if len(text[start:position].strip()) >= MIN_LENGTH:
                found.append((start, position))
            start = position + len(line or "") + 1
        position += len(line or "") + 1
    return found


def _is_new(text: str, verse: Verse, known: Set[str]) -> bool:
    """Whether no long line of a verse is known, and most of its characters are in new lines."""
    start = len(verse.before)
    stop = text.find("\n", start + len(verse.text))
    lines = text[start : stop if stop >= 0 else len(text)].split("\n")
    new = sum(len(line) for line in lines if line not in known)
    long = [line for line in lines if len(line) >= SHORTEST_LINE]
    return known.isdisjoint(long) and 2 * new >= sum(map(len, lines))


def _shorten(text: str) -> str:
    """Shorten a text to `MAX_LENGTH`: at a line's end if one comes late enough, else a word's."""
    text = text.rstrip() or text
    if len(text) <= MAX_LENGTH:
        return text
    ends = (text.rfind(end, MIN_LENGTH, MAX_LENGTH + 1) for end in ("\n", " "))
    return text[: next((end for end in ends if end > 0), MAX_LENGTH)].rstrip() or text[:MAX_LENGTH]


def compute_verse_surprisals(
    model: LanguageModel, data: Dataset, verse: Verse
) -> tuple[Piece, ...]:
    """Split the verse into pieces at the token boundaries of `data`, each with its surprisal.

    `data`: the dataset that the model was trained on; its tokenizer may differ from that
    of the dataset in which the verse was found. Joined, the pieces are the verse.
    """
    # A token encodes at least one byte, so these tokens reach the verse's end.
    length = len((verse.before + verse.text).encode("utf-8", "surrogatepass"))
    tokens = data.split("val")[:length]
    first, last = _find_tokens(tokens, data.tokenizer, verse)
    history = torch.cat([data.split("train")[-model.config.context_length :], tokens[:last]])
    bits = compute_token_surprisals(model, history, last - first)
    texts = _decode_characters(tokens[first:last].tolist(), bits.tolist(), data.tokenizer)
    before = data.tokenizer.to_bytes(tokens[:first].tolist())
    partial = verse.before.encode("utf-8", "surrogatepass")[len(before) :]
    skipped = len(partial.decode("utf-8", "replace"))
    return tuple(_cut_to_verse(texts, skipped, len(verse.text)))


@torch.no_grad()
def compute_token_surprisals(model: LanguageModel, tokens: Tensor, count: int) -> Tensor:
    """Compute the bits of the last `count` of a text's tokens, (N,) -> (count,), on the CPU.

    Each token is predicted from the T tokens before it, or from all if there are fewer;
    the first has none, so `count` < N. The model is in evaluation mode.
    """
    T = model.config.context_length
    device = next(model.parameters()).device
    text = tokens[max(0, len(tokens) - count - T) :].long().to(device)
    # In the first window every position sees all tokens before it, so all its logits count; of
    # each later window, shifted by one token, only the last position's do.
    logits = [model(text[None, : min(T, len(text) - 1)])[0]]
    windows = text[1:-1].unfold(0, T, 1) if len(text) > T + 1 else text.new_zeros(0, T)
    batch_size = max(1, choose_batch_tokens(device, model.config) // T)
    logits += [model(batch)[:, -1] for batch in windows.split(batch_size) if len(batch)]
    log_probs = torch.cat(logits)[-count:].cpu().double().log_softmax(-1)
    return -log_probs.gather(1, text[-count:, None].cpu())[:, 0] / math.log(2)


def _find_tokens(tokens: Tensor, tokenizer: Tokenizer, verse: Verse) -> tuple[int, int]:
    """Return the first token that encodes a part of the verse, and the one after the last."""
    lengths = torch.tensor([len(tokenizer.to_bytes([token])) for token in tokens.tolist()])
    ends = lengths.cumsum(0)
    start = len(verse.before.encode("utf-8", "surrogatepass"))
    stop = start + len(verse.text.encode("utf-8", "surrogatepass"))
    return int((ends <= start).sum()), int((ends < stop).sum()) + 1


def _decode_characters(
    tokens: Sequence[int], bits: Sequence[float], tokenizer: Tokenizer
) -> Iterator[tuple[str, float]]:
    """Decode tokens one by one, with their bits; those that share a character come together."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, total = "", 0.0
    for token, own in zip(tokens, bits, strict=True):
        text += decoder.decode(tokenizer.to_bytes([token]))
        total += own
        if text and not decoder.getstate()[0]:
            yield text, total
            text, total = "", 0.0
    if text := text + decoder.decode(b"", final=True):
        yield text, total


def _cut_to_verse(texts: Iterable[tuple[str, float]], skipped: int, length: int) -> Iterator[Piece]:
    """Skip the first `skipped` characters, and yield the next `length` as pieces."""
    for text, bits in texts:
        inside = text[skipped:][:length]
        skipped, length = max(0, skipped - len(text)), length - len(inside)
        if inside:
            yield Piece(inside, bits)
