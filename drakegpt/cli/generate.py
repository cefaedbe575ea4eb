"""`drakegpt generate`: let a run write; the text streams to stdout and is kept in a file."""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drakegpt.cli import console, options
from drakegpt.errors import UsageError

if TYPE_CHECKING:
    from drakegpt.generation.prompt import Prompt
    from drakegpt.training.run import Run


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
    from drakegpt.generation.text import keep, write
    from drakegpt.models.build import choose_device

    run = find_run(target, scaled=scaled, data=data)
    fitted = fit(_read_prompt(prompt), run.tokenizer, skip_unknown=unknown == "skip")
    _explain(run, target, fitted)
    model = run.load_model(choose_device(device), best=best)
    sampling = Sampling(temperature, top_k, top_p)
    if seed is None:
        seed = secrets.randbelow(2**32)
        console.note(f"Seed {seed}")
    samples, seconds = [], 0.0
    for number in range(num_samples):
        stream = write(model, run.tokenizer, fitted.text, length, sampling, seed + number)
        started = time.perf_counter()
        text, ending = _stream(fitted.text, stream, silent=json, first=number == 0)
        seconds += time.perf_counter() - started
        samples.append({"text": text, "path": str(keep(text, run.config.model, run.config.size))})
        console.note(f"Kept in {samples[-1]['path']}")
        if ending is _Ending.INTERRUPTED:
            raise typer.Exit(console.INTERRUPTED)
        if ending is _Ending.CLOSED:
            return
    if json:
        written = sum(len(sample["text"]) - len(fitted.text) for sample in samples)
        speed = written / seconds if written else 0.0
        result = {"run": str(run.folder), "seed": seed, "samples": samples}
        console.show_json(result | {"characters_per_second": speed})


class _Ending(Enum):
    COMPLETE = auto()
    CLOSED = auto()  # a reader that has closed the pipe (`| head`) has simply had enough
    INTERRUPTED = auto()


def _stream(
    prompt: str, pieces: Iterator[str], *, silent: bool, first: bool
) -> tuple[str, "_Ending"]:
    """Write prompt and pieces to stdout as they come; returns the text, whole or not, and why."""
    text = ""
    try:
        if not silent and not first:
            sys.stdout.write("\n")
        for piece in _with_prompt(prompt, pieces):
            text += piece
            if not silent:
                sys.stdout.write(piece)
                sys.stdout.flush()
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
