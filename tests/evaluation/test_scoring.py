import itertools
import json
import math

import pytest
import torch
from learning import train

from drakegpt.data.prepare import prepare_dataset
from drakegpt.errors import RunError
from drakegpt.evaluation.scoring import Score
from drakegpt.runs.checkpoint import save_checkpoint
from drakegpt.runs.scores import score


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

    scores = score(run)
    assert scores.train.loss == pytest.approx(surprise(train), abs=1e-6)
    assert scores.val.loss == pytest.approx(surprise([train[-1], *val]), abs=1e-6)
    assert scores.train.tokens == len(train) - 1
    assert scores.val.tokens == len(val) == prepared.metadata.val_tokens


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary(run, prepared):
    size = prepared.tokenizer.vocab_size
    put_weights(run, torch.zeros(size, size))
    scores = score(run)
    assert scores.val.loss == pytest.approx(math.log(size), abs=1e-6)
    assert scores.val.bits_per_character == pytest.approx(math.log2(size), abs=1e-6)
    assert scores.val.perplexity == pytest.approx(size, abs=1e-3)


def test_scores_are_kept_with_the_weights_they_belong_to(run, prepared):
    first = score(run)
    stored = json.loads((run.folder / "scores.json").read_text())
    assert stored["val"]["loss"] == first.val.loss
    assert stored["best_val"]["loss"] == first.best_val.loss
    # A planted figure shows that the file is read ...
    stored["val"]["loss"] = 1.25
    (run.folder / "scores.json").write_text(json.dumps(stored))
    assert score(run).val.loss == 1.25
    # ... and other weights that it is not.
    size = prepared.tokenizer.vocab_size
    put_weights(run, torch.zeros(size, size))
    assert score(run).val.loss == pytest.approx(math.log(size), abs=1e-6)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"of": 1}', b"\xff"])
def test_damaged_scores_are_made_again(run, content):
    expected = score(run)
    (run.folder / "scores.json").write_bytes(content)
    assert score(run) == expected


@pytest.mark.parametrize("odd", ["1e999", "-1e999", "true", '"1.0"', "null"])
def test_a_kept_score_that_is_no_finite_number_is_made_again(run, odd):
    expected = score(run)
    file = run.folder / "scores.json"
    file.write_text(file.read_text().replace(str(expected.val.loss), odd))
    assert score(run) == expected


def test_weights_of_another_shape_are_refused(run):
    put_weights(run, torch.zeros(3, 3))
    with pytest.raises(RunError, match="do not fit"):
        score(run)


def test_units():
    assert Score(math.log(2), 10, 10).to_json() == {
        "loss": math.log(2), "bits_per_character": 1.0, "perplexity": pytest.approx(2.0),
        "tokens": 10, "characters": 10,
    }  # fmt: skip
    # three bits for a token, which stands for four characters
    assert Score(3 * math.log(2), 10, 40).bits_per_character == pytest.approx(0.75)


def test_bits_per_character_of_longer_tokens(corpus):
    """The sum of all surprises over the characters of the decoded text."""
    text = corpus.replace("quick", "qüick 🦊")
    known = {"source": "t", "provenance": "t", "source_sha256": "0", "name": "words"}
    data = prepare_dataset(text, **known, tokenizer="bpe", vocab_size=300)
    run = train(data, "BigramLM")
    scores = score(run)
    val = data.split("val")
    assert scores.val.tokens == len(val)
    decoded = data.tokenizer.decode(val.tolist())
    assert text.endswith(decoded)
    assert scores.val.characters == len(decoded) > len(val)
    table = run.load_model(torch.device("cpu")).table.weight.double().log_softmax(-1)
    whole = torch.cat([data.split("train")[-1:], val]).long()
    bits = -table[whole[:-1], whole[1:]].sum().item() / math.log(2)
    assert scores.val.bits_per_character == pytest.approx(bits / len(decoded), rel=1e-5)
