"""Twelve typical runs, each with the right advice, and how their losses are told."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from drakegpt.config import resolve
from drakegpt.evaluation.standing import Counting, Standing
from drakegpt.evaluation.trend import judge_trend
from drakegpt.evaluation.verdict import RULES, Facts, Reference, describe_guesses, judge

EXPERIMENTS = Path(__file__).parents[2] / ".github" / "EXPERIMENTS.md"
# Counts of tiny Shakespeare in windows of 8 characters, and the best in windows of 64.
LOSSES = (3.35, 2.48, 2.09, 1.85, 1.76, 1.74)
NGRAMS = (65, 1445, 12673, 61212, 194505, 459128)
SHORT_CONTEXT = tuple(
    Counting(order, loss, ngrams)
    for order, (loss, ngrams) in enumerate(zip(LOSSES, NGRAMS, strict=True), 1)
)
LONG_CONTEXT = (*SHORT_CONTEXT[:3], Counting(7, 1.53, 872748))
WIDE = {"context_length": 128, "embedding_dim": 128, "num_layers": 4, "recipe": "fast"}


def curve(iterations, loss, train=None, rate=lambda part: 1e-3):
    """Twenty evaluations; `loss` and `train` of the part of the run that is done, 0 to 1."""
    train = train or (lambda part: loss(part) - 0.1)
    return [
        {
            "iteration": iterations * k // 20,
            "val_loss": loss(k / 20),
            "train_loss": train(k / 20),
            "learning_rate": rate(k / 20),
        }
        for k in range(1, 21)
    ]


def falling(to, by):
    """A loss that falls to `to`, and by `by` in the second half."""
    return lambda part: to - by * math.log2(part)


def make_facts(evaluations, model="TransformerLM", *, right=0.42, mixture=1.66, **settings):
    """The facts of a run on a text of a million characters, unless `train_tokens` says other."""
    train_tokens = settings.pop("train_tokens", 1_003_854)
    config = resolve(model, "default", "x", {"iters": evaluations[-1]["iteration"], **settings})
    last, lowest = evaluations[-1], min(e["val_loss"] for e in evaluations)
    short = config.context_length < 64
    return Facts(
        config=config,
        standing=Standing(
            tokens=111_540,
            loss=last["val_loss"],
            right=right,
            countings=SHORT_CONTEXT if short else LONG_CONTEXT,
            mixture=mixture,
            long_counting=1.54 if short else None,
        ),
        trend=judge_trend(evaluations, (last["val_loss"], lowest)),
        train_loss=last["train_loss"],
        unit="character",
        characters_per_token=1.0,
        train_tokens=train_tokens,
        iterations=last["iteration"],
    )


def rise_after(lowest_at, low, slope):
    """A loss that falls to `low`, and then rises in proportion."""
    return lambda part: low + abs(part - lowest_at) * slope


RUNS = {
    "too short, original recipe": (
        lambda: make_facts(curve(500, falling(2.32, 0.17))), "recipe", "--recipe fast",
    ),
    "too short, fast recipe": (
        lambda: make_facts(curve(300, falling(2.25, 0.16)), recipe="fast"), "longer", "--iters 600",
    ),
    "overfits without dropout": (
        lambda: make_facts(
            curve(700, rise_after(0.55, 1.80, 0.25), lambda part: 2.0 - part), dropout=0.0,
            train_tokens=97_424, **WIDE,
        ),
        "dropout", "--dropout 0.2",
    ),
    "overfits with dropout": (
        lambda: make_facts(
            curve(2000, rise_after(0.6, 1.75, 0.2), lambda part: 2.0 - part), dropout=0.3,
            train_tokens=97_424, **WIDE,
        ),
        "best weights", "generate --best",
    ),
    "diverges slowly": (
        lambda: make_facts(
            curve(2000, rise_after(0.3, 2.5, 0.6), rise_after(0.3, 2.4, 0.6)),
            schedule="constant", max_lr=0.1, base_lr=0.1,
        ),
        "lower rate", "--max-lr 0.005 --base-lr 0.005",
    ),
    "a high rate at which it still falls": (
        lambda: make_facts(curve(2000, falling(2.18, 0.18)), recipe="fast", max_lr=0.08),
        "lower rate", "--max-lr 0.01`",
    ),
    "diverges with Muon": (
        lambda: make_facts(
            curve(2000, rise_after(0.3, 2.5, 0.6), rise_after(0.3, 2.4, 0.6)),
            **WIDE, optimizer="muon", muon_lr=0.4,
        ),
        "lower rate", "--muon-lr 0.1",
    ),
    "too small a context": (
        lambda: make_facts(curve(10_000, falling(2.01, 0.05))), "context",
        "--context-length 32 --embedding-dim 64",
    ),
    "tiny text": (
        lambda: make_facts(
            curve(4000, rise_after(0.2, 2.03, 1.0), lambda part: 2.2 - part), recipe="fast",
            train_tokens=7_200,
        ),
        "more text", "7,200 characters were read 142 times; until then, `--dropout 0.2`",
    ),
    "a table of pairs": (
        lambda: make_facts(curve(10_000, lambda part: 2.53), "BigramLM"), "next model",
        "TransformerLM",
    ),
    "deep without residual connections": (
        lambda: make_facts(curve(10_000, falling(2.14, 0.05)), "BlocksLM"), "next model",
        "residual connections",
    ),
    "could go on": (
        lambda: make_facts(curve(2000, falling(1.60, 0.08)), **WIDE), "somewhat longer",
        "--iters 4000",
    ),
    "levelled off, could hold more": (
        lambda: make_facts(
            curve(4000, lambda part: 1.8 + 0.1 ** (10 * part), lambda part: 1.75),
            context_length=64, embedding_dim=32, recipe="fast",
        ),
        "wider", "--embedding-dim 64",
    ),
    "good": (
        lambda: make_facts(
            curve(4000, lambda part: 1.48, lambda part: 1.2), **WIDE, mixture=1.43
        ),
        "counts", "0.05 nats lower",
    ),
    "good, and counts bring nothing": (
        lambda: make_facts(
            curve(4000, lambda part: 1.48, lambda part: 1.2), **WIDE, mixture=1.47
        ),
        "bpe", "--tokenizer bpe",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_typical_run_gets_the_right_advice(name):
    make, rule, words = RUNS[name]
    verdict = judge(make())
    assert verdict.rule == rule
    assert words in verdict.advice
    assert len(verdict.lines) <= 3


def test_tokens_of_several_characters_and_little_else_to_gain():
    facts = make_facts(curve(4000, lambda part: 1.48, lambda part: 1.2), **WIDE, mixture=None)
    verdict = judge(replace(facts, unit="token", characters_per_token=2.5))
    assert verdict.rule == "nothing amiss"
    bits = 1.48 / math.log(2) / 2.5
    assert verdict.standing.startswith(f"1.48 nats per token, {bits:.2f} bits per character")


def test_every_rule_has_evidence_in_the_experiments():
    text = EXPERIMENTS.read_text(encoding="utf-8")
    assert all(f"**{rule}**" in text for rule in RULES)


STANDINGS = {
    2.6: "counting pairs reaches 2.48, threes 2.09 and six in a row, which remembers "
    "459,128 strings, 1.74; both together 1.66.",
    2.3: "beats counting pairs (2.48); counting threes reaches 2.09 and six in a row, which "
    "remembers 459,128 strings, 1.74; both together 1.66.",
    2.01: "beats counting pairs (2.48) and threes (2.09); counting six in a row, which remembers "
    "459,128 strings, reaches 1.74; both together 1.66.",
    1.7: "beats counting pairs (2.48), threes (2.09) and six in a row (1.74), which remembers "
    "459,128 strings; both together 1.66.",
}


@pytest.mark.parametrize("loss", STANDINGS)
def test_the_loss_stands_beside_counting(loss):
    verdict = judge(make_facts(curve(10_000, lambda part: loss)))
    assert verdict.standing == (f"{loss:.2f} nats, guesses 1 character in 2.4: {STANDINGS[loss]}")


@pytest.mark.parametrize(
    ("iterations", "loss", "words"),
    [
        (10_000, 2.01, "; this model and recipe reach 1.99 to 2.03."),
        (10_000, 2.2, "; this model and recipe reach 1.99 to 2.03, below this run."),
        (5000, 2.2, "; with 10,000 iterations this model and recipe reach 1.99 to 2.03."),
    ],
)
def test_the_loss_stands_beside_reference_runs(iterations, loss, words):
    facts = make_facts(curve(iterations, lambda part: loss))
    reference = Reference(iterations=10_000, mean=2.0118, spread=0.0091, seeds=3)
    assert judge(replace(facts, reference=reference)).standing.endswith(words)


@pytest.mark.parametrize(
    ("right", "words"), [(0.5, "1 letter in 2.0"), (1.0, "1 letter in 1.0"), (0.0, "no letter")]
)
def test_guesses_are_a_share(right, words):
    assert words in describe_guesses(right, "letter")


def test_without_counts_or_a_curve_what_is_known_is_said():
    facts = make_facts(curve(10_000, lambda part: 2.01))
    bare = Standing(tokens=100, loss=2.01, right=0.4, countings=())
    evaluations = curve(100, lambda part: 2.01)[:2]
    verdict = judge(replace(facts, standing=bare, trend=judge_trend(evaluations), train_loss=None))
    assert verdict.standing == "2.01 nats, guesses 1 character in 2.5."
    assert verdict.trend == ""
    assert len(verdict.lines) == 2
