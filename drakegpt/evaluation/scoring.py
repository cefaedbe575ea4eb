"""Computes the exact loss of a model over whole splits: every token is scored once.

Training estimates losses from random windows; here a split is read in consecutive
windows, so a score has no sampling error and is the same every time.

Not here: which weights of a run are scored, and storing scores (`runs.scores`).
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from drakegpt.data.dataset import Dataset
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.data.windows import sequential_windows
from drakegpt.evaluation.score import Score
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import choose_batch_tokens, mean_loss

TokenReport = Callable[[int], object]  # told how many tokens were scored since the last call

COUNT_CHUNK = 2**20  # tokens whose characters are counted at once


def score_validation_split(
    model: LanguageModel, data: Dataset, device: torch.device, report: TokenReport | None = None
) -> Score:
    """Score a model, which is on `device`, on the whole validation split."""
    return score_tokens(model, get_validation_tokens(data), data.tokenizer, device, report)


def score_training_tail(
    model: LanguageModel, data: Dataset, device: torch.device, report: TokenReport | None = None
) -> Score:
    """Score a model on the tail of the training split, after the token before it."""
    trained_on, tail = data.select_splits(tail=True)
    tokens = torch.cat([trained_on[-1:], tail])
    return score_tokens(model, tokens, data.tokenizer, device, report)


def get_validation_tokens(data: Dataset) -> Tensor:
    """Return the training split's last token and the validation split, (N + 1,)."""
    return torch.cat([data.split("train")[-1:], data.split("val")])


def count_characters(tokens: Tensor, tokenizer: Tokenizer) -> int:
    """Count the characters that tokens, (N,), encode; at least one, as it is a divisor."""
    counts = torch.from_numpy(tokenizer.count_characters())
    return max(1, sum(int(counts[part.long()].sum()) for part in tokens.split(COUNT_CHUNK)))


def score_tokens(
    model: LanguageModel,
    tokens: Tensor,
    tokenizer: Tokenizer,
    device: torch.device,
    report: TokenReport | None = None,
) -> Score:
    """Score all tokens but the first, in batches of windows."""
    context_length = model.config.context_length
    batch_size = max(1, choose_batch_tokens(device, model.config) // context_length)
    batches = sequential_windows(tokens, context_length, batch_size)
    if report:
        batches = _report_batches(batches, report)
    loss, predicted = mean_loss(model, batches, device), tokens[1:]
    return Score(loss, len(predicted), count_characters(predicted, tokenizer))


def _report_batches(
    batches: Iterable[tuple[Tensor, Tensor]], report: TokenReport
) -> Iterator[tuple[Tensor, Tensor]]:
    for inputs, targets in batches:
        yield inputs, targets
        report(inputs.numel())
