"""Shows texts while they are generated, and saves them.

A single text streams token by token. Several texts are generated in one batch, which
takes hardly longer than one, and shown one after another.

Not here: what is generated, and from what (`generate`).
"""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.data.tokenizers.base import Tokenizer
    from drakegpt.generation.context_window import ContextWindow
    from drakegpt.generation.copy_limit import CopyLimit
    from drakegpt.generation.sampling import Sampling
    from drakegpt.models.layers import LanguageModel
    from drakegpt.models.mixture import Mixture
    from drakegpt.runs.weights_file import PretrainedModel

MAX_BATCH = 64  # texts generated at once: the KV cache of each takes memory
NOTE_AFTER = 2.0  # seconds without output before a note says how far a batch is
FLUSH_SECONDS = 0.02


@dataclass(frozen=True)
class Task:
    """What to generate, and how, except the seeds."""

    model: "LanguageModel | Mixture"
    tokenizer: "Tokenizer"
    prompt: str
    length: int
    sampling: "Sampling"
    context_window: "ContextWindow"
    stop: bool
    limit: "CopyLimit | None" = None


class Display(Enum):
    """Whether a text is shown, and when."""

    NONE = auto()
    STREAM = auto()
    COMPLETE = auto()


class Ending(Enum):
    """How generating ended."""

    COMPLETE = auto()
    CLOSED = auto()  # a closed pipe (`| head`) is no error
    INTERRUPTED = auto()


def generate_and_save(
    pretrained: "PretrainedModel", task: Task, seed: int, num_samples: int, display: Display
) -> tuple[list[dict[str, Any]], float, Ending]:
    """Generate all texts and save each in a file; return them, the seconds, and the ending."""
    from drakegpt.generation.text import save_generation

    samples: list[dict[str, Any]] = []
    seconds, ending = 0.0, Ending.COMPLETE
    while len(samples) < num_samples and ending is Ending.COMPLETE:
        first, left = seed + len(samples), num_samples - len(samples)
        started = time.perf_counter()
        if num_samples == 1:
            texts, ending = _generate_one(task, seed, silent=display is not Display.STREAM)
        else:
            texts, ending = _generate_batch(task, range(first, first + min(left, MAX_BATCH)))
        seconds += time.perf_counter() - started
        streamed = num_samples == 1 and display is Display.STREAM
        if not streamed and display is not Display.NONE:
            ending = _show(texts, ending, first=seed, done=len(samples), several=num_samples > 1)
        for text in texts:
            path = str(save_generation(text, pretrained.model, pretrained.size))
            number = seed + len(samples)
            samples.append({"text": text, "path": path, "seed": number})
            console.note(f"Saved as {path}" + (f" (seed {number})" if num_samples > 1 else ""))
    return samples, seconds, ending


def _generate_one(task: Task, seed: int, *, silent: bool) -> tuple[list[str], Ending]:
    """Generate a text, and stream it unless `silent`."""
    from drakegpt.generation.text import generate_text

    what = (task.model, task.tokenizer, task.prompt, task.length, task.sampling)
    pieces = generate_text(*what, seed, task.context_window, stop=task.stop, limit=task.limit)
    text, ending = _stream(_with_prompt(task.prompt, pieces), silent=silent)
    return [text], ending


def _generate_batch(task: Task, seeds: range) -> tuple[list[str], Ending]:
    """Generate a text for each seed; if it takes long, note the progress."""
    from drakegpt.generation.text import generate_texts

    what = (task.model, task.tokenizer, task.prompt, task.length, task.sampling)
    steps = generate_texts(*what, seeds, task.context_window, stop=task.stop, limit=task.limit)
    generated: list[list[str]] = []
    started, due = time.monotonic(), NOTE_AFTER
    ending = Ending.COMPLETE
    try:
        for pieces in steps:
            generated.append(pieces)
            if time.monotonic() - started > due:
                due *= 2
                tokens = f"{len(generated):,} of {pluralize(task.length, 'token')}"
                console.note(f"Generating {pluralize(len(seeds), 'text')} at once: {tokens} each")
    except KeyboardInterrupt:
        ending = Ending.INTERRUPTED
    texts = ["".join(pieces[i] for pieces in generated) for i in range(len(seeds))]
    return [task.prompt + text for text in texts], ending


def _show(texts: list[str], ending: Ending, *, first: int, done: int, several: bool) -> Ending:
    """Print texts after `done` others, the first of which has the seed `first`.

    On a terminal each has a line with its seed above it; in a pipe, where every line is the
    text's own, there is only a blank line between two, and --json tells them apart.
    """
    headed = several and sys.stdout.isatty()
    for number, text in enumerate(texts, done):
        heading = [f"── seed {first + number} ──\n"] if headed else []
        later = ["\n"] if number else []
        _, shown = _stream(iter([*later, *heading, text]), silent=False)
        if shown is not Ending.COMPLETE:
            return shown
    return ending


def _stream(pieces: Iterator[str], *, silent: bool) -> tuple[str, Ending]:
    """Write pieces to stdout as they come; return the text so far, and how it ended."""
    text = ""
    flushed = 0.0
    try:
        for piece in pieces:
            text += piece
            if not silent:
                console.write(piece)
                if (now := time.monotonic()) - flushed > FLUSH_SECONDS:
                    sys.stdout.flush()
                    flushed = now
        if not silent and not text.endswith("\n"):
            sys.stdout.write("\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail again when Python exits: send it nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return text, Ending.CLOSED
    except OSError as error:
        raise console.explain_unwritable(error) from error
    except KeyboardInterrupt:
        return text, Ending.INTERRUPTED
    return text, Ending.COMPLETE


def _with_prompt(prompt: str, pieces: Iterator[str]) -> Iterator[str]:
    if prompt:
        yield prompt
    yield from pieces
