"""What makes a page live: scripts, and what they read as one JSON: models, counts and texts.

The models of the page are rounded (`embedded_model`), and so each is scored again: the loss
beside a model is that of the weights in the page.

Not here: the page around it (`page`), and what the scripts do (`engine`, `views`).
"""

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from drakegpt.config import LADDER
from drakegpt.data.dataset import Dataset
from drakegpt.errors import UsageError
from drakegpt.evaluation.attribution import HeadRole, find_head_roles
from drakegpt.evaluation.score import Score
from drakegpt.evaluation.scoring import score_validation_split
from drakegpt.evaluation.surprisal import Verse, find_verse
from drakegpt.experiments.ladder import Comparison
from drakegpt.experiments.results import ResultRow
from drakegpt.models.layers import LanguageModel
from drakegpt.models.packed_linear import PackedLinear, count_bytes
from drakegpt.models.registry import MODELS, is_built_in
from drakegpt.progress import Progress, silent
from drakegpt.report.counts import pack_counts
from drakegpt.report.embedded_model import (
    PACKED_TYPES,
    Precision,
    embed_model,
    embed_tokenizer,
    is_half,
    round_weights_,
)
from drakegpt.report.engine_files import read_engine, read_views, read_views_style
from drakegpt.report.explanations import describe_idea, explain
from drakegpt.report.plots import Mark, assign_marks
from drakegpt.report.samples import SEED, Samples
from drakegpt.runs.run import Run
from drakegpt.runs.stored_samples import choose_samples, list_samples
from drakegpt.wording import pluralize

log = logging.getLogger("drakegpt")

FORMAT = 1  # of the JSON
MOST_CHARACTERS = 2000  # of a text that the views begin with; `MOST_TEXT` in `views/page.js`
# Weights from which models are rounded to 8 bits, if nothing else is asked.
ROUNDED_FROM = 200_000
LARGEST = 25_000_000  # bytes of a page: more are slow to send and to open
BASE64 = 4 / 3  # characters for a byte
TO_GUESS = 2000  # characters of the held-out text that can be guessed
LEAST_TO_GUESS = 50
ORDINARY_LINE = re.compile(r"^(\w[\w']* ).{20}", re.MULTILINE)
BEFORE = 1000  # characters that models read before a text
LEARNING = 8  # texts that a run wrote while it was trained
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Live:
    """The parts of a page that make it live, as text."""

    style: str
    script: str
    engine: str
    models: str  # JSON
    count: int  # of models
    can_guess: bool = True  # there is text to guess, and a model that reads characters


@dataclass(frozen=True)
class Candidate:
    """A run whose model may be in the page, with its row and its mark."""

    run: Run
    row: ResultRow
    mark: Mark
    model: LanguageModel  # rounded
    rounded: bool

    @property
    def bytes(self) -> int:
        """About how many characters its weights take in the page."""
        return int(BASE64 * _count_stored_bytes(self.model))


def make_live(
    data: Dataset,
    comparison: Comparison,
    runs: Sequence[Sequence[Run]],
    samples: Samples,
    *,
    precision: Precision | None = None,
    text: str = "",
    all_of_them: bool = False,
    progress: Progress = silent,
) -> Live | None:
    """Make a page of a comparison live, with the first run of each row.

    `None` if no model can be in it: one that diverged cannot, nor one of somebody's own, which
    the engine does not know, nor one that is too large. A warning names each, with the reason.

    `runs`: of each row of `comparison`, one for each seed. `precision`: of the weights; by default
    `_choose_precisions` has it. `text`: what the views begin with; a verse of the held-out
    text if not given. `all_of_them`: raise `UsageError` if the models are too large for a page,
    or unknown; else these, the largest ones, and those beside the ladder but the best are left out.
    """
    marks = assign_marks(comparison)
    rows = (*comparison.rows, *comparison.others)
    firsts = [first for first, *_ in runs]
    pairs = list(zip(firsts, rows, strict=True))
    if all_of_them:
        _refuse_unknown(firsts)
    left_out = {run.name: why for run, row in pairs if (why := _find_obstacle(run, row))}
    pairs = [(run, row) for run, row in pairs if run.name not in left_out]
    if not all_of_them:
        beside = [row for _, row in pairs if row not in comparison.rows]
        best = min(beside, key=lambda row: row.bits_per_character, default=None)
        pairs = [(run, row) for run, row in pairs if row not in beside or row is best]
    chosen = _choose_precisions(comparison, precision)
    candidates = [_round(run, row, marks[run.name], chosen[run.name]) for run, row in pairs]
    kept = _keep_small(candidates, strict=all_of_them)
    left_out |= {each.run.name: "is too large" for each in candidates if each not in kept}
    if left_out:
        log.warning(_describe_left_out(left_out))
    if not kept:
        return None
    tokenizers = [data.tokenizer]
    verse = find_verse(data)
    found = {
        "format": FORMAT,
        "models": [_embed(each, tokenizers, progress) for each in kept],
        "tokenizers": [embed_tokenizer(tokenizer) for tokenizer in tokenizers],
        "counts": _embed_counts(data, comparison),
        "text": text or verse.text,
        "before": "" if text else verse.before[-BEFORE:],
        "heldOut": _choose_text_to_guess(data, verse),
        "prompt": samples.prompt,
        "seed": SEED,
        "length": samples.length,
    }
    can_guess = bool(found["heldOut"]) and any(each.row.per_character for each in kept)
    models = json.dumps(found, separators=(",", ":"), allow_nan=False)
    return Live(read_views_style(), read_views(), read_engine(), models, len(kept), can_guess)


