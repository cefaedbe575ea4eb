import itertools
import json
import math

import pytest
import torch
from learning import train

from drakegpt.errors import RunError
from drakegpt.runs.checkpoint import save_checkpoint
from drakegpt.runs.scores import score_run, score_run_on_validation


@pytest.fixture
def run(prepared):
    return train(prepared, "BigramLM")


def put_weights(run, table, iteration=9):
    save_checkpoint(run.folder / "checkpoints", iteration, {"table.weight": table}, {}, {})


def test_the_loss_is_the_mean_surprise_of_every_character(run, prepared):
    """Against probabilities worked out one character at a time."""
    size = prepared.tokenizer.vocab_size
    table = torch.randn(size, size, generator=torch.Generator().manual_seed(4))
    put_weights(run, table)
    log_p = table.double().log_softmax(-1)
    train, val = (prepared.split(s).tolist() for s in ("train", "val"))

    def surprise(tokens):
        pairs = list(itertools.pairwise(tokens))
        return -sum(log_p[a, b].item() for a, b in pairs) / len(pairs)

    scores = score_run(run)
    assert scores.train.loss == pytest.approx(surprise(train), abs=1e-6)
    assert scores.val.loss == pytest.approx(surprise([train[-1], *val]), abs=1e-6)
    assert scores.train.tokens == len(train) - 1
    assert scores.val.tokens == len(val) == prepared.metadata.val_tokens


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary(run, prepared):
    size = prepared.tokenizer.vocab_size
    put_weights(run, torch.zeros(size, size))
    scores = score_run(run)
    assert scores.val.loss == pytest.approx(math.log(size), abs=1e-6)
    assert scores.val.bits_per_character == pytest.approx(math.log2(size), abs=1e-6)
    assert scores.val.perplexity == pytest.approx(size, abs=1e-3)


def test_scores_are_stored_with_the_weights_they_belong_to(run, prepared):
    first = score_run(run)
    stored = json.loads((run.folder / "scores.json").read_text())
    assert stored["val"]["loss"] == first.val.loss
    assert stored["best_val"]["loss"] == first.best_val.loss
    # A planted figure shows that the file is read ...
    stored["val"]["loss"] = 1.25
    (run.folder / "scores.json").write_text(json.dumps(stored))
    assert score_run(run).val.loss == 1.25
    # ... and other weights that it is not.
    size = prepared.tokenizer.vocab_size
    put_weights(run, torch.zeros(size, size))
    assert score_run(run).val.loss == pytest.approx(math.log(size), abs=1e-6)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"of": 1}', b"\xff"])
def test_damaged_scores_are_computed_again(run, content):
    expected = score_run(run)
    (run.folder / "scores.json").write_bytes(content)
    assert score_run(run) == expected


@pytest.mark.parametrize("odd", ["1e999", "-1e999", "true", '"1.0"', "null"])
def test_a_stored_score_that_is_not_finite_is_computed_again(run, odd):
    expected = score_run(run)
    file = run.folder / "scores.json"
    file.write_text(file.read_text().replace(str(expected.val.loss), odd))
    assert score_run(run) == expected


def test_weights_of_another_shape_are_refused(run):
    put_weights(run, torch.zeros(3, 3))
    with pytest.raises(RunError, match="do not fit"):
        score_run(run)


def test_scoring_tells_how_many_tokens_are_left(run, prepared):
    """Of both splits, and of the validation split again for the best weights."""
    told = []
    scores = score_run(run, progress=lambda *report: told.append(report))
    train, val = scores.train.tokens, scores.val.tokens
    assert (run.folder / "best.safetensors").exists()
    assert {(what, total) for what, _, total in told} == {(f"scoring {run.name}", train + 2 * val)}
    done = [each for _, each, _ in told]
    assert done == sorted(done)
    assert done[-1] == train + 2 * val
    told.clear()
    assert score_run(run, progress=lambda *report: told.append(report)) == scores
    assert told == []
    (run.folder / "scores.json").unlink()
    score_run_on_validation(run)  # is stored, and not computed again
    assert score_run(run, progress=lambda *report: told.append(report)) == scores
    assert told[-1][1:] == (train + val, train + val)
