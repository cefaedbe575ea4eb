"""Text from a model, piece by piece, and its file in the user's data folder."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from drakegpt import paths
from drakegpt.data.tokenizers import Tokenizer
from drakegpt.generation.sampling import Sampling, generate, generate_batch
from drakegpt.generation.window import Window
from drakegpt.models.layers import LanguageModel


def write(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    sampling: Sampling | None = None,
    seed: int = 42,
    window: Window = "auto",
) -> Iterator[str]:
    """Yield `length` tokens that continue `prompt`, each as text, as they are drawn."""
    tokens = tokenizer.encode(prompt).tolist()
    for token in generate(model, tokens, length, sampling or Sampling(), seed, window):
        yield tokenizer.decode([token])


def write_batch(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    sampling: Sampling,
    seeds: Sequence[int],
    window: Window = "auto",
) -> Iterator[list[str]]:
    """Write a text for each seed, all at once: yield `length` times the next piece of each."""
    tokens = tokenizer.encode(prompt).tolist()
    for batch in generate_batch(model, tokens, length, sampling, seeds, window):
        yield [tokenizer.decode([token]) for token in batch]


def keep(text: str, model: str, size: str) -> Path:
    """Store a text as `generation_<Model>[_scaled]_YYYYMMDD_HHMM.txt`; never over another."""
    folder = paths.generations()
    folder.mkdir(parents=True, exist_ok=True)
    scaled = "_scaled" if size == "scaled" else ""
    stem = f"generation_{model}{scaled}_{datetime.now():%Y%m%d_%H%M}"
    number = 1
    while True:
        path = folder / (f"{stem}.txt" if number == 1 else f"{stem}_{number}.txt")
        try:
            path.open("x").close()  # the name is ours now
        except FileExistsError:
            number += 1
        else:
            paths.write_text(path, text)
            return path
