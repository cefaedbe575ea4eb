"""The page of the architecture, `drakegpt/README.md`, names what there is."""

import ast
import re
from pathlib import Path

from test_imports import LAYERS, PACKAGE

PAGE = (PACKAGE / "README.md").read_text(encoding="utf-8")


def has_code(path):
    """Whether a file is more than the docstring of a package."""
    return path.name != "__init__.py" or len(ast.parse(path.read_text(encoding="utf-8")).body) > 1


def test_each_module_has_one_line():
    lines = re.findall(r"^- `(drakegpt/[\w/]+\.py)`: \S.{10,}$", PAGE, re.M)
    files = [path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py") if has_code(path)]
    assert sorted(map(Path, lines)) == sorted(files)


def test_the_layers_are_those_that_are_checked():
    numbered = re.findall(r"^\d+\. (.*)$", PAGE, re.M)
    named = [re.findall(r"\*\*(\w+)\*\*: ", line) for line in numbered]
    assert named == [re.findall(r"drakegpt\.(\w+)", layer) for layer in LAYERS]
