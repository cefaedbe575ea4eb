"""`drakegpt generate`: generate text to stdout, and save it in a file.

Not here: how texts are shown meanwhile (`generate_output`).
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from drakegpt.cli import console, options
from drakegpt.cli.generate_output import Display, Ending, Task, generate_and_save
from drakegpt.cli.inputs import prepare_if_file
from drakegpt.cli.originality import describe_copying
from drakegpt.config import LARGEST_FLOAT, LARGEST_NUMBER
from drakegpt.errors import DrakeGPTError, UsageError
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.generation.copy_limit import CopyLimit
    from drakegpt.generation.prompt import Prompt
    from drakegpt.runs.originality import Copying
    from drakegpt.runs.weights_file import PretrainedModel

TEXT_BYTES = 200  # memory of a text beside its characters, at least: its path and list entry


def _check_seed(seed: int | None) -> int | None:
    """Check the range of the seed; as bounds of the option it would fill the help."""
    if seed is not None and not 0 <= seed < 2**63:
        raise UsageError(f"--seed cannot be {seed}.", "Give a whole number from 0 to 2^63 - 1.")
    return seed


def generate(
    targets: options.Targets = None,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", metavar="TEXT", help="Prompt; - reads it from stdin.")
    ] = "",
    length: Annotated[
        int,
        typer.Option(
            "--length", "-n", min=0, max=LARGEST_NUMBER, metavar="N", help="Tokens to generate."
        ),
    ] = 500,
    num_samples: Annotated[
        int,
        typer.Option(
            min=1,
            max=LARGEST_NUMBER,
            metavar="N",
            help="Number of texts, with seeds --seed, --seed + 1 and so on.",
        ),
    ] = 1,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Random seed; default: drawn.", callback=_check_seed),
    ] = None,
    temperature: options.Temperature = 1.0,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Sample from the N likeliest tokens only."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="X",
            help="Nucleus sampling: keep the smallest set of tokens with this total probability.",
        ),
    ] = None,
    repetition_penalty: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=LARGEST_FLOAT,
            metavar="X",
            help="Above 1, tokens already in the text become less likely; 1 disables it.",
        ),
    ] = 1.0,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop at the end-of-song token (BPE datasets).")
    ] = False,
    best: Annotated[
        bool,
        typer.Option("--best", help="Use the weights of the best evaluation, not the last."),
    ] = False,
    counts: options.Counts = False,
    max_copy: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_NUMBER,
            metavar="N",
            help="Write at most N characters of the training text in a row; 0: any number. "
            "Default: 0; with --counts, the longest run that held-out text shares with it.",
            show_default=False,
        ),
    ] = None,
    originality: Annotated[
        bool,
        typer.Option("--originality", help="Say how much of the text is copied, beside people."),
    ] = False,
    data: options.Data = None,
    scaled: options.Scaled = False,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="PATH",
            help="The same as naming RUN.",
            autocompletion=options.complete_target,
        ),
    ] = None,
    context_window: Annotated[
        Literal["exact", "cached"] | None,
        typer.Option(
            help="When the context is full: exact drops one token at a time, as the original "
            "does; cached drops half, which is much faster. Default: cached for long contexts.",
            show_default=False,
        ),
    ] = None,
    unknown: Annotated[
        Literal["error", "skip"],
        typer.Option(help="What to do with characters of the prompt that the model cannot read."),
    ] = "error",
    no_stream: Annotated[
        bool, typer.Option("--no-stream", help="Show a text when it is complete.")
    ] = False,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Generate text with a trained model."""
    from drakegpt.compute.device import choose_device
    from drakegpt.generation.prompt import fit_prompt
    from drakegpt.generation.sampling import Sampling
    from drakegpt.runs.lookup import find_pretrained
    from drakegpt.runs.mixtures import load_common_text, load_members

    named = _list_targets(targets, run)
    data = data and prepare_if_file(data)
    members = [find_pretrained(target, scaled=scaled, data=data) for target in named]
    pretrained = members[0]
    fitted = fit_prompt(_read_prompt(prompt), pretrained.tokenizer, skip_unknown=unknown == "skip")
    _note_models_and_prompt(members, fitted, named=named != [None], counts=counts)
    _check_stop(pretrained, stop=stop)
    _check_memory(num_samples, 0 if stop else length)
    model = load_members(members, choose_device(device), counts=counts, best=best)
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty)
    text = load_common_text(members) if counts or max_copy or originality else None
    limited = counts if max_copy is None else max_copy > 0
    limit = _limit_copying(text, max_copy) if text and limited else None
    task = Task(
        model, pretrained.tokenizer, fitted.text, length, sampling, context_window or "auto", stop,
        limit,
    )  # fmt: skip
    _note_context_window(task)
    if seed is None:
        seed = int.from_bytes(os.urandom(4))
        console.note(f"Seed {seed}")
    display = Display.NONE if json else (Display.COMPLETE if no_stream else Display.STREAM)
    samples, seconds, ending = generate_and_save(pretrained, task, seed, num_samples, display)
    if limit and limit.exceeded:
        places = pluralize(limit.exceeded, "token")
        console.note(f"For {places} every choice would have copied more than {limit.longest}.")
    if ending is Ending.INTERRUPTED:
        raise typer.Exit(console.INTERRUPTED)
    written = [str(sample["text"]).removeprefix(fitted.text) for sample in samples]
    copying = _compare_copying(written, text) if text and originality else None
    if json and ending is Ending.COMPLETE:
        speed = sum(map(len, written)) / seconds if any(written) else 0.0
        paths = [str(member.path) for member in members]
        of: dict[str, Any] = {"run": paths[0]} if len(paths) == 1 else {"runs": paths}
        of |= {"counts": counts, "max_copy": task.limit and task.limit.longest, "seed": seed}
        of |= {"samples": samples, "characters_per_second": speed}
        console.show_json(of | (copying.to_json() if copying else {}))
    elif copying:
        console.note(describe_copying(copying), style="")


