"""A draft read line by line: the surprise of a known source, and nearest lines beside a search."""

import difflib
import math
import random

import pytest
import torch

from drakegpt.config import preset_model
from drakegpt.data.suffix_array import build_suffix_array
from drakegpt.data.tokenizers.bpe import BPETokenizer
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.evaluation.draft import LineIndex, read_draft
from drakegpt.models.registry import build_model

WORDS = "night road rain fire gold heart train light home call".split()


def make_lines(count):
    chance = random.Random(3)
    return [" ".join(chance.choices(WORDS, k=6)) for _ in range(count)]


def test_the_nearest_line_is_that_of_a_whole_search():
    lines = make_lines(200)
    index = LineIndex(build_suffix_array("\n".join(lines).encode()))
    for line in lines[::9]:
        assert index.find_nearest(line) == (line, 1.0)
    changed = lines[20].replace("night", "nite").replace("rain", "reign") + ", oh"
    text, similarity = index.find_nearest(changed)
    best = max(lines, key=lambda each: difflib.SequenceMatcher(None, each, changed).ratio())
    assert (text, similarity) == (
        best, difflib.SequenceMatcher(None, best, changed).ratio()
    )  # fmt: skip


def test_long_lines_are_compared_in_full():
    line = " ".join(make_lines(8))
    index = LineIndex(build_suffix_array(f"{line}\nanother line of it".encode()))
    text, similarity = index.find_nearest(line.replace("night", "nacht").replace("a", "o"))
    assert text == line
    assert similarity > 0.85


@pytest.mark.parametrize("line", ["", "ab", "zzzzz zzzzz", "é日👩"])
def test_a_line_with_nothing_in_common_has_no_nearest_one(line):
    index = LineIndex(build_suffix_array("\n".join(make_lines(20)).encode()))
    assert index.find_nearest(line) == ("", 0.0)


def test_an_empty_text_has_no_lines_to_be_near_to():
    assert LineIndex(build_suffix_array(b"")).find_nearest("abcdefg") == ("", 0.0)


TEXT = "\n".join(make_lines(50)) + "\néé 👩\n"


@pytest.mark.parametrize(
    "tokenizer",
    [CharTokenizer.from_text(TEXT), BPETokenizer.train([TEXT], 300)],
    ids=["char", "bpe"],
)
def test_bits_are_those_of_each_line_after_all_before_it(tokenizer):
    torch.manual_seed(1)
    model = build_model(preset_model("TransformerLM", "default", tokenizer.vocab_size)).eval()
    draft = "night road\n\nrain éé 👩 home"
    read = read_draft(draft, build_suffix_array(TEXT.encode()), model, tokenizer)
    assert [line.text for line in read] == ["night road", "rain éé 👩 home"]
    tokens = [int(token) for token in tokenizer.encode("\n")]
    for line in draft.split("\n"):
        added = [int(token) for token in tokenizer.encode(line + "\n")]
        bits = 0.0
        for token in added:
            context = torch.tensor([tokens[-model.config.context_length :]])
            with torch.no_grad():
                logits = model(context)[0, -1].double()
            bits -= float(logits.log_softmax(-1)[token]) / math.log(2)
            tokens.append(token)
        found = [each.bits_per_character for each in read if each.text == line]
        assert not line or found == [pytest.approx(bits / (len(line) + 1), abs=1e-5)]
