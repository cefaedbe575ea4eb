"""The textbook's loops: windows as they are drawn, and losses as they are estimated."""

import pytest
import torch

from drakegpt.config import preset_model
from drakegpt.models import reference
from drakegpt.models.loss import next_token_loss


def test_windows_are_tokens_and_those_that_come_next():
    torch.manual_seed(0)
    inputs, targets = reference.draw_windows(torch.arange(10), batch_size=200, T=4)
    assert inputs.shape == targets.shape == (200, 4)
    assert torch.equal(inputs - inputs[:, :1], torch.arange(4).expand(200, -1))
    assert torch.equal(targets, inputs + 1)
    assert set(inputs[:, 0].tolist()) == set(range(6)), "from the first to the last with a target"


def test_an_estimate_is_the_mean_over_its_batches_without_dropout():
    torch.manual_seed(0)
    model = reference.ReferenceLM(preset_model("TransformerLM", "default", 80))
    tokens = torch.randint(80, (500,))
    torch.manual_seed(1)
    estimate = reference.estimate(model, tokens, batches=3, batch_size=4, T=8)
    assert model.training
    model.eval()
    torch.manual_seed(1)
    losses = []
    for _ in range(3):
        inputs, targets = reference.draw_windows(tokens, 4, 8)
        losses.append(next_token_loss(model(inputs), targets).item())
    assert estimate == pytest.approx(sum(losses) / 3, abs=1e-6)