def _limit_copying(text: "Dataset", longest: int | None) -> "CopyLimit":
    """Limit copying to runs of that length; by default to those of people, which is said."""
    from drakegpt.runs.originality import create_copy_limit

    limit = create_copy_limit(text, longest)
    if longest is None:
        console.note(
            f"At most {limit.longest} characters of the training text in a row; --max-copy sets "
            "another limit, 0 none."
        )
    return limit


def _compare_copying(texts: Sequence[str], data: "Dataset") -> "Copying":
    from drakegpt.runs.originality import compare_copying

    return compare_copying(texts, data)


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


def _list_targets(targets: list[str] | None, run: str | None) -> Sequence[str | None]:
    """List what names the models: arguments, or the option `--run`, or nothing at all."""
    if targets and run:
        raise UsageError(
            f"'{targets[0]}' and --run {run} both name a run.", "Name one run, model or file."
        )
    return targets or [run]


def _check_memory(texts: int, length: int) -> None:
    """Raise `NotEnoughMemoryError` if the texts, each at least that long, do not fit in memory."""
    import torch

    from drakegpt.compute.memory import check_memory_fits

    needed = {"Take a smaller --length or --num-samples.": texts * (length + TEXT_BYTES)}
    check_memory_fits(needed, torch.device("cpu"), "to write all that")


def _check_stop(pretrained: "PretrainedModel", *, stop: bool) -> None:
    if stop and pretrained.tokenizer.end is None:
        raise UsageError(
            f"{pretrained.name} has a character tokenizer, without an end-of-song token.",
            "Leave out --stop; it is for runs on data fetched with --tokenizer bpe.",
        )
    if stop and _has_one_song(pretrained.data):
        raise UsageError(
            f"'{pretrained.data}' is not divided into songs, so {pretrained.name} has learned "
            "no end of one.",
            "Leave out --stop; it is for texts of songs.",
        )


def _has_one_song(data: str) -> bool:
    """Return whether a dataset is here and has no end of a song between two songs."""
    from drakegpt.data import dataset

    try:
        return (dataset.load(data).metadata.songs or 1) < 2
    except DrakeGPTError:
        return False  # removed, or damaged: the model may know better


def _note_models_and_prompt(
    members: Sequence["PretrainedModel"], prompt: "Prompt", *, named: bool, counts: bool
) -> None:
    """Name the models, and what was changed in the prompt."""
    models = ", ".join(f"{member.model} of {member.name}" for member in members)
    best = "" if named else f", which has the lowest validation loss on '{members[0].data}'"
    mixed = ", mixed with n-gram counts of its text" if counts else ""
    console.note(f"{'Model' if len(members) == 1 else 'Ensemble'}: {models}{best}{mixed}")
    if prompt.replaced:
        changes = ", ".join(f"{old} → {new}" for old, new in prompt.replaced.items())
        console.warn(f"replaced characters of the prompt that the model cannot read: {changes}")
    if prompt.skipped:
        skipped = " ".join(prompt.skipped)
        console.warn(f"skipped characters of the prompt that the model cannot read: {skipped}")


def _note_context_window(task: Task) -> None:
    """Note that a text longer than the context will be read through a cached window."""
    from drakegpt.generation.context_window import count_kept_tokens, resolve_window
    from drakegpt.generation.kv_cache import uses_attention
    from drakegpt.models.mixture import list_models

    tokens = len(task.tokenizer.encode(task.prompt)) + task.length
    context_length = min(
        (
            length
            for model in list_models(task.model)
            if uses_attention(model)
            and resolve_window(task.context_window, length := model.config.context_length)
            == "cached"
        ),
        default=tokens,
    )
    if tokens > context_length:
        kept = count_kept_tokens(task.context_window, context_length)
        console.note(
            f"The text is longer than the context of {pluralize(context_length, 'token')}: "
            f"whenever that is full, it drops to the last {kept} (cached). With --context-window "
            "exact it drops one token at a time, like the original, which is slow."
        )
