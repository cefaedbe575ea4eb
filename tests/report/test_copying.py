"""What the page says of copying, in sentences about shares that are made up."""

import dataclasses

import pytest
from report_pages import result, row

from drakegpt.config import LADDER
from drakegpt.report.originality import Originality, describe_copying, format_share
from drakegpt.runs.brief_originality import BriefOriginality

PEOPLE = BriefOriginality(0.004, 22)
NOT_ONE = "not one run of 20 characters from the training text, even in the worst of"


def told(*shares, memorizing=(), unjudged=(), people=PEOPLE, mixed=()):
    """The sentences about models of the ladder with these shares."""
    rows = [row(model, result(model)) for model in (*LADDER[: len(shares)], *unjudged)]
    runs = {
        model: BriefOriginality(share, 30, memorizes=model in memorizing)
        for model, share in zip(LADDER, shares, strict=False)
    }
    counting = BriefOriginality(0.31, 60)
    return describe_copying(rows, Originality(people, counting, runs, dict(mixed), {}))


def test_that_none_copies_is_said_first_and_plainly():
    assert told(*[0.0] * 6) == [
        f"None of the six copies: {NOT_ONE} their texts.",
        "Of the validation text, which people wrote, 0.4\u00a0% is in such runs; the longest that "
        "it shares, in as much text, has 22 characters.",
        "For comparison: counting alone copies 31.0\u00a0%.",
    ]
    assert told(0.0, 0.0)[0] == f"Neither of the two copies: {NOT_ONE} their texts."
    assert told(0.0)[0] == f"BigramLM does not copy: {NOT_ONE} its texts."


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ((0.01, 0, 0.031), "Two of the three copy: MultiHeadAttentionLM has 3.1 % of its texts "
         "from the training text, in runs of 20 characters or more, BigramLM 1.0 %."),
        ((0, 0, 0.031), "One of the three copies: MultiHeadAttentionLM has 3.1 % of its texts "
         "from the training text, in runs of 20 characters or more."),
        ((0.02, 0), "One of the two copies: BigramLM has 2.0 % of its texts from the training "
         "text, in runs of 20 characters or more."),
        ((0.02, 0.0004), "Both copy: BigramLM has 2.0 % of its texts from the training text, in "
         "runs of 20 characters or more, SingleHeadAttentionLM less than 0.1 %."),
        ((0.02, 0.01, 0.03), "All three copy: MultiHeadAttentionLM has 3.0 % of its texts from the "
         "training text, in runs of 20 characters or more, BigramLM 2.0 %, SingleHeadAttentionLM "
         "1.0 %."),
        ((0.02,), "BigramLM copies: it has 2.0 % of its texts from the training text, in runs of "
         "20 characters or more."),
    ],
)  # fmt: skip
def test_who_copies_is_counted_and_named_the_most_first(shares, sentence):
    assert told(*shares)[0] == sentence.replace(" %", "\u00a0%")


def test_who_memorizes_is_named():
    assert told(0.5, 0.0, memorizing=["BigramLM"])[1] == (
        "BigramLM memorizes: it copies more than people do."
    )
    assert told(0.5, 0.5, memorizing=LADDER[:2])[1] == (
        "BigramLM and SingleHeadAttentionLM memorize: they copy more than people do."
    )
    assert told(0.05, 0.0)[1] == (
        "None memorizes, which would be more than people copy and more than 10\u00a0%."
    )
    assert told(0.05)[1].startswith("It does not memorize, which would be more than")
    assert not any("memor" in sentence for sentence in told(0.0, 0.0))


def test_who_was_not_judged_and_what_counts_copy_is_told():
    mixed = {"BigramLM": BriefOriginality(0.12, 40)}
    sentences = told(0.0, unjudged=["BlocksLM"], mixed=mixed)
    assert sentences[0].startswith("BigramLM does not copy: ")
    assert sentences[1] == "BlocksLM was not judged: the weights write nothing."
    assert sentences[-1] == (
        "For comparison: counting alone copies 31.0\u00a0%; BigramLM, with counts mixed in, "
        "12.0\u00a0%."
    )
    several = told(0.0, unjudged=["BlocksLM", "TransformerLM"])
    assert "BlocksLM and TransformerLM were not judged: the weights write nothing." in several


def test_people_may_share_nothing_or_one_character():
    sentences = told(0.0, people=dataclasses.replace(PEOPLE, share=0.0, longest=1))
    assert sentences[1].startswith("Of the validation text, which people wrote, nothing is in such")
    assert sentences[1].endswith("has 1 character.")


def test_what_is_not_nothing_is_never_told_as_nothing():
    shares = (0.0, 0.00049, 0.0005, 0.004, 1.0)
    assert [format_share(share) for share in shares] == [
        "0.0\u00a0%", "less than 0.1\u00a0%", "0.1\u00a0%", "0.4\u00a0%", "100.0\u00a0%"
    ]  # fmt: skip
