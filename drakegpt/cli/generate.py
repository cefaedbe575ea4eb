"""`drakegpt generate`: let a run write; the text goes to stdout and is kept in a file.

A single text streams as it is written. Several are written together, which takes
hardly longer than one, and shown one after another.
"""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drakegpt.cli import console, options
from drakegpt.config import LARGEST_FLOAT, LARGEST_NUMBER
from drakegpt.errors import UsageError
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.data.tokenizers.base import Tokenizer
    from drakegpt.generation.context_window import ContextWindow
    from drakegpt.generation.prompt import Prompt
    from drakegpt.generation.sampling import Sampling
    from drakegpt.models.layers import LanguageModel
    from drakegpt.runs.weights_file import PretrainedModel

TOGETHER = 64  # texts written at once: what the model remembers of each takes memory
NOTE_AFTER = 2.0  # seconds of silence before the first word on how far several texts are
REDRAW_SECONDS = 0.02
TEXT_BYTES = 200  # what a text takes beside its characters, at least: its path, its place


def _seed(seed: int | None) -> int | None:
    """Refuse what no generator takes; as bounds of the option they would fill its help."""
    if seed is not None and not 0 <= seed < 2**63:
        raise UsageError(f"--seed cannot be {seed}.", "Give a whole number from 0 to 2^63 - 1.")
    return seed


