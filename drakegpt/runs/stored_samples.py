"""The texts that a run wrote while it was trained: read from its metrics, some along its curve.

Not here: when they are written (`training_samples`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """A text that was written in training, and the losses estimated then, in nats."""

    iteration: int
    train_loss: float
    val_loss: float  # of the held-out split
    text: str


def list_samples(evaluations: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """List the samples among the evaluations of a run, oldest first."""
    return [
        Sample(line["iteration"], line["train_loss"], line["val_loss"], line["sample"])
        for line in evaluations
        if line.get("sample")
    ]


def choose_samples(samples: Sequence[Sample], number: int) -> list[Sample]:
    """Choose up to `number` samples along a curve.

    These are the first, the last, and between them those whose held-out losses lie closest
    to equal steps.
    """
    if len(samples) <= number:
        return list(samples)
    first, last = samples[0].val_loss, samples[-1].val_loss
    chosen = {0, len(samples) - 1}
    for place in range(1, number - 1):
        wanted = first + (last - first) * place / (number - 1)
        free = [index for index in range(len(samples)) if index not in chosen]
        chosen.add(min(free, key=lambda index: abs(samples[index].val_loss - wanted)))
    return [samples[index] for index in sorted(chosen)]
