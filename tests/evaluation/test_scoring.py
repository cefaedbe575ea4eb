import math

import pytest
import torch
from learning import train

from drakegpt.data.prepare import prepare_dataset
from drakegpt.evaluation.scoring import Score
from drakegpt.runs.scores import score_run


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
    scores = score_run(run)
    val = data.split("val")
    assert scores.val.tokens == len(val)
    decoded = data.tokenizer.decode(val.tolist())
    assert text.endswith(decoded)
    assert scores.val.characters == len(decoded) > len(val)
    table = run.load_model(torch.device("cpu")).table.weight.double().log_softmax(-1)
    whole = torch.cat([data.split("train")[-1:], val]).long()
    bits = -table[whole[:-1], whole[1:]].sum().item() / math.log(2)
    assert scores.val.bits_per_character == pytest.approx(bits / len(decoded), rel=1e-5)