def generate(
    target: options.Target = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="PATH", help="The same as naming it: a run, or its weights."),
    ] = None,
    scaled: options.Scaled = False,
    data: options.Data = None,
    length: Annotated[
        int, typer.Option("--length", "-n", min=0, max=LARGEST_NUMBER, help="Tokens to write.")
    ] = 500,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="Text to continue; '-' reads it from stdin.")
    ] = "",
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=LARGEST_FLOAT,
            help="Below 1 more cautious, above 1 wilder, 0 always the likeliest.",
        ),
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Choose among the k likeliest tokens only.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Choose among the likeliest that reach this share."),
    ] = None,
    repetition_penalty: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=LARGEST_FLOAT,
            help="Above 1, tokens that the text has already come less often.",
        ),
    ] = 1.0,
    stop: Annotated[
        bool,
        typer.Option("--stop", help="Stop where a song ends: for songs fetched as BPE tokens."),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            help="The same seed writes the same text; drawn if not given.", callback=_seed
        ),
    ] = None,
    num_samples: Annotated[
        int,
        typer.Option(
            min=1,
            max=LARGEST_NUMBER,
            help="Texts to write; the second takes the next seed, and so on.",
        ),
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
        typer.Option("--best", help="The weights that evaluations found best, not the last."),
    ] = False,
    unknown: Annotated[
        Literal["error", "skip"],
        typer.Option(help="What to do with characters of the prompt that the model never saw."),
    ] = "error",
    whole: Annotated[
        bool,
        typer.Option("--no-stream", help="Show a text when it is whole, not as it comes."),
    ] = False,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Generate text with a trained model; the prompt may be empty."""
    from drakegpt.generation.prompt import fit_prompt
    from drakegpt.generation.sampling import Sampling
    from drakegpt.models.registry import choose_device
    from drakegpt.runs.lookup import find_pretrained

    author = find_pretrained(_one_of(target, run), scaled=scaled, data=data)
    fitted = fit_prompt(_read_prompt(prompt), author.tokenizer, skip_unknown=unknown == "skip")
    _explain(author, target or run, fitted)
    _check_stop(author, stop=stop)
    _check_memory(num_samples, 0 if stop else length)
    model = author.load_model(choose_device(device), best=best)
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty)
    how = (length, sampling, window or "auto", stop)
    task = _Task(model, author.tokenizer, fitted.text, *how)
    _explain_window(task)
    if seed is None:
        seed = int.from_bytes(os.urandom(4))
        console.note(f"Seed {seed}")
    shown = _Shown.NOT if json else (_Shown.WHOLE if whole else _Shown.AS_WRITTEN)
    samples, seconds, ending = _write_and_keep(author, task, seed, num_samples, shown)
    if ending is _Ending.INTERRUPTED:
        raise typer.Exit(console.INTERRUPTED)
    if json and ending is _Ending.COMPLETE:
        written = sum(len(sample["text"]) - len(fitted.text) for sample in samples)
        speed = written / seconds if written else 0.0
        result = {"run": str(author.path), "seed": seed, "samples": samples}
        console.show_json(result | {"characters_per_second": speed})


@dataclass(frozen=True)
class _Task:
    """What to write, and how; all but the seeds."""

    model: "LanguageModel"
    tokenizer: "Tokenizer"
    prompt: str
    length: int
    sampling: "Sampling"
    window: "ContextWindow"
    stop: bool


class _Shown(Enum):
    NOT = auto()
    AS_WRITTEN = auto()
    WHOLE = auto()


class _Ending(Enum):
    COMPLETE = auto()
    CLOSED = auto()  # a reader that has closed the pipe (`| head`) has simply had enough
    INTERRUPTED = auto()


def _write_and_keep(
    author: "PretrainedModel", task: _Task, seed: int, num_samples: int, shown: _Shown
) -> tuple[list[dict[str, str]], float, _Ending]:
    """Write all texts and keep each in a file; returns them, the seconds it took, and the end."""
    from drakegpt.generation.text import save_generation

    samples: list[dict[str, str]] = []
    seconds, ending = 0.0, _Ending.COMPLETE
    while len(samples) < num_samples and ending is _Ending.COMPLETE:
        first, left = seed + len(samples), num_samples - len(samples)
        started = time.perf_counter()
        if num_samples == 1:
            streams = shown is _Shown.AS_WRITTEN
            texts, ending = _write_one(task, seed, silent=not streams)
        else:
            texts, ending = _write_together(task, range(first, first + min(left, TOGETHER)))
        seconds += time.perf_counter() - started
        if shown is _Shown.WHOLE or (num_samples > 1 and shown is not _Shown.NOT):
            ending = _show(texts, ending, first=not samples)
        for text in texts:
            path = str(save_generation(text, author.model, author.size))
            samples.append({"text": text, "path": path})
            console.note(f"Kept in {path}")
    return samples, seconds, ending


def _write_one(task: _Task, seed: int, *, silent: bool) -> tuple[list[str], _Ending]:
    """Write a text, showing it as it comes."""
    from drakegpt.generation.text import generate_text

    what = (task.model, task.tokenizer, task.prompt, task.length, task.sampling)
    pieces = generate_text(*what, seed, task.window, stop=task.stop)
    text, ending = _stream(_with_prompt(task.prompt, pieces), silent=silent)
    return [text], ending


def _write_together(task: _Task, seeds: range) -> tuple[list[str], _Ending]:
    """Write a text for each seed; if it takes long, say how far they are."""
    from drakegpt.generation.text import generate_texts

    what = (task.model, task.tokenizer, task.prompt, task.length, task.sampling)
    batches = generate_texts(*what, seeds, task.window, stop=task.stop)
    written: list[list[str]] = []
    started, due = time.monotonic(), NOTE_AFTER
    ending = _Ending.COMPLETE
    try:
        for pieces in batches:
            written.append(pieces)
            if time.monotonic() - started > due:
                due *= 2
                tokens = f"{len(written):,} of {pluralize(task.length, 'token')}"
                console.note(f"Writing {pluralize(len(seeds), 'text')} together: {tokens} of each")
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
                console.write(piece)
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
    except OSError as error:
        raise console.unwritable(error) from error
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


def _one_of(target: str | None, run: str | None) -> str | None:
    if target and run:
        raise UsageError(
            f"'{target}' and --run {run} both say who writes.", "Name one run, model or file."
        )
    return target or run


def _check_memory(texts: int, length: int) -> None:
    """Raise `NotEnoughMemoryError` if no memory holds so many texts of at least that length."""
    import torch

    from drakegpt.models.memory import check_fits

    needed = {"Take a smaller --length or --num-samples.": texts * (length + TEXT_BYTES)}
    check_fits(needed, torch.device("cpu"), "to write all that")


def _check_stop(author: "PretrainedModel", *, stop: bool) -> None:
    if stop and author.tokenizer.end is None:
        raise UsageError(
            f"{author.name} reads characters, and none of them ends a document.",
            "Leave out --stop; it is for runs on data fetched with --tokenizer bpe.",
        )


def _explain(author: "PretrainedModel", target: str | None, prompt: "Prompt") -> None:
    """Say on stderr who writes and what became of the prompt."""
    best = "" if target else f", the lowest validation loss on '{author.data}'"
    console.note(f"{author.model} writes: {author.name}{best}")
    if prompt.replaced:
        changes = ", ".join(f"{old} → {new}" for old, new in prompt.replaced.items())
        console.warn(f"the model does not know some characters of the prompt; took {changes}")
    if prompt.skipped:
        console.warn(f"skipped what the model does not know: {' '.join(prompt.skipped)}")


def _explain_window(task: _Task) -> None:
    """Say on stderr that a text longer than the context will be seen in a cached window."""
    from drakegpt.generation.context_window import count_kept_tokens, resolve_window
    from drakegpt.generation.kv_cache import uses_attention

    context_length = task.model.config.context_length
    tokens = len(task.tokenizer.encode(task.prompt)) + task.length
    cached = resolve_window(task.window, context_length) == "cached" and uses_attention(task.model)
    if cached and tokens > context_length:
        console.note(
            f"The text outgrows the context of {pluralize(context_length, 'token')}, so the "
            "window is cached: "
            f"once full, it drops to the last {count_kept_tokens(task.window, context_length)}. "
            "With --window exact it drops one token at a time, as in the original, but slowly."
        )
