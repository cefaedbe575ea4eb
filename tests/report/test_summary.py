"""Sentences about comparisons whose figures are made up, so that each can be told from them."""

import dataclasses
import math

import pytest
from report_pages import comparison, result, row

from drakegpt.evaluation.baseline import Baseline
from drakegpt.evaluation.scoring import Score
from drakegpt.report.summary import join_names, summarize

NAN = float("nan")


def of(model, *losses, **given):
    """A row of a run for each loss; its bits are twice its nats, for the sake of round figures."""
    runs = [
        dataclasses.replace(result(f"{model} {seed}", seed, (loss,)), bits_per_character=2 * loss)
        for seed, loss in enumerate(losses, 1)
    ]
    return row(model, *runs, **given)


def bits(order, value):
    return Baseline(order, 8, Score(value * math.log(2), 9, 9), 99)


def told(*rows, **given):
    return summarize(comparison(*rows, **given))


def test_the_best_is_named_first_with_what_its_figures_mean():
    first, *_ = told(of("BigramLM", 2.0), of("BlocksLM", 1.5))
    assert first == (
        "BlocksLM has the lowest validation loss: 3.000 bits per character (1.5000 nats per "
        "character), as hard as guessing among 8.0 equally likely characters."
    )


def test_of_a_model_that_knows_less_than_nothing_there_is_no_end_of_choices():
    first, *_ = told(of("BigramLM", 2000.0))
    assert "loss: 4000.000 bits" in first
    assert first.endswith("among 18,446,744,073,709,551,616.0 equally likely characters.")


def test_the_best_may_stand_beside_the_ladder():
    other = dataclasses.replace(of("GPT1LM", 1.0), tokenizer="bpe", vocab_size=300)
    first, *_ = told(of("BigramLM", 2.0), others=(other,))
    assert first.startswith("GPT1LM (300 BPE tokens) has the lowest validation loss: 2.000")
    assert "1.0000 nats per token of 300" in first


def test_the_descent_and_its_largest_step():
    rows = (of("BigramLM", 2.5), of("SingleHeadAttentionLM", 2.4), of("MultiHeadAttentionLM", 2.1))
    _, descent, *_ = told(*rows)
    assert descent == (
        "From BigramLM to MultiHeadAttentionLM the validation loss falls by 0.80 bits (0.400 "
        "nats); the largest gain, 0.60 bits (0.300 nats), is MultiHeadAttentionLM's: look back in "
        "several ways at once."
    )
    _, descent, *_ = told(of("BigramLM", 2.0), of("SingleHeadAttentionLM", 2.1))
    assert descent == (
        "From BigramLM to SingleHeadAttentionLM the validation loss rises by 0.20 bits "
        "(0.100 nats)."
    )


def test_a_rung_that_gains_nothing_is_named():
    sentences = told(of("BigramLM", 2.0), of("SingleHeadAttentionLM", 2.1))
    assert "SingleHeadAttentionLM gains nothing: it ends 0.100 nats above BigramLM." in sentences


def test_a_step_within_noise_is_neither_gain_nor_loss():
    sentences = told(of("BigramLM", 1.9, 2.1), of("SingleHeadAttentionLM", 2.0, 2.1))
    assert (
        "SingleHeadAttentionLM neither gains nor loses: it ends level with BigramLM (within noise: "
        "0.0500 of 0.2236 nats)." in sentences
    )
    sentences = told(of("BigramLM", 1.99, 2.01), of("SingleHeadAttentionLM", 2.49, 2.51))
    assert any(s.endswith("gains nothing: it ends 0.500 nats above BigramLM.") for s in sentences)
    assert not any("single seed" in s for s in sentences)


def sized(model, loss, parameters):
    return dataclasses.replace(of(model, loss), parameters=parameters)


def test_what_counting_reaches_and_keeps():
    baselines = (bits(1, 5.0), bits(2, 3.5), dataclasses.replace(bits(3, 2.5), ngrams=12_673))
    assert (
        "The best n-gram baseline reaches 2.500 bits per character, with counts of 12,673 "
        "different sequences of up to 3 characters."
        in told(of("BigramLM", 2.0), baselines=baselines)
    )
    alone = told(of("BigramLM", 2.0), baselines=baselines[:1])
    assert any(s.endswith("with counts of 99 different characters.") for s in alone)
    pieces = dataclasses.replace(baselines[2], score=Score(1.0, 5, 9))
    assert any("up to 3 tokens." in s for s in told(of("BigramLM", 2.0), baselines=(pieces,)))
    assert not any("baseline" in s for s in told(of("BigramLM", 2.0)))


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        # 4, 3 and 2 bits against 2.5
        ((2.0, 1.5, 1.0), "TransformerLM is better than it, with 42,369 parameters; BigramLM "
         "and BlocksLM are worse than it, with 4,225 to 16,865 parameters."),
        ((2.0, 1.0, 1.0), "BlocksLM and TransformerLM are better than it, with 16,865 to 42,369 "
         "parameters; BigramLM is worse than it, with 4,225 parameters."),
        ((2.0, 2.0, 1.3), "All 3 models are worse than it, with 4,225 to 42,369 parameters."),
        ((1.2, 1.2, 1.2), "All 3 models are better than it, with 4,225 to 42,369 parameters."),
        ((2.0,), "BigramLM is worse than it, with 4,225 parameters."),
        ((2.0, math.nan), "BigramLM is worse than it, with 4,225 parameters."),
        ((1.254, 1.5), "BigramLM is within noise of it, with 4,225 parameters; BlocksLM is "
         "worse than it, with 16,865 parameters."),
    ],
)  # fmt: skip
def test_who_is_beyond_counting_and_what_each_has_for_it(losses, sentence):
    models = (("BigramLM", 4225), ("BlocksLM", 16_865), ("TransformerLM", 42_369))
    rows = [
        sized(model, loss, parameters)
        for (model, parameters), loss in zip(models, losses, strict=False)
    ]
    assert sentence in told(*rows, baselines=(bits(1, 5.0), bits(2, 3.5), bits(3, 2.5)))


