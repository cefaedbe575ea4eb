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
        ("GPT1LM", ["GELUFeedForward", "GPT1Block", "GPT1LM", "_initialize"]),
    ],
)
def test_a_model_comes_with_the_parts_of_its_module(model, parts):
    assert [node.name for node in ast.parse(model_source(model)).body] == parts


@pytest.mark.parametrize("model", MODELS)
def test_the_code_of_every_model_is_its_class(model):
    classes = [
        node for node in ast.parse(model_source(model)).body if isinstance(node, ast.ClassDef)
    ]
    assert classes[-1].name == model
    methods = {node.name for node in classes[-1].body if isinstance(node, ast.FunctionDef)}
    assert {"__init__", "forward"} <= methods
