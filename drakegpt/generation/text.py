"""Text from a model, piece by piece, and its file in the user's data folder."""

import codecs
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from drakegpt import paths
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.generation.context_window import ContextWindow
from drakegpt.generation.sampling import START_TOKEN, Sampling, generate, generate_batch
from drakegpt.models.layers import LanguageModel


def generate_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    sampling: Sampling | None = None,
    seed: int = 42,
    window: ContextWindow = "auto",
    *,
    stop: bool = False,
) -> Iterator[str]:
    """Yield `length` tokens that continue `prompt`, each as text, as they are drawn.

    With `stop`, up to the token that ends a document. A character that is split
    over tokens comes whole, with the last of them.
    """
    tokens, start = _encode_prompt(prompt, tokenizer)
    text = _TextStream(tokenizer, stop=stop)
    for token in generate(model, tokens, length, sampling or Sampling(), seed, window, start):
        yield text.add(token)
        if text.ended:
            return
    yield text.rest()


def generate_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    sampling: Sampling,
    seeds: Sequence[int],
    window: ContextWindow = "auto",
    *,
    stop: bool = False,
) -> Iterator[list[str]]:
    """Write a text for each seed, all at once: yield the next piece of each, `length` times.

    What is left of characters that were never completed comes last. With `stop`, a
    text is over at the token that ends a document.
    """
    tokens, start = _encode_prompt(prompt, tokenizer)
    texts = [_TextStream(tokenizer, stop=stop) for _ in seeds]
    for batch in generate_batch(model, tokens, length, sampling, seeds, window, start):
        yield [text.add(token) for text, token in zip(texts, batch, strict=True)]
        if all(text.ended for text in texts):
            return
    yield [text.rest() for text in texts]


def _encode_prompt(prompt: str, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """The tokens of the prompt, and the one that a model sees first where there are none.

    For characters it is the usual one. Other tokenizers have tokens that no text
    contains, so that a model knows nothing of the first: a line begins.
    """
    tokens = [int(token) for token in tokenizer.encode(prompt)]
    start = START_TOKEN if tokenizer.end is None else int(tokenizer.encode("\n")[-1])
    return tokens, start


class _TextStream:
    """A text as it comes, token by token."""

    def __init__(self, tokenizer: Tokenizer, *, stop: bool) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.ended = False

    def add(self, token: int) -> str:
        """The characters that are whole with this token; none once the text has ended."""
        self.ended = self.ended or (self._stop and token == self._tokenizer.end)
        if self.ended:
            return self.rest()
        return self._decoder.decode(self._tokenizer.to_bytes([token]))

    def rest(self) -> str:
        """What stands for a character that was never completed, if there is one."""
        return self._decoder.decode(b"", final=True)


def save_generation(text: str, model: str, size: str) -> Path:
    """Store a text as `generation_<Model>[_scaled]_YYYYMMDD_HHMM.txt`; never over another."""
    folder = paths.generations()
    scaled = "_scaled" if size == "scaled" else ""
    stem = f"generation_{model}{scaled}_{datetime.now():%Y%m%d_%H%M}"
    number = 1
    while True:
        path = folder / (f"{stem}.txt" if number == 1 else f"{stem}_{number}.txt")
        try:
            paths.write_new(path, text)
        except FileExistsError:
            number += 1
        else:
            return path