def test_a_tie_is_level_and_no_zero_is_negative():
    sentences = told(of("BigramLM", 2.0), of("SingleHeadAttentionLM", 2.0))
    text = " ".join(sentences)
    assert "stays level (within noise: 0.0000 of 0.0141 nats)" in text
    assert "has the lowest validation loss (within noise of it: SingleHeadAttentionLM)" in text
    assert "-0.0" not in text
    assert "−0.0" not in text


def test_one_seed_beside_a_mean_of_several_is_said_to_be_so():
    sentences = told(of("BigramLM", 2.0, 2.01, 1.99), of("SingleHeadAttentionLM", 2.1))
    assert (
        "SingleHeadAttentionLM gains nothing: it ends 0.100 nats above BigramLM (one seed against "
        "a mean of 3)." in sentences
    )
    assert "Single seed, compared with means over several: SingleHeadAttentionLM." in sentences


@pytest.mark.parametrize("loss", [NAN, math.inf])
def test_a_row_that_is_not_finite_has_no_verdict(loss):
    rows = (of("BigramLM", 2.0), of("SingleHeadAttentionLM", loss), of("MultiHeadAttentionLM", 1.9))
    sentences = told(*rows)
    assert sentences[0].startswith("MultiHeadAttentionLM has the lowest validation loss: ")
    assert sentences[1].startswith("From BigramLM to MultiHeadAttentionLM")
    assert "; the largest gain" not in sentences[1]
    assert (
        "SingleHeadAttentionLM has a loss that is not finite, so it is excluded from all "
        "verdicts." in sentences
    )
    assert "nan" not in " ".join(sentences)
    assert comparison(*rows).to_json()["rows"][1]["val_loss"] is None


def test_a_row_that_was_trained_otherwise_has_no_gain_and_no_verdict():
    odd = of("SingleHeadAttentionLM", 1.0, differs={"dropout": (0.0, 0.1)})
    rows = (of("BigramLM", 2.0), odd, of("MultiHeadAttentionLM", 1.9))
    assert [row.gain for row in comparison(*rows).rows] == [None, None, None]
    sentences = told(*rows)
    assert sentences[0].startswith(
        "Excluding SingleHeadAttentionLM (other settings), MultiHeadAttentionLM has the lowest "
    )
    assert sentences[1] == (
        "From BigramLM to MultiHeadAttentionLM the validation loss falls by 0.20 bits (0.100 nats)."
    )
    assert (
        "SingleHeadAttentionLM was trained with other settings (dropout 0.0, others 0.1), so it "
        "has no gain and is excluded from all verdicts." in sentences
    )


def test_who_is_beyond_pairs():
    rows = [of("BigramLM", 2.0), of("BlocksLM", 1.5), of("TransformerLM", 1.0)]  # 4, 3, 2 bits
    baselines = (bits(1, 5.0), bits(2, 3.5), bits(3, 2.5))
    sentences = told(*rows, baselines=baselines)
    assert "Better than the bigram baseline: BlocksLM and TransformerLM (2 of 3)." in sentences
    assert "Better than the bigram baseline: none (0 of 1)." in told(rows[0], baselines=baselines)
    assert not any("bigram baseline" in s for s in told(rows[0], baselines=baselines[:1]))


def test_overfitting_and_lengths_are_told():
    turned = row("BlocksLM", result("a", losses=(2.0, 1.0, 1.5), best=1.0))
    sentences = told(of("BigramLM", 2.0), turned)
    assert any(s.startswith("BlocksLM overfits: from about iteration 20 on") for s in sentences)
    assert any("different lengths, 10 to 30 iterations" in s for s in sentences)
    assert any("single seed" in s for s in sentences)
    assert not any("single seed" in s for s in told(turned))  # nothing to compare it with


def test_the_command_for_more_seeds_is_of_this_text_and_of_its_sizes():
    def offered(*sizes, shared=()):
        rows = [of(m, 2.0, shared=shared) for m in ("BigramLM", "BlocksLM")]
        sized = [dataclasses.replace(row, size=size) for size in sizes for row in rows]
        return next(s for s in told(*sized) if "single seed" in s).split("`")[1::2]

    command = "drakegpt compare --train --seeds 3 --data d"
    assert offered("default") == [command]
    assert offered("scaled") == [f"{command} --scaled"]
    assert offered("default", "scaled") == [command, f"{command} --scaled"]
    shared = (("iters", 20), ("origin", "imported"))  # which no command makes
    assert offered("default", shared=shared) == [f"{command} --set iters=20"]


def test_names_are_listed_as_people_do():
    assert [join_names(list("abc")[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


def test_the_lowest_row_is_one_with_finite_losses():
    diverged = row("BigramLM", result("diverged", losses=(3.0, NAN)))
    lower, higher = (
        row(model, result(model, losses=(3.0, loss)))
        for model, loss in (("BlocksLM", 2.0), ("TransformerLM", 2.5))
    )
    assert comparison(diverged, higher, others=(lower,)).lowest_row is lower
    assert comparison(diverged).lowest_row.runs == ("diverged",)
