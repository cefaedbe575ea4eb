"""The card says what is known of a run, and what is not."""

import math
import shlex
from dataclasses import replace

import pytest
import yaml
from exported import CPU
from learning import prepare, small_text, train

from drakegpt.data import dataset
from drakegpt.export.model_card import WARNING, collect_facts, write_card
from drakegpt.runs.brief_originality import judge_briefly, measure_people
from drakegpt.runs.lookup import find_run
from drakegpt.runs.scores import score_run
from drakegpt.runs.verdicts import judge_run

SHORT = {"embedding_dim": 16, "num_layers": 1, "num_heads": 2, "iters": 60, "eval_interval": 60}


def make_card(run, licence="", tags=(), parts=()):
    return write_card(collect_facts(run), licence, tags, parts)


def read_header(card):
    return yaml.safe_load(card.split("---\n")[1])


@pytest.fixture
def run(prepared):
    return train(prepared, **SHORT)


def test_what_is_not_known_comes_with_the_command_that_finds_it_out(run):
    card = make_card(run)
    assert "an estimate, on parts of the split" in card
    assert f"Counts are scored beside it by `drakegpt eval {run.name}`." in card
    assert f"Not measured: `drakegpt export page {run.name}` does that" in card
    assert "Not stated: fill it in when you pass the model on" in card
    assert read_header(card) == {"tags": ["drakegpt"]}
    assert "# license: fill in" in card
    assert WARNING in card


def test_a_scored_run_stands_beside_counting(run):
    score = score_run(run).val
    judge_run(run)
    card = make_card(run)
    assert f"| this model | {score.bits_per_character:.4f} | {score.loss:.4f} |" in card
    facts = collect_facts(run)
    assert facts.counts[0].order == 2
    for counts in facts.counts:
        bits, nats = counts.loss.bits_per_character, counts.loss.nats_per_token
        assert bits == pytest.approx(nats / math.log(2))
        about = f"{counts.order} characters in a row ({counts.ngrams:,} stored)"
        row = f"| counts of {about} | {bits:.4f} | {nats:.4f} |"
        assert row in card
    assert "an estimate" not in card


def test_bits_per_character_of_counts_of_bpe_tokens_are_those_of_their_characters():
    data = prepare(small_text(), "pairs", tokenizer="bpe", vocab_size=300)
    run = train(data, "GPT1LM", **SHORT)
    score = score_run(run).val
    judge_run(run)
    for counts in collect_facts(run).counts:
        per_token = score.characters / score.tokens
        expected = counts.loss.nats_per_token / math.log(2) / per_token
        assert counts.loss.bits_per_character == pytest.approx(expected, rel=1e-3)
    assert "nats per token" in make_card(run)


def test_copying_is_told_if_it_was_measured(run):
    judged = judge_briefly(run, measure_people(run.load_dataset()), CPU)
    card = make_card(run)
    assert f"{judged.share:.1%} stand in runs of 20 characters or more" in card
    assert f"The longest has {judged.longest} character" in card


def test_the_commands_on_the_card_make_the_run(run, drakegpt):
    """The last of them, printed as settings, are the run's."""
    block = make_card(run).partition("```sh\n")[2].partition("\n```")[0]
    *_, command = block.splitlines()
    shown = drakegpt(*shlex.split(command)[1:], "--print-config").out
    for name, value in (("embedding_dim", 16), ("iters", 60), ("num_heads", 2)):
        assert f"{name} = {value}\n" in shown


def test_a_run_without_its_dataset_has_a_card(run):
    dataset.remove(run.config.data)
    card = make_card(find_run(run.name))
    assert "it is not on the machine where the model was exported" in card
    assert f"`drakegpt runs show {run.name}`" in card


@pytest.mark.parametrize(
    ("licence", "header"),
    [
        ("MIT", {"license": "mit"}),
        ("cc-by-4.0", {"license": "cc-by-4.0"}),
        ('Ours, "all" rights: #1\n--- no', {"license": "other"}),
    ],
)
def test_a_licence_is_in_the_header_and_at_the_end(run, licence, header):
    card = make_card(run, licence)
    read = read_header(card)
    assert header.items() <= read.items()
    if read["license"] == "other":
        assert read["license_name"] == " ".join(licence.split())
    assert card.partition("## Licence\n\n")[2].replace("\\", "") == " ".join(licence.split()) + "\n"


def test_names_from_outside_stay_text(run):
    """A dataset may be called anything that a file may."""
    config = replace(run.config, data="a`b\n# <script>")
    odd = replace(run, config=config, folder=run.folder.with_name("x<b>*y*\n## z"))
    object.__setattr__(odd, "info", run.info)
    facts = replace(collect_facts(run), run=odd, data=None)
    card = write_card(facts, "", (), ())
    assert "# x\\<b\\>\\*y\\* \\#\\# z\n" in card
    assert "Dataset `a'b # <script>`" in card
