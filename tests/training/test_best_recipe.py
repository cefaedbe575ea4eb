"""Recipe best computes what an independent program of the same recipe does.

The losses are those of a single-file program with its own model, optimizers and average of
the weights, given the same initial weights and windows, without dropout, in float32. Rounding
grows from step to step: with its weights changed by 1e-7, that program differs from itself by
up to 1.5e-3 in 50 steps of a smaller batch.
"""

import pytest
import torch
from learning import CPU

from drakegpt.config import resolve
from drakegpt.data.sources import load_or_prepare_sample
from drakegpt.models.initialization import build_initial_model
from drakegpt.training.reports import Step
from drakegpt.training.trainer import Trainer

LOSSES = [
    3.87002, 3.87887, 3.87256, 3.85699, 3.84987, 3.84978, 3.829, 3.80295, 3.79992, 3.76855,
    3.74826, 3.73693, 3.70788, 3.71246, 3.68407, 3.67044, 3.65283, 3.64408, 3.63464, 3.6239,
    3.63359, 3.60122, 3.59735, 3.58494, 3.58481, 3.56693, 3.53963, 3.53143, 3.50455, 3.51197,
    3.49735, 3.48191, 3.44863, 3.43282, 3.44402, 3.42024, 3.40105, 3.36159, 3.3689, 3.34169,
    3.32424, 3.31083, 3.29167, 3.2806, 3.28875, 3.26342, 3.21005, 3.21697, 3.2217, 3.18085,
]  # fmt: skip
SETTINGS = {
    "recipe": "best", "context_length": 16, "embedding_dim": 32, "num_heads": 2, "num_layers": 2,
    "dropout": 0.0, "token_dropout": 0.0,
}  # fmt: skip


def test_fifty_losses_are_those_of_another_program():
    data, _ = load_or_prepare_sample(None)
    config = resolve("TransformerLM", "default", data.name, SETTINGS)
    torch.manual_seed(config.seed)
    shape = config.model_settings(data.tokenizer.vocab_size)
    model = build_initial_model(shape, config.init)
    reports = Trainer(config, model, data.split("train"), data.split("val"), CPU).reports()
    losses = [report.loss.item() for report, _ in zip(reports, LOSSES, strict=False)
              if isinstance(report, Step)]  # fmt: skip
    assert losses == pytest.approx(LOSSES, abs=1e-3)
