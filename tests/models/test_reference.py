"""The reference's loops: windows as they are drawn, losses as they are estimated, its program."""

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


def test_the_module_trains_on_a_text_and_prints_a_sample(tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat; " * 40, encoding="utf-8")
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    reference.main([str(text)], iters=30, sample_length=50)
    first, _, sample = capsys.readouterr().out.partition("\n")
    assert first.startswith("iteration 30: train ")
    assert sample[0] == "t"
    assert len(sample) == 1 + 50 + 1
    assert set(sample) <= set(text.read_text()) | {"\n"}


@pytest.mark.parametrize("arguments", [[], ["one.txt", "two.txt"]])
def test_the_module_takes_one_file(arguments):
    with pytest.raises(SystemExit, match="reference TEXT"):
        reference.main(arguments)


def test_a_text_that_cannot_be_used_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match="Cannot read"):
        reference.main([str(tmp_path / "missing.txt")])
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(SystemExit, match="too short"):
        reference.main([str(tmp_path / "short.txt")])
