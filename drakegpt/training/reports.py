"""What a trainer reports: steps, evaluations, and estimates of its length.

Not here: training itself (`trainer`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from drakegpt.models.layers import LanguageModel
from drakegpt.training.time_limit import Estimate


@dataclass(frozen=True)
class Step:
    """A finished iteration. The loss, in nats, is that of its batch, before the update."""

    iteration: int
    loss: Tensor  # scalar, still on the device: reading it waits for a GPU
    learning_rate: float


@dataclass(frozen=True)
class Evaluation:
    """Losses in nats after `iteration` steps, estimated on the training and a held-out split.

    They come from windows spread evenly over each split, with the original's recipe from
    random ones; the held-out split may be scored as a whole instead
    (`loss_estimates.scores_whole_validation`). It is the validation split or, if the settings
    say so, the tail of the training split, which is then not trained on.
    """

    iteration: int
    train_loss: float
    val_loss: float  # of the held-out split
    learning_rate: float  # of the last step
    tokens_per_second: float  # of training steps alone
    seconds: float  # of training and evaluation, since the start of the run
    scored_on: str = "validation"  # the held-out split, as in the setting `select_on`
    sample: str = ""  # what the evaluated weights wrote then, if that was due


class WriteSample(Protocol):
    """Writes a text with a model at an evaluation, or returns an empty one if none is due."""

    def __call__(
        self, model: LanguageModel, iteration: int, earlier: Sequence[Evaluation], *, last: bool
    ) -> str:
        """`earlier`: the evaluations before; `last`: training ends after this one."""


Report = Step | Evaluation | Estimate
