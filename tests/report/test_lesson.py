"""The page of the lesson, beside the README: it opens, and the answers are true of it."""

import json
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import DESKTOP, PHONE, needs_chromium

from drakegpt.report.live import FORMAT

FOLDER = Path(__file__).parent.parent.parent / ".readme"
PAGE = FOLDER / "ladder.html"
LESSON = (FOLDER / "lesson.md").read_text(encoding="utf-8")
LARGEST = 1_100_000  # bytes


@pytest.fixture(scope="module")
def held():
    """What the page holds for its scripts."""
    page = PAGE.read_text(encoding="utf-8")
    (models,) = re.findall(r'<script type="application/json" id="models">(.*?)</script>', page)
    return json.loads(models)


def roles_of(held, model):
    (found,) = [each for each in held["models"] if each["model"] == model]
    return [[head["score"] if head["role"] == "the previous character" else 0 for head in layer]
            for layer in found["roles"]]  # fmt: skip


def test_the_page_is_small_and_whole(held):
    assert PAGE.stat().st_size <= LARGEST
    assert held["format"] == FORMAT
    assert [model["precision"] for model in held["models"]] == ["float32"] * 6


def test_its_losses_are_in_the_answers(held):
    bits = [model["bits"] for model in held["models"]]
    listed = ", ".join(f"{each:.2f}" for each in bits[:-1])
    told = " ".join(LESSON.split())
    assert f"{listed} and {bits[-1]:.2f} bits per character" in told
    counts = held["counts"]
    assert f"counting six characters together has {counts['bits']:.2f}" in told
    assert counts["order"] == 6
    assert all(counts["bits"] < each for each in bits)
    assert f"{counts['sequences']:,} different sequences of up to six characters" in told
    assert f"has {max(model['parameters'] for model in held['models']):,} numbers" in told
    assert {model["config"]["context_length"] for model in held["models"]} == {8}


def test_the_ideas_that_lower_the_loss_most_and_least_are_the_ones_told(held):
    bits = [model["bits"] for model in held["models"]]
    gains = [before - after for before, after in pairwise(bits)]
    assert max(gains) == gains[3]
    assert sorted(gains)[-2] == gains[1]
    assert f"(ResidualBlocksLM), by {gains[3]:.2f}" in LESSON
    assert f"(MultiHeadAttentionLM),\n   by {gains[1]:.2f}" in LESSON
    assert gains[3] - gains[1] < 0.01  # "too close to say"
    assert min(gains) == gains[2]
    assert abs(gains[2]) < 0.01  # "by nothing"


def test_the_heads_that_look_at_the_previous_character_are_the_ones_told(held):
    assert max(map(max, roles_of(held, "SingleHeadAttentionLM"))) == 0
    several = roles_of(held, "MultiHeadAttentionLM")[0]
    assert f"has one (its score is {max(several):.2f})" in LESSON
    assert sum(score > 0 for score in several) == 1
    first, *others = roles_of(held, "TransformerLM")
    assert f"the clearest is in the first layer ({max(first):.2f})" in LESSON
    assert max(first) > max(map(max, others))


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_it_opens_in_a_browser_and_writes_the_circle_of_temperature_0(visit, width):
    visit = visit(SimpleNamespace(path=PAGE), width)
    written = visit.driver.execute_async_script(
        """
        const done = arguments[0];
        const engine = document.getElementById("engine").textContent;
        const ask = startEngine(engine);
        const stored = JSON.parse(document.getElementById("models").textContent);
        const sampling = { temperature: 0, topK: null, topP: null, penalty: 1 };
        let text = "";
        const write = { model: 5, prompt: "the ", seed: 1, length: 60, sampling, stop: false };
        ask("open", stored)
          .then(() => ask("write", write, (part) => (text += part.text)))
          .then(() => done(text), (error) => done(String(error)));
        """
    )
    assert written.startswith('said, "i said, "i said')
    assert visit.said() == []
