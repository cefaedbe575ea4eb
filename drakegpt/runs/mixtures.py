"""Ensembles of runs, and runs that are mixed with the n-gram counts of their training text.

Runs that were trained without the tail of the training split (`select_on`) have weights that are
fitted on it, beside counts that leave it out too. The counts that are mixed in are then counted
again, with the tail: a longer text, for which the same weights are close to the best. All other
runs have general weights, fitted on other texts. The validation split has no part in either.

    runs/<name>/mixture.json          the weights of the last mixture of which the run was the first
    runs/<name>/mixture_scores.json   the scores of that mixture, or of the last ensemble

Not here: the arithmetic of mixtures (`models.mixture`), single runs' scores (`scores`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from drakegpt import files
from drakegpt.data.dataset import Dataset
from drakegpt.data.ngrams import NGrams, fit, limit_order
from drakegpt.data.stored_ngrams import load_ngrams
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.errors import UsageError
from drakegpt.evaluation.mixture_scoring import (
    FittedWeights,
    MixtureScores,
    fit_mixture_weights,
    score_mixture,
)
from drakegpt.evaluation.scoring import get_validation_tokens
from drakegpt.models.layers import LanguageModel
from drakegpt.models.mixture import (
    Mixture,
    WeightedCounts,
    load_general_weights,
    weights_from_json,
)
from drakegpt.runs.run import Run, open_run
from drakegpt.runs.stored_scores import count_validation_scoring, identify_scored, parse_score
from drakegpt.runs.weights_file import PretrainedModel

WEIGHTS, SCORES = "mixture.json", "mixture_scores.json"
HIGHEST_ORDER = 8  # of counts; 10 takes twice the memory and gains 0.0004 nats


@dataclass(frozen=True)
class RunMixture:
    """Runs whose probabilities are averaged, loaded; with counts, if that was asked for."""

    runs: tuple[Run, ...]
    data: Dataset
    mixture: Mixture
    device: torch.device
    ngrams: NGrams | None = None  # the counts in the mixture
    fitted: FittedWeights | None = None  # their weights


def load_run_mixture(
    runs: Sequence[Run], device: torch.device, *, counts: bool = False
) -> RunMixture:
    """Load the last weights of runs on one dataset as a mixture, with counts of its training split.

    Raises `UsageError` if the runs are not on one version of a dataset, and what
    `Run.load_model` and `Run.load_dataset` raise.
    """
    _check_dataset(runs)
    data = runs[0].load_dataset()
    models = tuple(run.load_model(device) for run in runs)
    if not counts:
        return RunMixture(tuple(runs), data, Mixture(models), device)
    if all(run.config.holds_out_tail and not run.config.init_from for run in runs):
        fitted = _read_weights(runs) or _fit_and_store(runs, models, data, device)
    else:  # a run may have seen the tail
        order = limit_order(data.tokenizer.vocab_size, HIGHEST_ORDER)
        fitted = FittedWeights(order, load_general_weights())
    ngrams = load_ngrams(data, fitted.order)
    mixture = Mixture(models, WeightedCounts(ngrams, fitted.weights))
    return RunMixture(tuple(runs), data, mixture, device, ngrams, fitted)


def score_run_mixture(loaded: RunMixture) -> MixtureScores:
    """Score a mixture and its parts on the whole validation split, and count that for each run.

    Scores of the same runs and weights that are stored are returned as they are.
    """
    of = _identify_mixture(loaded)
    path = loaded.runs[0].folder / SCORES
    if stored := _read_scores(path, of):
        return stored
    loaded.data.verify()
    tokens = get_validation_tokens(loaded.data)
    scores = score_mixture(loaded.mixture, tokens, loaded.data.tokenizer, loaded.device)
    for run in loaded.runs:
        count_validation_scoring(run)
    files.write_text(path, json.dumps({"of": of, "scores": asdict(scores)}, indent=2))
    return scores


def _identify_mixture(loaded: RunMixture) -> dict[str, Any]:
    """Return what scores belong to: the weights of the runs, and those of the counts."""
    weights = loaded.fitted and {
        "order": loaded.fitted.order, **loaded.fitted.weights.to_json()
    }  # fmt: skip
    return {"runs": [identify_scored(run) for run in loaded.runs], "weights": weights}


def _read_scores(path: Path, of: Mapping[str, Any]) -> MixtureScores | None:
    """Read stored scores, if they are complete and those of this mixture."""
    try:
        stored = files.parse_json(path.read_text(encoding="utf-8"))
        if stored["of"] != of:
            return None
        scores = stored["scores"]
        models = [score for each in scores["models"] if (score := parse_score(each))]
        ensemble, *mixed = (parse_score(scores[name]) for name in ("ensemble", "counts", "mixture"))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if not ensemble or len(models) != len(of["runs"]) or (of["weights"] and not all(mixed)):
        return None
    return MixtureScores(tuple(models), ensemble, *mixed)


def load_members(
    members: Sequence[PretrainedModel],
    device: torch.device,
    *,
    counts: bool = False,
    best: bool = False,
) -> LanguageModel | Mixture:
    """Load a model, or the mixture of several with one tokenizer; with counts, if asked for.

    `best` as in `PretrainedModel.load_model`. Raises `UsageError` for different tokenizers,
    for counts beside a weights file or `best`, and as `load_run_mixture` does.
    """
    if counts:
        if best:
            raise UsageError(
                "The weights of counts are fitted for the last weights of a run.",
                "Leave --best or --counts out.",
            )
        return load_run_mixture(
            [open_member(each) for each in members], device, counts=True
        ).mixture
    for member in members[1:]:
        _check_tokenizer(member.name, member.tokenizer, members[0].name, members[0].tokenizer)
    models = tuple(member.load_model(device, best=best) for member in members)
    return models[0] if len(models) == 1 else Mixture(models)


def load_common_text(members: Sequence[PretrainedModel]) -> Dataset:
    """Load the dataset that all these models were trained on.

    Raises `UsageError` for a weights file, and for runs on several versions or datasets.
    """
    runs = [open_member(member) for member in members]
    _check_dataset(runs)
    return runs[0].load_dataset()


def open_member(member: PretrainedModel) -> Run:
    """Open the run of a pretrained model, which names its text.

    Raises `UsageError` for a weights file.
    """
    if not member.path.is_dir():
        raise UsageError(
            f"{member.path} does not say which text it was trained on.",
            "Name a run, or leave out what needs that text: counts, and a measure of copying.",
        )
    return open_run(member.path)


def _fit_and_store(
    runs: Sequence[Run], models: Sequence[LanguageModel], data: Dataset, device: torch.device
) -> FittedWeights:
    """Fit the weights of counts on the tail of the training split, and store them."""
    data.verify()
    trained_on, tail = data.select_splits(tail=True)
    ngrams = fit(trained_on.numpy(), data.tokenizer.vocab_size, HIGHEST_ORDER)
    fitted = fit_mixture_weights(models, ngrams, torch.cat([trained_on[-1:], tail]), device)
    values = {
        "of": [identify_scored(run) for run in runs],
        "order": fitted.order,
        "loss": fitted.loss,
        "tokens": fitted.tokens,
        "weights": fitted.weights.to_json(),
    }
    files.write_text(runs[0].folder / WEIGHTS, json.dumps(values, indent=2))
    return fitted


def _read_weights(runs: Sequence[Run]) -> FittedWeights | None:
    """Read the weights that were fitted for these runs, if they are stored."""
    try:
        stored = files.parse_json((runs[0].folder / WEIGHTS).read_text(encoding="utf-8"))
        if stored["of"] != [identify_scored(run) for run in runs]:
            return None
        order, tokens = int(stored["order"]), int(stored["tokens"])
        weights = weights_from_json(stored["weights"])
        return FittedWeights(order, weights, float(stored["loss"]), tokens)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _check_dataset(runs: Sequence[Run]) -> None:
    """Raise `UsageError` unless all runs are on one version of a dataset, with one tokenizer."""
    first, *others = runs
    for run in others:
        _check_tokenizer(run.name, run.tokenizer, first.name, first.tokenizer)
        if run.info["dataset_version"] != first.info["dataset_version"]:
            raise UsageError(
                f"{run.name} and {first.name} are on different texts: a version of "
                f"'{run.config.data}' and one of '{first.config.data}'.",
                "Name runs on one version of a dataset: others may have been trained on its "
                "validation split.",
            )


def _check_tokenizer(name: str, tokenizer: Tokenizer, first_name: str, first: Tokenizer) -> None:
    if tokenizer.to_json() != first.to_json():
        raise UsageError(
            f"{name} has another tokenizer than {first_name}.",
            "Name runs on one dataset: probabilities can be averaged for the same tokens only.",
        )
