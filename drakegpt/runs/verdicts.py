"""Judges a run: collects the facts that a verdict is based on, and keeps what took a pass to find.

    runs/<name>/standing.json   the figures of that pass, and the weights that they belong to
    runs/<name>/standing_of_best.json   the same for those of the best evaluation

The pass reads at most `MAX_TOKENS` tokens of the validation split, and scores n-gram counts of
the training split beside the model. These are kept beside the dataset; of longer texts only
pairs and threes are counted, of still longer ones nothing, so that a verdict takes seconds.

Not here: what the facts mean (`evaluation.verdict`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from drakegpt import files
from drakegpt.compute.device import choose_device
from drakegpt.data.dataset import Dataset
from drakegpt.data.ngrams import NGrams
from drakegpt.data.stored_ngrams import load_ngrams
from drakegpt.evaluation.mixture_scoring import FittedWeights
from drakegpt.evaluation.scoring import count_characters, get_validation_tokens
from drakegpt.evaluation.standing import Counting, Standing, measure_standing
from drakegpt.evaluation.trend import judge_trend
from drakegpt.evaluation.verdict import Facts, Verdict, judge
from drakegpt.models.mixture import load_general_weights
from drakegpt.runs.mixtures import HIGHEST_ORDER, load_run_mixture
from drakegpt.runs.references import find_reference
from drakegpt.runs.run import Run
from drakegpt.runs.stored_scores import (
    count_validation_scoring,
    identify_scored,
    read_scores,
    read_validation_score,
)

FILE, FILE_OF_BEST = "standing.json", "standing_of_best.json"
MAX_TOKENS = 2**17  # of the validation split, from its start: the split of a text of 1.3 MB
# Tokens of the training split up to which all n-grams are counted, and pairs and threes.
COUNTED_TOKENS, SHORT_COUNTED_TOKENS = 2**22, 2**26
SHORT_ORDER = 3


def judge_run(run: Run, device_name: str = "auto", *, best: bool = False) -> Verdict:
    """Judge a run's last weights, with at most one pass over the validation split.

    `best`: where its loss stands is measured with the weights of the best evaluation. What
    `score_run` has stored is used, if it was called before. Raises `RunError` or `CorpusError` if
    the checkpoint or the dataset is missing or damaged.
    """
    return judge(collect_facts(run, device_name, best=best))


def collect_facts(run: Run, device_name: str = "auto", *, best: bool = False) -> Facts:
    """Collect the facts of a verdict; raises as `judge_run` does."""
    data = run.load_dataset()
    tokens = get_validation_tokens(data)[: MAX_TOKENS + 1]
    reached = run.last_checkpoint().iteration
    best = best and run.ending.get("best_iteration") not in (None, reached)
    standing = read_standing(run, best=best) or _measure_and_store(
        run, data, tokens, device_name, best=best
    )
    evaluations = [line for line in run.evaluations if line["iteration"] <= reached]
    scores = read_scores(run)
    exact = (scores.val.loss, scores.best_val.loss) if scores else None
    if scores:
        train_loss: float | None = scores.train.loss
    else:
        train_loss = evaluations[-1]["train_loss"] if evaluations else None
    return Facts(
        config=run.config,
        standing=standing,
        trend=judge_trend(evaluations, exact),
        train_loss=train_loss,
        unit=run.tokenizer.unit,
        characters_per_token=count_characters(tokens[1:], run.tokenizer) / (len(tokens) - 1),
        train_tokens=len(data.select_splits(tail=run.config.holds_out_tail)[0]),
        iterations=reached,
        reference=find_reference(run),
    )


def _measure_and_store(
    run: Run, data: Dataset, tokens: torch.Tensor, device_name: str, *, best: bool
) -> Standing:
    """Measure where a run stands, and store that; counts as a scoring of the validation split."""
    data.verify()
    device = choose_device(device_name)
    model = run.load_model(device, best=best)
    standing = measure_standing(model, tokens, device, *_load_counts(run, data, device))
    if best or read_validation_score(run) is None:  # else these weights were scored before
        count_validation_scoring(run)
    values = {"of": _identify(run, best=best), **asdict(standing)}
    files.write_text(run.folder / (FILE_OF_BEST if best else FILE), json.dumps(values, indent=2))
    return standing


def _identify(run: Run, *, best: bool) -> dict[str, Any]:
    """Return what figures belong to: the weights and the dataset."""
    of: dict[str, Any] = identify_scored(run)
    return of | {"best_iteration": run.ending["best_iteration"]} if best else of


def _load_counts(
    run: Run, data: Dataset, device: torch.device
) -> tuple[NGrams | None, FittedWeights | None]:
    """Load the counts that are scored beside a run, and the weights that mix both.

    A run that held out the tail of its training split has weights of its own: those of
    `eval --counts`.
    """
    length = data.metadata.train_tokens
    if length > SHORT_COUNTED_TOKENS:
        return None, None
    if length > COUNTED_TOKENS:
        return load_ngrams(data, SHORT_ORDER), None
    counts = load_ngrams(data, HIGHEST_ORDER)
    if run.config.holds_out_tail and not run.config.init_from:
        return counts, load_run_mixture([run], device, counts=True).fitted
    return counts, FittedWeights(counts.order, load_general_weights())


def read_standing(run: Run, *, best: bool = False) -> Standing | None:
    """Read the stored figures, if they are complete and belong to the present weights."""
    try:
        path = run.folder / (FILE_OF_BEST if best else FILE)
        values = files.parse_json(path.read_text(encoding="utf-8"))
        if values.pop("of") != _identify(run, best=best):
            return None
        countings = tuple(_parse_counting(each) for each in values.pop("countings"))
        standing = Standing(**values, countings=countings)
        numbers = (standing.loss, standing.right, standing.mixture, standing.long_counting)
        valid = type(standing.tokens) is int and all(
            type(number) is float or number is None for number in numbers
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return standing if valid else None


def _parse_counting(values: Mapping[str, Any]) -> Counting:
    counting = Counting(int(values["order"]), float(values["loss"]), int(values["ngrams"]))
    if not 1 <= counting.order <= HIGHEST_ORDER:
        raise ValueError(f"no counts of order {counting.order} are scored")
    return counting
