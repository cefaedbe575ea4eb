"""The card of an exported model: what it is, what it learned from, how well, and what to mind.

It says what is known from the run's folder and its dataset; nothing is scored for it. What is
not known is said to be so, with the command that finds it out.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drakegpt.data.dataset import Dataset
from drakegpt.errors import DrakeGPTError
from drakegpt.evaluation.originality import LENGTHS
from drakegpt.evaluation.scoring import count_characters, get_validation_tokens
from drakegpt.models.size import count_total_parameters
from drakegpt.report.reproduce import describe_reproduction
from drakegpt.runs.brief_originality import CHARACTERS, TEXTS, BriefOriginality, read_stored
from drakegpt.runs.run import Run
from drakegpt.runs.stored_scores import read_scores, read_validation_score
from drakegpt.runs.verdicts import read_standing
from drakegpt.wording import escape_control_characters, format_command, pluralize

WARNING = (
    "The weights of a small model are partly its text: pieces of what it learned from can be read "
    "out of them, word for word. Pass it on only where you may pass on the text."
)
NO_LICENCE = "not stated: fill it in when you pass the model on, for the text and the weights"


@dataclass(frozen=True)
class Loss:
    """A loss on the validation split. One per character of a BPE text needs the dataset."""

    nats_per_token: float
    bits_per_character: float | None
    note: str = ""  # how it was measured, if not on the whole split


@dataclass(frozen=True)
class Counts:
    """What n-gram counts of the training split reach on the validation split."""

    order: int
    ngrams: int
    loss: Loss


@dataclass(frozen=True)
class Facts:
    """What is known of a run; `None` and empty where nothing is."""

    run: Run
    best: bool  # of the weights of the best evaluation, not the last
    data: Dataset | None
    loss: Loss | None
    counts: tuple[Counts, ...]  # of two characters or tokens, and of the best order
    originality: BriefOriginality | None


def collect_facts(run: Run, *, best: bool = False) -> Facts:
    """Collect what is known of a run's weights, last or best, without scoring anything."""
    try:
        data = run.load_dataset()
    except DrakeGPTError:  # it was removed, or is on another machine
        data = None
    last = run.ending.get("best_iteration") == run.last_evaluation.get("iteration")
    copied = read_stored(run) if last or not best else None
    return Facts(run, best, data, _find_loss(run, best=best), _find_counts(run, data), copied)


def _find_loss(run: Run, *, best: bool) -> Loss | None:
    """Return the exact loss if it is stored, else the estimate of the evaluation."""
    scores = read_scores(run) if best else None
    if score := scores.best_val if scores else None if best else read_validation_score(run):
        return Loss(score.loss, score.bits_per_character)
    chosen = _find_best_evaluation(run) if best else run.last_evaluation
    if not chosen or chosen.get("scored_on", "validation") != "validation":
        return None
    loss = chosen["val_loss"]
    return Loss(loss, _to_bits(run, loss, None), "an estimate, on parts of the split")


def _find_best_evaluation(run: Run) -> dict[str, Any]:
    """Return the evaluation that gave the best weights; empty if none did."""
    iteration = run.ending.get("best_iteration")
    return next((line for line in run.evaluations if line["iteration"] == iteration), {})


def _find_counts(run: Run, data: Dataset | None) -> tuple[Counts, ...]:
    standing = read_standing(run)
    best = standing.lowest_counting if standing else None
    if not standing or not best:
        return ()
    per_token = None
    if data and run.tokenizer.kind != "char":
        tokens = get_validation_tokens(data)[: standing.tokens + 1]
        per_token = count_characters(tokens[1:], data.tokenizer) / standing.tokens
    shown = {2, best.order}
    return tuple(
        Counts(each.order, each.ngrams, Loss(each.loss, _to_bits(run, each.loss, per_token)))
        for each in standing.countings
        if each.order in shown
    )


def _to_bits(run: Run, loss: float, characters_per_token: float | None) -> float | None:
    if run.tokenizer.kind == "char":
        characters_per_token = 1.0
    return loss / math.log(2) / characters_per_token if characters_per_token else None


# --- The card -----------------------------------------------------------------------------------


def write_card(facts: Facts, licence: str, tags: Sequence[str], parts: Sequence[str]) -> str:
    """Write the card as Markdown, with the header that Hugging Face's sites read.

    `licence`: of the text and the model, left to fill if empty; `tags`: lines of the header;
    `parts`: what is to be said of this form of the model, after its first paragraph.
    """
    licence = " ".join(licence.split())
    header = ["---", *_describe_licence(licence), *tags, "tags:", "- drakegpt", "---"]
    sections = [
        "\n".join(header),
        f"# {_plain(facts.run.name)}",
        _describe_model(facts.run, best=facts.best),
        *parts,
        f"**{WARNING}**",
        "## Text\n\n" + _describe_text(facts),
        "## Loss\n\n" + _describe_losses(facts),
        "## Copying\n\n" + _describe_copying(facts),
        "## Training\n\n" + _describe_training(facts),
        f"## Licence\n\n{_plain(licence) or NO_LICENCE.capitalize() + '.'}",
    ]
    return make_readable("\n\n".join(sections) + "\n")