def _find_obstacle(run: Run, row: ResultRow) -> str:
    """Say why no page can run a model; empty if one can."""
    if not is_built_in(run.config.model):
        return "is one of your own"
    return "" if math.isfinite(row.val_loss) else "has diverged"


def _refuse_unknown(runs: Sequence[Run]) -> None:
    """Raise `UsageError` for the run of a model that does not come with drakegpt."""
    for run in runs:
        if not is_built_in(run.config.model):
            raise UsageError(
                f"{run.name} has a model of your own, {run.config.model}, which a page cannot run.",
                "Leave it out, or write a page without models: --static.",
            )


def _choose_precisions(comparison: Comparison, given: Precision | None) -> dict[str, Precision]:
    """Choose how to round each row, by the name of its first run, if it is not `given`.

    The rungs of a size are rounded alike, if they have many weights together; others each for
    itself.
    """
    groups: dict[str, list[ResultRow]] = {}
    for row in comparison.rows:
        groups.setdefault(row.size, []).append(row)
    chosen: dict[str, Precision] = {}
    for group in [*groups.values(), *([row] for row in comparison.others)]:
        many = sum(row.parameters for row in group) > ROUNDED_FROM
        chosen |= {row.runs[0]: given or ("int8" if many else "float32") for row in group}
    return chosen


def _round(run: Run, row: ResultRow, mark: Mark, precision: Precision) -> Candidate:
    model = run.load_model(CPU)
    packed = any(isinstance(module, PackedLinear) for module in model.modules())
    rounded = precision != "float32" and not packed
    return Candidate(run, row, mark, round_weights_(model, precision), rounded)


def _count_stored_bytes(model: LanguageModel) -> int:
    counted = count_bytes(model)
    halves = all(map(is_half, model.parameters()))
    return counted.packed + counted.remainder // (2 if halves else 1)


def _keep_small(candidates: Sequence[Candidate], *, strict: bool) -> list[Candidate]:
    """Keep the models that a page can hold together, the smallest first.

    Raises `UsageError` if that is not all of them, and `strict`.
    """
    room = LARGEST
    kept = []
    for candidate in sorted(candidates, key=lambda each: each.bytes):
        room -= candidate.bytes
        if room >= 0:
            kept.append(candidate)
    if strict and len(kept) < len(candidates):
        total = sum(each.bytes for each in candidates)
        raise UsageError(
            f"The page would have some {total / 1e6:,.0f} MB; {LARGEST / 1e6:.0f} MB are the most "
            "that browsers open with ease.",
            "Name fewer runs, take --precision int8, or a run packed to fewer bits: "
            "`drakegpt export packed RUN --bits 1.58`.",
        )
    return [each for each in candidates if each in kept]


