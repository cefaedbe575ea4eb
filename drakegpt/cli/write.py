"""`drakegpt write`: from a text to more like it, with one command.

It prepares the text, trains a model that suits it for some minutes, and writes. Called again, it
only writes. In a terminal, without a prompt, it then takes prompts line by line
(`write_prompt`).
"""

import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.originality import describe_copying
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.evaluation.verdict import Verdict
    from drakegpt.runs.run import Run

MINUTES = 5.0
TEMPERATURE = 0.8
PIECES = 3
LONGEST_PIECE, LONGEST_SONG = 400, 1500  # characters
SECONDS_AFTER = 3.0  # for loading the weights and writing the pieces, before the time is over


def write(
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT",
            help="A file, a folder of songs, - for stdin, or a dataset's name; default: the "
            "bundled songs.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="What to continue.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=100_000,
            metavar="N",
            help="Minutes to train a new text (default: 5), or to train a known one further.",
        ),
    ] = None,
    temperature: options.Temperature = TEMPERATURE,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, metavar="N", help="Random seed; default: drawn."),
    ] = None,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model on a text, and write more like it; known texts are not trained again."""
    started = time.monotonic()
    data = _prepare(text)
    run, trained = _find_or_train(data, minutes, seed, device, started, quiet=quiet)
    interactive = prompt is None and not json and sys.stdin.isatty() and sys.stdout.isatty()
    if json or trained or not interactive:
        _write_pieces(run, prompt, temperature, seed, device, json=json, trained=trained)
    if interactive:
        from drakegpt.cli.write_prompt import converse

        converse(run, temperature, seed, device)


def _prepare(text: str | None) -> "Dataset":
    """Load a dataset, or prepare a text, and say what was read."""
    from drakegpt.cli.progress import fetch_progress
    from drakegpt.data import dataset, sources

    wanted = text or "sample"
    # What is there wins: it may have changed since a dataset of that name was made of it.
    if wanted in dataset.list_names() and not Path(wanted).exists():
        return dataset.load(wanted)
    with fetch_progress(wanted, "Preparing") as progress:
        fetched = sources.fetch(wanted, progress=progress)
    said = (*fetched.summary, *fetched.notes)
    for sentence in said:
        console.note(sentence)
    if any(" --" in sentence or "`--" in sentence for sentence in said):
        console.note(f"Such options are for `{format_command('data add', wanted)}`.")
    return fetched.dataset


def _find_or_train(
    data: "Dataset",
    minutes: float | None,
    seed: int | None,
    device: str,
    started: float,
    *,
    quiet: bool,
) -> "tuple[Run, bool]":
    """Return the run that writes from a text, and whether it was trained just now."""
    from drakegpt.cli.progress import fetch_progress
    from drakegpt.runs.writers import (
        find_writer,
        give_more_time,
        has_learned_text,
        has_older_writer,
        start_writer,
    )

    run = find_writer(data)
    size = pluralize(data.metadata.characters, "character")
    if run is None:
        if has_older_writer(data):
            console.note(f"{data.name} has changed: a new model is trained on it.", style="")
        console.note(f"{size}. Measuring how fast this machine is…")
        given = {"device": device} | ({} if seed is None else {"seed": seed})
        with fetch_progress(data.name, "Measuring, for") as progress:
            run = start_writer(data, minutes or MINUTES, progress, **given)
        _train(run, started, minutes or MINUTES, resume=False, quiet=quiet)
    elif not run.finished:
        console.note(f"Resuming {run.name}, whose training was interrupted.", style="")
        _train(run, started, run.config.minutes, resume=True, quiet=quiet)
    elif minutes is None:
        iterations = pluralize(run.last_evaluation["iteration"], "iteration")
        console.note(
            f"{run.name} was trained for {iterations}; --minutes N trains it further.", style=""
        )
        return run, False
    elif has_learned_text(run):
        console.note(_describe_learned(data), style="")
        return run, False
    else:
        longer = give_more_time(run, minutes)
        console.note(f"Training {run.name} for {pluralize(minutes, 'more minute')}.", style="")
        _train(longer, started, minutes, resume=True, quiet=quiet)
        run = replace(longer, changes={})
    if has_learned_text(run):
        console.note(_describe_learned(data), style="")
    return run, True


def _describe_learned(data: "Dataset") -> str:
    size = pluralize(data.metadata.characters, "character")
    return f"{size} are learned; more text would help, more time would not."


def _train(run: "Run", started: float, minutes: float, *, resume: bool, quiet: bool) -> None:
    """Train a run in its time, and show what it writes meanwhile."""
    from drakegpt.cli.interrupts import Interrupts
    from drakegpt.cli.write_progress import writing_progress
    from drakegpt.runs.session import train_run

    tokens = 2 * run.load_dataset().metadata.val_tokens
    deadline = started + minutes * 60
    with Interrupts() as interrupts, writing_progress(run, deadline, quiet=quiet) as progress:
        finished = train_run(
            run,
            resume=resume,
            progress=progress,
            stop=lambda: interrupts.requested,
            started=started,
            tokens_after=tokens,
            seconds_after=SECONDS_AFTER,
        )
    if not finished:
        console.note("Stopped, and saved. The same command goes on from there.", style="")
        raise typer.Exit(console.INTERRUPTED)


def _write_pieces(
    run: "Run",
    prompt: str | None,
    temperature: float,
    seed: int | None,
    device: str,
    *,
    json: bool,
    trained: bool,
) -> None:
    """Write one text after a prompt, or three of their own, and say what they are worth."""
    from drakegpt.data.reencode import BPE_SUFFIX
    from drakegpt.runs.originality import compare_copying
    from drakegpt.runs.verdicts import judge_run

    first = int.from_bytes(os.urandom(4)) >> 1 if seed is None else seed
    beginning, pieces = _generate(run, prompt, temperature, first, device)
    data = run.load_dataset()
    copying = compare_copying(pieces, data)
    verdict = judge_run(run, device, best=True) if trained or json else None
    if json:
        asked = {"prompt": beginning, "seed": first, "temperature": temperature}
        texts = [beginning + piece for piece in pieces]
        console.show_json(_to_json(run, texts, verdict) | copying.to_json() | asked)
        return
    whole = [(beginning + piece).strip("\n") + "\n" for piece in pieces]
    console.show_text(f"\n{'-' * 24}\n\n".join(whole).rstrip())
    # Not the advice, which names settings of `train`: `write` has chosen them.
    for line in filter(None, (verdict.standing, verdict.trend) if verdict else ()):
        console.note(line, style="")
    console.note(describe_copying(copying), style="")
    console.note(f"Seed {first}: the same one writes the same again.")
    name = run.config.data.removesuffix(BPE_SUFFIX)
    console.next_commands(
        [
            format_command("write", name, prompt=_choose_prompt(data)),
            format_command("generate", run.name, num_samples=20, temperature=temperature),
            format_command("eval", run.name, counts=True),
            format_command("export", "page", run.name),
        ]
    )


def _generate(
    run: "Run", prompt: str | None, temperature: float, seed: int, device: str
) -> tuple[str, list[str]]:
    """Continue the prompt once, or write three texts: whole songs, where they have an end.

    Returns the prompt as the model reads it, and the texts after it.
    """
    from drakegpt.compute.device import choose_device
    from drakegpt.generation.prompt import fit_prompt
    from drakegpt.generation.sampling import Sampling
    from drakegpt.generation.text import generate_texts

    tokenizer, model = run.tokenizer, run.load_model(choose_device(device), best=True)
    fitted = fit_prompt(prompt or "", tokenizer, skip_unknown=True)
    if fitted.skipped:
        unknown = ", ".join(map(repr, fitted.skipped))
        console.warn(f"the text has no {unknown}: left out of the prompt.")
    songs = tokenizer.end is not None and bool(run.load_dataset().metadata.songs)
    characters = LONGEST_SONG if songs else LONGEST_PIECE
    length = characters if tokenizer.unit == "character" else characters // 2
    seeds = [seed] if prompt is not None else [seed + number for number in range(PIECES)]
    pieces = [""] * len(seeds)
    for parts in generate_texts(
        model, tokenizer, fitted.text, length, Sampling(temperature), seeds, stop=songs
    ):
        pieces = [piece + part for piece, part in zip(pieces, parts, strict=True)]
    return fitted.text, [piece[:characters] for piece in pieces]


def _choose_prompt(data: "Dataset") -> str:
    """Choose two words that begin a line of the text, as an example of a prompt."""
    lines = data.text("train", 400).splitlines()
    begun = [re.match(r"[^\W\d_]+ [^\W\d_]+", line) for line in lines]
    return next((match[0] for match in begun if match), lines[0][:10] if lines else "")


def _to_json(run: "Run", pieces: list[str], verdict: "Verdict | None") -> dict[str, Any]:
    return {
        "run": str(run.folder),
        "data": run.config.data,
        "model": run.config.model,
        "iterations": run.last_evaluation["iteration"],
        "minutes": run.config.minutes,
        "val_loss": min(line["val_loss"] for line in run.evaluations),  # of what writes
        "texts": pieces,
        "verdict": verdict and verdict.to_json(),
    }
