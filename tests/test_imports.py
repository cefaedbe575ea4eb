"""How the modules of drakegpt import each other, imports in function bodies included."""

import ast
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import drakegpt

PACKAGE = Path(drakegpt.__file__).parent
LAYERS = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"][0]["layers"]


def module_names(package):
    """Each module of a package by its dotted name, packages by that of their `__init__`."""
    paths = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


def imports_of(path, known):
    """The modules among `known` that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found.update(name if name in known else node.module for name in names)
    return found & known.keys()


def import_graph(package):
    paths = module_names(package)
    return {name: imports_of(path, paths) - {name} for name, path in paths.items()}


def layer_of(module):
    """The number of a module's layer, from the top, and its part of that layer."""
    for number, layer in enumerate(LAYERS):
        for part in layer.split(" | "):
            if module == part or module.startswith(f"{part}."):
                return number, part
    return None


def test_no_modules_import_each_other_in_a_circle():
    graph = import_graph(PACKAGE)
    assert "drakegpt.training.reports" in graph["drakegpt.library"]
    assert "drakegpt.runs.start" in graph["drakegpt.cli.train"]  # imported in a function
    TopologicalSorter(graph).prepare()


def test_a_circle_through_a_function_body_is_found(tmp_path):
    package = tmp_path / "example"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("def f():\n    from example import two\n")
    (package / "two.py").write_text("from example.one import f\n")
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(package)).prepare()


def test_every_module_is_in_a_layer():
    program = {"drakegpt", "drakegpt.__main__"}
    assert {name for name in import_graph(PACKAGE) if not layer_of(name)} == program


def test_no_import_goes_up():
    for module, imported in import_graph(PACKAGE).items():
        if place := layer_of(module):
            for name in imported:
                other = layer_of(name)
                assert other, f"{module} imports {name}, which is in no layer"
                allowed = other[0] > place[0] or other[1] == place[1]
                assert allowed, f"{module} imports {name}, which is beside or above it"


def test_importing_drakegpt_loads_neither_torch_nor_pydantic():
    """And so does looking at what it offers; the configuration's classes need no torch."""
    code = (
        "import sys, drakegpt; dir(drakegpt); drakegpt.TrainConfig;"
        "print(sorted({'torch', 'numpy', 'pydantic', 'typer'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