def make_readable(text: str) -> str:
    """Replace what no file of text should hold: control characters, and halves of characters."""
    return escape_control_characters(text).encode("utf-8", "replace").decode("utf-8")


def _describe_licence(licence: str) -> list[str]:
    """Return the lines of the header: a known name has no spaces, others are named apart."""
    if not licence:
        return ["# license: fill in, for the text and the weights"]
    if re.fullmatch(r"[A-Za-z0-9][\w.+-]*", licence):
        return [f"license: {json.dumps(licence.lower())}"]
    return ["license: other", f"license_name: {json.dumps(licence)}"]


def _describe_model(run: Run, *, best: bool) -> str:
    config, unit = run.model_config, run.tokenizer.unit
    size = pluralize(count_total_parameters(config), "parameter")
    at = f"at iteration {run.ending['best_iteration']:,}" if best else ""
    return (
        f"{config.model} of drakegpt, with {size}, context {config.context_length:,}, width "
        f"{config.embedding_dim:,} and a vocabulary of {config.vocab_size:,}. It predicts the next "
        f"{unit} of a text like the one that it learned from, and nothing else."
        + (f" Its weights are those of its best evaluation, {at}." if best else "")
    )


def _describe_text(facts: Facts) -> str:
    run, data = facts.run, facts.data
    name = f"Dataset {_code(run.config.data)}, version {_code(run.info['dataset_version'][:16])}"
    if not data:
        return f"{name}; it is not on the machine where the model was exported."
    about = data.metadata
    kind = "characters" if about.tokenizer == "char" else "tokens of byte-level BPE"
    split = "whole songs" if about.split == "songs" else "its last tenth"
    sentences = [
        f"{name}: {pluralize(about.characters, 'character')}, as {about.vocab_size:,} different "
        f"{kind}.",
        f"The validation split is {split}: {pluralize(about.val_tokens, 'token')} beside "
        f"{about.train_tokens:,} for training.",
        about.overlap,
    ]
    return " ".join(filter(None, sentences))


def _describe_losses(facts: Facts) -> str:
    run, unit = facts.run, facts.run.tokenizer.unit
    if not facts.loss:
        return f"Not scored: `{format_command('eval', run.name)}` does that."
    lines = [
        f"| on the validation split | bits per character | nats per {unit} |",
        "| --- | --- | --- |",
        _row("this model" + (f" ({facts.loss.note})" if facts.loss.note else ""), facts.loss),
        *(
            _row(f"counts of {each.order} {unit}s in a row ({each.ngrams:,} stored)", each.loss)
            for each in facts.counts
        ),
    ]
    if not facts.counts:
        lines += ["", f"Counts are scored beside it by `{format_command('eval', run.name)}`."]
    return "\n".join(lines)


def _row(name: str, loss: Loss) -> str:
    bits = "" if loss.bits_per_character is None else f"{loss.bits_per_character:.4f}"
    return f"| {name} | {bits} | {loss.nats_per_token:.4f} |"


def _describe_copying(facts: Facts) -> str:
    copied = facts.originality
    if not copied:
        if facts.best:
            measuring = format_command("eval", facts.run.name, originality=True, best=True)
            return f"Not measured for these weights: `{measuring}` shows it."
        measuring = format_command("export page", facts.run.name)
        return f"Not measured: `{measuring}` does that, and keeps it."
    knows = " That is more than people repeat each other." if copied.memorizes else ""
    return (
        f"Of {TEXTS} texts of {CHARACTERS} characters that it wrote, {copied.share:.1%} stand in "
        f"runs of {LENGTHS[0]} characters or more that the training text has word for word. The "
        f"longest has {pluralize(copied.longest, 'character')}.{knows}"
    )


def _describe_training(facts: Facts) -> str:
    if not facts.data:
        trained = format_command("runs show", facts.run.name)
        return f"Its settings: `{trained}`, where it was trained."
    made = describe_reproduction([[facts.run]])
    command = made.runs[0][0].command
    lines = [text.command for text in made.texts] + ([command] if command else [])
    block = "```sh\n" + "\n".join(" ".join(line.split("\n")) for line in lines) + "\n```"
    notes = [made.runs[0][0].note, *(each for each, _ in made.environments)]
    return f"{block}\n\n{'; '.join(map(_plain, filter(None, notes)))}."


def _code(text: str) -> str:
    """Format a name from outside as code."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def _plain(text: str) -> str:
    """Escape what Markdown, or HTML in it, would read as something else."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))
