"""Training until a loss: what is counted, and when it ends."""

import json

import pytest
import torch
from learning import CPU

from drakegpt.bench import nanogpt, to_loss
from drakegpt.bench.to_loss import NANOGPT, compare_medians, measure_to_loss
from drakegpt.bench.workloads import OURS
from drakegpt.config import resolve
from drakegpt.evaluation.scoring import score_validation_split

TINY = {"context_length": 8, "embedding_dim": 16, "num_heads": 2, "num_layers": 1, "dropout": 0.0}
SHORT = {"recipe": "fast", "iters": 12, "eval_interval": 5, "eval_iters": 1}


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(nanogpt, "SHAPE", TINY)
    monkeypatch.setattr(nanogpt, "ITERS", 6)
    monkeypatch.setattr(to_loss, "CHECK_EVERY", 4)


def measure(data, target, **limits):
    config = resolve("TransformerLM", "default", data.name, TINY | SHORT)
    return measure_to_loss(config, data, target, CPU, **limits)


def test_an_easy_loss_is_reached_at_the_first_check(prepared):
    threads, heard = torch.get_num_threads(), []
    attempts = measure(prepared, 9.0, rounds=2, progress=lambda *report: heard.append(report))
    assert [(a.name, a.seed) for a in attempts] == [
        (OURS, 42), (NANOGPT, 42), (NANOGPT, 43), (OURS, 43)
    ]  # fmt: skip
    for attempt in attempts:
        assert attempt.reached
        assert attempt.last.iteration == 4
        assert 0 < attempt.last.loss <= 9.0
        assert attempt.last.training_seconds > 0
        assert attempt.evaluation_seconds > 0
    assert len({a.last.loss for a in attempts}) == 4
    assert torch.get_num_threads() == threads
    assert [done for _, done, _ in heard] == [4] * 4
    json.dumps([a.to_json() for a in attempts], allow_nan=False)


def test_a_loss_that_is_not_reached_ends_with_the_run(prepared):
    ours, theirs = measure(prepared, 0.001)
    assert not ours.reached
    assert [check.iteration for check in ours.checks] == [4, 8, 12]
    assert [check.iteration for check in theirs.checks] == [4, 6]
    assert ours.checks[0].training_seconds < ours.checks[1].training_seconds
    assert compare_medians([ours, theirs]) is None


def test_it_stops_when_the_time_is_over(prepared):
    for attempt in measure(prepared, 0.001, seconds=0.0):
        assert [check.iteration for check in attempt.checks] == [1]


def test_the_loss_is_that_of_the_whole_validation_split(prepared, monkeypatch):
    scored = []

    def score(model, data, device):
        scored.append(score_validation_split(model, data, device))
        return scored[-1]

    monkeypatch.setattr(to_loss, "score_validation_split", score)
    attempts = measure(prepared, 9.0)
    assert [a.last.loss for a in attempts] == [s.loss for s in scored]
    assert {s.tokens for s in scored} == {prepared.metadata.val_tokens}


def test_the_ratio_is_that_of_medians():
    def attempt(name, seconds):
        check = to_loss.Check(1, 1.0, seconds)
        return to_loss.Attempt(name, 1, "float32", 1, True, [check], 0.0)

    ours = [attempt(OURS, seconds) for seconds in (1.0, 2.0, 9.0)]
    theirs = [attempt(NANOGPT, seconds) for seconds in (8.0, 1.0, 70.0)]
    assert compare_medians(ours + theirs) == 4.0


def test_drakegpt_starts_from_the_initial_weights_of_its_settings(prepared):
    wide = {"recipe": "best", "embedding_dim": 128}
    config = resolve("TransformerLM", "default", prepared.name, wide)
    program = to_loss._start_ours(config, prepared, CPU)
    assert program.model.embedding.token.weight.std().item() == pytest.approx(0.02, rel=0.1)