def _embed(candidate: Candidate, tokenizers: list[Any], progress: Progress) -> dict[str, Any]:
    """Return a model with all that the page says of it, as plain values."""
    run, row, mark, model = candidate.run, candidate.row, candidate.mark, candidate.model
    data = run.load_dataset()
    progress(f"embedding {run.name}", 0, 1)
    bits = row.results[0].bits_per_character
    if candidate.rounded:
        bits = _score_rounded(model, data, run.name, progress).bits_per_character
    kind = MODELS[run.config.model]
    samples = choose_samples(list_samples(run.evaluations), LEARNING)
    return {
        "name": run.name,
        "label": row.label,
        "model": run.config.model,
        "idea": describe_idea(run),
        "explanation": explain(run),
        "limit": kind.limit,
        "sign": mark.sign,
        "colour": mark.colour,
        "rung": LADDER.index(run.config.model) + 1 if mark.colour != "other" else None,
        "bits": bits,
        "level": bool(row.gain and row.gain.within_noise),  # with the rung before
        "parameters": row.parameters,
        "precision": _describe_precision(model),
        "tokenizer": _add_tokenizer(tokenizers, run.tokenizer),
        "roles": _list_roles(find_head_roles(model, data, CPU)),
        "samples": [
            {"iteration": each.iteration, "loss": each.val_loss, "text": each.text}
            for each in samples
            if math.isfinite(each.val_loss)
        ],
        **embed_model(model),
    }


def _score_rounded(model: LanguageModel, data: Dataset, name: str, progress: Progress) -> Score:
    scored = 0

    def report(tokens: int) -> None:
        nonlocal scored
        scored += tokens
        progress(f"scoring {name}, rounded", scored, data.metadata.val_tokens)

    return score_validation_split(model, data, CPU, report)


def _describe_precision(model: LanguageModel) -> str:
    """Name what the weights are stored in: those of the hidden layers, if they are packed."""
    for module in model.modules():
        if isinstance(module, PackedLinear):
            return PACKED_TYPES[module.bits]
    return "float16" if all(map(is_half, model.parameters())) else "float32"


def _add_tokenizer(tokenizers: list[Any], tokenizer: Any) -> int:
    """Return the index of a tokenizer, which is added if it is not there."""
    known = [each.to_json() for each in tokenizers]
    if tokenizer.to_json() not in known:
        tokenizers.append(tokenizer)
        return len(known)
    return known.index(tokenizer.to_json())


def _list_roles(roles: Sequence[HeadRole]) -> list[list[dict[str, Any]]]:
    """Return the roles of each layer's heads."""
    return [
        [{"role": head.role, "score": head.score} for head in heads]
        for _, heads in groupby(roles, key=lambda head: head.layer)
    ]


def _embed_counts(data: Dataset, comparison: Comparison) -> dict[str, Any] | None:
    """Return the counts for the page, with their loss and that of the best baseline."""
    best = comparison.lowest_baseline
    if best is None:
        return None
    packed = pack_counts(data, comparison.context_lengths[-1])
    scored = {baseline.order: baseline for baseline in comparison.baselines}
    if packed is None or packed.order not in scored:
        return None
    return packed.to_json() | {
        "sequences": scored[packed.order].ngrams,  # of all orders up to this one
        "bits": scored[packed.order].score.bits_per_character,
        "unit": best.unit,
        "full": {"order": best.order, "bits": best.score.bits_per_character},
    }


def _choose_text_to_guess(data: Dataset, verse: Verse) -> dict[str, str] | None:
    """Choose held-out text that stands nowhere else in the page: after the verse, or before it."""
    start = len(verse.before) + len(verse.text)
    whole = data.text("val", start + TO_GUESS)
    for first, end in ((start, len(whole)), (0, len(verse.before))):
        # From the second word of an ordinary line on, which is easier than a heading.
        line = ORDINARY_LINE.search(whole, first, end)
        begin = line.end(1) if line else first
        if end - begin >= LEAST_TO_GUESS:
            return {"before": whole[:begin][-BEFORE:], "text": whole[begin:end]}
    return None


def _describe_left_out(left_out: Mapping[str, str]) -> str:
    """Say which models are not in the page, and why."""
    named = [f"{name}, which {why}" for name, why in left_out.items()]
    return f"{pluralize(len(named), 'model')} not in the page: {'; '.join(named)}"


def check_text(text: str) -> None:
    """Raise `UsageError` for a text that is too long for the views to begin with."""
    if len(text) > MOST_CHARACTERS:
        raise UsageError(
            f"The text has {len(text):,} characters; a page begins with {MOST_CHARACTERS:,} at "
            "the most.",
            "Give a shorter one: a verse is enough to look into.",
        )
