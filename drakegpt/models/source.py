"""The code of a model, to read."""

import ast
import inspect
import sys

from drakegpt.models.registry import MODELS


def model_source(name: str) -> str:
    """Return the code of a model and of those parts of it that its module defines, in order."""
    model = MODELS[name]
    module = sys.modules[model.__module__]
    parts = {part for _, part in inspect.getmembers(module) if _defined_in(part, module.__name__)}
    found, queue = {model}, [model]
    while queue:
        names = {
            node.id
            for node in ast.walk(ast.parse(inspect.getsource(queue.pop())))
            if isinstance(node, ast.Name)
        }
        used = {part for part in parts if part.__name__ in names} - found
        found |= used
        queue += used
    in_order = sorted(found, key=lambda part: inspect.getsourcelines(part)[1])
    return "\n\n".join(map(inspect.getsource, in_order))


def _defined_in(part: object, module: str) -> bool:
    """Return whether a class or function is defined in that module."""
    return (inspect.isclass(part) or inspect.isfunction(part)) and part.__module__ == module
