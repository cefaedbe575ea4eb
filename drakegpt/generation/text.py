"""Generate text piece by piece, and save it in the user's home."""

import codecs
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from drakegpt import files, home
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.generation.context_window import ContextWindow
from drakegpt.generation.copy_limit import CopyLimit
from drakegpt.generation.sampling import START_TOKEN, Sampling, generate, generate_batch
from drakegpt.models.layers import LanguageModel
from drakegpt.models.mixture import Mixture


def generate_text(
    model: LanguageModel | Mixture,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    sampling: Sampling | None = None,
    seed: int = 42,
    window: ContextWindow = "auto",
    *,
    stop: bool = False,
    limit: CopyLimit | None = None,
) -> Iterator[str]:
    """Yield `length` tokens that continue `prompt` as text, each as soon as it is sampled.

    With `stop`, generation ends at the token that ends a document. A character that is
    split over several tokens comes with the last of them. `limit` is for copying.
    """
    tokens, start = _encode_prompt(prompt, tokenizer)
    text = _TextStream(tokenizer, stop=stop)
    sampling = sampling or Sampling()
    for token in generate(model, tokens, length, sampling, seed, window, start, limit):
        yield text.add(token)
        if text.ended:
            return
    yield text.finish()


def generate_texts(
    model: LanguageModel | Mixture,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    sampling: Sampling,
    seeds: Sequence[int],
    window: ContextWindow = "auto",
    *,
    stop: bool = False,
    limit: CopyLimit | None = None,
) -> Iterator[list[str]]:
    """Generate one text per seed together: yield the next piece of each, `length` times.

    The last pieces replace characters that were never completed. With `stop`, each
    text ends at the token that ends a document.
    """
    tokens, start = _encode_prompt(prompt, tokenizer)
    texts = [_TextStream(tokenizer, stop=stop) for _ in seeds]
    for batch in generate_batch(model, tokens, length, sampling, seeds, window, start, limit):
        yield [text.add(token) for text, token in zip(texts, batch, strict=True)]
        if all(text.ended for text in texts):
            return
    yield [text.finish() for text in texts]


def _encode_prompt(prompt: str, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """Encode the prompt; returns its tokens and the start token for an empty one.

    That is `START_TOKEN` for characters. BPE's token 0 occurs in no text, so a model has
    not learned it: a line feed takes its place.
    """
    tokens = [int(token) for token in tokenizer.encode(prompt)]
    start = START_TOKEN if tokenizer.end is None else int(tokenizer.encode("\n")[-1])
    return tokens, start


class _TextStream:
    """Decodes the tokens of one text as they come."""

    def __init__(self, tokenizer: Tokenizer, *, stop: bool) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.ended = False

    def add(self, token: int) -> str:
        """Return the characters that this token completes; none after the end of the text."""
        self.ended = self.ended or (self._stop and token == self._tokenizer.end)
        if self.ended:
            return self.finish()
        return self._decoder.decode(self._tokenizer.to_bytes([token]))

    def finish(self) -> str:
        """Return U+FFFD if the last character was never completed, else an empty string."""
        return self._decoder.decode(b"", final=True)


def save_generation(text: str, model: str, size: str) -> Path:
    """Save a text as `generation_<Model>[_scaled]_YYYYMMDD_HHMM.txt`, overwriting none."""
    folder = home.generations()
    scaled = "_scaled" if size == "scaled" else ""
    stem = f"generation_{model}{scaled}_{datetime.now():%Y%m%d_%H%M}"
    number = 1
    while True:
        path = folder / (f"{stem}.txt" if number == 1 else f"{stem}_{number}.txt")
        try:
            files.write_exclusively(path, text)
        except FileExistsError:
            number += 1
        else:
            return path
