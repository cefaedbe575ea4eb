"""The losses that a trainer estimates: which windows of a split they are of, and their mean.

Not here: when a trainer evaluates (`trainer`), and exact losses of whole splits (`evaluation`).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from drakegpt.config import TrainConfig
from drakegpt.data.windows import Stream, random_windows, sequential_windows, spread_windows
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import choose_batch_tokens, mean_loss
from drakegpt.training.distributed import ProcessGroup


def scores_whole_validation(config: TrainConfig, tokens: int) -> bool:
    """Return whether evaluations score the whole held-out split, of `tokens` tokens.

    They do if that takes no longer than `eval_iters` batches; it is exact as well. The
    original's recipe always uses random windows.
    """
    return config.recipe != "original" and tokens <= _count_drawn_tokens(config)


def count_evaluated_tokens(config: TrainConfig, tokens: int) -> int:
    """Return how many tokens an evaluation scores, given those of the held-out split."""
    drawn = _count_drawn_tokens(config)
    return drawn + (tokens if scores_whole_validation(config, tokens) else drawn)


def _count_drawn_tokens(config: TrainConfig) -> int:
    return config.eval_iters * config.batch_size * config.context_length


class LossEstimator:
    """Estimates the loss of a model on the training split and on the held-out one."""

    def __init__(
        self,
        config: TrainConfig,
        train_tokens: Tensor,
        val_tokens: Tensor,
        device: torch.device,
        group: ProcessGroup,
    ) -> None:
        """`train_tokens` and `val_tokens`, the held-out split: (N,) on `device`."""
        self._config, self._device, self._group = config, device, group
        self._splits = {Stream.ESTIMATE_TRAIN: train_tokens, Stream.ESTIMATE_VAL: val_tokens}

    @property
    def evaluated_tokens(self) -> int:
        """The tokens that are scored for both losses."""
        return count_evaluated_tokens(self._config, len(self._splits[Stream.ESTIMATE_VAL]))

    def estimate(self, model: LanguageModel, iteration: int) -> tuple[float, float]:
        """Return the losses of both splits; the windows may depend on the iteration."""
        train_loss, val_loss = (self._estimate(model, stream, iteration) for stream in self._splits)
        return train_loss, val_loss

    def _estimate(self, model: LanguageModel, stream: Stream, iteration: int) -> float:
        """Return the mean loss of a split; each process scores its share of the windows."""
        at_once = choose_batch_tokens(self._device, model.config) // self._config.context_length
        batches = list(self._iterate_batches(stream, iteration, max(1, at_once)))
        batches = batches[self._group.rank :: self._group.size]
        loss = mean_loss(model, batches, self._device) if batches else 0.0
        if self._group.size == 1:
            return loss
        tokens = sum(targets.numel() for _, targets in batches)
        weighted = torch.tensor([loss * tokens, tokens], device=self._device)
        self._group.average(weighted)
        return float(weighted[0] / weighted[1])

    def _iterate_batches(
        self, stream: Stream, iteration: int, at_once: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the windows of a split: batches, of `at_once` at most, of inputs and targets."""
        config, tokens = self._config, self._splits[stream]
        at_once = min(at_once, max(1, config.eval_iters * config.batch_size // self._group.size))
        if stream is Stream.ESTIMATE_VAL and scores_whole_validation(config, len(tokens)):
            # The first token is scored too, given the last training token before it.
            tokens = torch.cat([self._splits[Stream.ESTIMATE_TRAIN][-1:], tokens])
            return sequential_windows(tokens, config.context_length, at_once)
        count = config.eval_iters * config.batch_size
        if config.recipe == "original":
            windows = random_windows(
                tokens, config.context_length, count, config.seed, stream, iteration
            )
        else:
            windows = spread_windows(tokens, config.context_length, count)
        return zip(*(part.split(at_once) for part in windows), strict=True)
