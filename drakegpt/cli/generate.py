"""`drakegpt generate`: let a run write; the text goes to stdout and is kept in a file.

A single text streams as it is written. Several are written together, which takes
hardly longer than one, and shown one after another.
"""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drakegpt.cli import console, options
from drakegpt.errors import UsageError

if TYPE_CHECKING:
    from drakegpt.data.tokenizers import Tokenizer
    from drakegpt.generation.prompt import Prompt
    from drakegpt.generation.sampling import Sampling
    from drakegpt.generation.window import Window
    from drakegpt.models.layers import LanguageModel
    from drakegpt.training.run import Run

TOGETHER = 64  # texts written at once: what the model remembers of each takes memory
NOTE_AFTER = 2.0  # seconds of silence before the first word on how far several texts are
REDRAW_SECONDS = 0.02


def generate(
    target: options.Target = None,
    scaled: options.Scaled = False,
    data: options.Data = None,
    length: Annotated[int, typer.Option("--length", "-n", min=0, help="Tokens to write.")] = 500,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="Text to continue; '-' reads it from stdin.")
    ] = "",
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0, help="Below 1 more cautious, above 1 wilder, 0 always the likeliest."
        ),
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Choose among the k likeliest tokens only.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Choose among the likeliest that reach this share."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**63 - 1, help="The same seed writes the same text; drawn if not given."
        ),
    ] = None,
    num_samples: Annotated[
        int, typer.Option(min=1, help="Texts to write; the second takes the next seed, and so on.")
    ] = 1,
    window: Annotated[
        Literal["exact", "cached"] | None,
        typer.Option(
            help="How the window moves in texts longer than the context: exact, by one token, as "
            "the original does; cached, by half, much faster. If not given: cached where the "
            "context is long.",
            show_default=False,
        ),
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="The weights of the lowest validation loss, not the last."),
    ] = False,
    unknown: Annotated[
        Literal["error", "skip"],
        typer.Option(help="What to do with characters of the prompt that the model never saw."),
    ] = "error",
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Write text with a trained run; without a prompt it starts from nothing."""
    from drakegpt.evaluation.selection import find_run
    from drakegpt.generation.prompt import fit
    from drakegpt.generation.sampling import Sampling
    from drakegpt.models.build import choose_device

    run = find_run(target, scaled=scaled, data=data)
    fitted = fit(_read_prompt(prompt), run.tokenizer, skip_unknown=unknown == "skip")
    _explain(run, target, fitted)
    model = run.load_model(choose_device(device), best=best)
    sampling = Sampling(temperature, top_k, top_p)
    task = _Task(model, run.tokenizer, fitted.text, length, sampling, window or "auto")
    _explain_window(task)
    if seed is None:
        seed = secrets.randbelow(2**32)
        console.note(f"Seed {seed}")
    samples, seconds, ending = _write_and_keep(run, task, seed, num_samples, silent=json)
    if ending is _Ending.INTERRUPTED:
        raise typer.Exit(console.INTERRUPTED)
    if json and ending is _Ending.COMPLETE:
        written = sum(len(sample["text"]) - len(fitted.text) for sample in samples)
        speed = written / seconds if written else 0.0
        result = {"run": str(run.folder), "seed": seed, "samples": samples}
        console.show_json(result | {"characters_per_second": speed})


@dataclass(frozen=True)
class _Task:
    """What to write, and how; all but the seeds."""

    model: "LanguageModel"
    tokenizer: "Tokenizer"
    prompt: str
    length: int
    sampling: "Sampling"
    window: "Window"


class _Ending(Enum):
    COMPLETE = auto()
    CLOSED = auto()  # a reader that has closed the pipe (`| head`) has simply had enough
    INTERRUPTED = auto()


def _write_and_keep(
    run: "Run", task: _Task, seed: int, num_samples: int, *, silent: bool
) -> tuple[list[dict[str, str]], float, _Ending]:
    """Write all texts and keep each in a file; returns them, the seconds it took, and the end."""
    from drakegpt.generation.text import keep

    samples: list[dict[str, str]] = []
    seconds, ending = 0.0, _Ending.COMPLETE
    while len(samples) < num_samples and ending is _Ending.COMPLETE:
        first, left = seed + len(samples), num_samples - len(samples)
        started = time.perf_counter()
        if num_samples == 1:
            texts, ending = _write_one(task, seed, silent=silent)
        else:
            texts, ending = _write_together(task, range(first, first + min(left, TOGETHER)))
        seconds += time.perf_counter() - started
        if num_samples > 1 and not silent:
            ending = _show(texts, ending, first=not samples)
        for text in texts:
            path = str(keep(text, run.config.model, run.config.size))
            samples.append({"text": text, "path": path})
            console.note(f"Kept in {path}")
    return samples, seconds, ending


def _write_one(task: _Task, seed: int, *, silent: bool) -> tuple[list[str], _Ending]:
    """Write a text, showing it as it comes."""
    from drakegpt.generation.text import write

    pieces = write(
        task.model, task.tokenizer, task.prompt, task.length, task.sampling, seed, task.window
    )
    text, ending = _stream(_with_prompt(task.prompt, pieces), silent=silent)
    return [text], ending


def _write_together(task: _Task, seeds: range) -> tuple[list[str], _Ending]:
    """Write a text for each seed; if it takes long, say how far they are."""
    from drakegpt.generation.text import write_batch

    batches = write_batch(
        task.model, task.tokenizer, task.prompt, task.length, task.sampling, seeds, task.window
    )
    written: list[list[str]] = []
    started, due = time.monotonic(), NOTE_AFTER
    ending = _Ending.COMPLETE
    try:
        for pieces in batches:
            written.append(pieces)
            if time.monotonic() - started > due:
                due *= 2
                tokens = f"{len(written):,} of {task.length:,} tokens"
                console.note(f"Writing {len(seeds)} texts together: {tokens} of each")
    except KeyboardInterrupt:
        ending = _Ending.INTERRUPTED
    texts = ["".join(pieces[i] for pieces in written) for i in range(len(seeds))]
    return [task.prompt + text for text in texts], ending


def _show(texts: list[str], ending: _Ending, *, first: bool) -> _Ending:
    """Print texts that are written, a blank line between them."""
    for number, text in enumerate(texts):
        pieces = [text] if first and number == 0 else ["\n", text]
        _, shown = _stream(iter(pieces), silent=False)
        if shown is not _Ending.COMPLETE:
            return shown
    return ending


def _stream(pieces: Iterator[str], *, silent: bool) -> tuple[str, _Ending]:
    """Write pieces to stdout as they come; returns the text, whole or not, and why."""
    text = ""
    flushed = 0.0
    try:
        for piece in pieces:
            text += piece
            if not silent:
                sys.stdout.write(piece)
                if (now := time.monotonic()) - flushed > REDRAW_SECONDS:
                    sys.stdout.flush()
                    flushed = now
        if not silent and not text.endswith("\n"):
            sys.stdout.write("\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail again when Python exits: send it nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return text, _Ending.CLOSED
    except KeyboardInterrupt:
        return text, _Ending.INTERRUPTED
    return text, _Ending.COMPLETE


def _with_prompt(prompt: str, pieces: Iterator[str]) -> Iterator[str]:
    if prompt:
        yield prompt
    yield from pieces


def _read_prompt(prompt: str) -> str:
    if prompt != "-":
        return prompt
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"The prompt on stdin is not UTF-8: byte 0x{error.object[error.start]:02x} "
            f"at position {error.start}.",
            "Send it as UTF-8.",
        ) from error


def _explain(run: "Run", target: str | None, prompt: "Prompt") -> None:
    """Say on stderr which run writes and what became of the prompt."""
    if target is None:
        from drakegpt.evaluation.selection import val_loss

        console.note(
            f"{run.config.model} writes: run {run.name}, the lowest validation loss "
            f"on '{run.config.data}' ({val_loss(run):.4f})"
        )
    else:
        console.note(f"{run.config.model} writes: run {run.name}")
    if prompt.folded:
        changes = ", ".join(f"{old} → {new}" for old, new in prompt.folded.items())
        console.warn(f"the model does not know some characters of the prompt; took {changes}")
    if prompt.skipped:
        console.warn(f"skipped what the model does not know: {' '.join(prompt.skipped)}")


def _explain_window(task: _Task) -> None:
    """Say on stderr that a text longer than the context will be seen in a cached window."""
    from drakegpt.generation.cache import looks_back
    from drakegpt.generation.window import kept, resolve

    context_length = task.model.config.context_length
    tokens = len(task.tokenizer.encode(task.prompt)) + task.length
    cached = resolve(task.window, context_length) == "cached" and looks_back(task.model)
    if cached and tokens > context_length:
        console.note(
            f"The text outgrows the context of {context_length} tokens, so the window is cached: "
            f"once full, it drops to the last {kept(task.window, context_length)}. "
            "With --window exact it drops one token at a time, as in the original, but slowly."
        )
