"""The code that `drakegpt params --source` prints."""

import ast

import pytest

from drakegpt.models.registry import MODELS
from drakegpt.models.source import model_source


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("BigramLM", ["BigramLM"]),
        ("BlocksLM", ["Block", "BlocksLM"]),
        ("TransformerLM", ["TransformerBlock", "TransformerLM"]),
        ("GPT1LM", ["GELUFeedForward", "GPT1Block", "GPT1LM"]),
    ],
)
def test_a_model_comes_with_the_parts_of_its_module(model, parts):
    assert [node.name for node in ast.parse(model_source(model)).body] == parts


@pytest.mark.parametrize("model", MODELS)
def test_the_code_of_every_model_is_its_class(model):
    *_, last = ast.parse(model_source(model)).body
    assert isinstance(last, ast.ClassDef)
    assert last.name == model
    assert {node.name for node in last.body if isinstance(node, ast.FunctionDef)} >= {
        "__init__", "forward",
    }  # fmt: skip
