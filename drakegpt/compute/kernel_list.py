"""Run a fixed list of kernel calls with as little overhead as PyTorch allows.

Called from Python, a small kernel takes two microseconds, of which most are spent on
finding it: Python's arguments are parsed, and autograd is passed through. TorchScript's
interpreter runs a list of calls in C++. Its graph is built here call by call, and run
without any optimization, so that the results are bit-identical.

Not here: which calls are in the list (`replay`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter


@dataclass(frozen=True)
class Kernel:
    """A call of an operation that changes tensors in place."""

    operation: Any  # an overload, such as `torch.ops.aten.mm.out`
    arguments: tuple[Any, ...]  # all, in the order of its schema
    copies: tuple[Tensor | None, ...] = ()  # where its results go that it returns in new memory


def compile_kernels(kernels: list[Kernel]) -> Callable[[], None]:
    """Return a function that runs the kernels, one after another."""
    try:
        return _compile_graph(kernels)
    except (AttributeError, RuntimeError, TypeError):  # an argument that TorchScript does not know
        return lambda: _run_eagerly(kernels)


def _run_eagerly(kernels: list[Kernel]) -> None:
    for kernel in kernels:
        schema = kernel.operation._schema.arguments
        pairs = list(zip(schema, kernel.arguments, strict=True))
        args = [value for argument, value in pairs if not argument.kwarg_only]
        kwargs = {argument.name: value for argument, value in pairs if argument.kwarg_only}
        results = kernel.operation(*args, **kwargs)
        if kernel.copies:
            results = (results,) if isinstance(results, Tensor) else results
            for copy, result in zip(kernel.copies, results, strict=True):
                if copy is not None:
                    copy.copy_(result)


def _compile_graph(kernels: list[Kernel]) -> Callable[[], None]:
    builder = _GraphBuilder(kernels)
    for kernel in kernels:
        builder.add(kernel)
    run = builder.compile()
    tensors = torch._C.ScriptList(builder.tensors)
    # Looked up here, so that a PyTorch without them runs the kernels from Python.
    get_optimize = torch._C._get_graph_executor_optimize
    set_optimize = torch._C._set_graph_executor_optimize
    below_autograd = torch._C._AutoDispatchBelowADInplaceOrView

    def replay() -> None:
        """Run the graph below autograd, whose part in each call is a third of its time."""
        optimize = get_optimize()
        set_optimize(False)
        try:
            with below_autograd():
                run(tensors)
        finally:
            set_optimize(optimize)

    return replay


class _GraphBuilder:
    """Builds a TorchScript graph of kernel calls.

    Its tensors are elements of one list, so that TorchScript must expect any of them to
    share memory, and neither drops nor merges calls.
    """

    def __init__(self, kernels: list[Kernel]) -> None:
        used = tree_iter([(kernel.arguments, kernel.copies) for kernel in kernels])
        self.tensors = list({id(t): t for t in used if isinstance(t, Tensor)}.values())
        self._graph: Any = torch._C.Graph()
        everything = self._graph.addInput("tensors")
        everything.setType(torch._C.ListType.ofTensors())
        values = self._add("prim::ListUnpack", [everything], len(self.tensors)).outputs()
        self._values = dict(zip(map(id, self.tensors), values, strict=True))
        for value in self._values.values():
            value.setType(torch._C.TensorType.get())
        self._constants: dict[tuple[type, str], Any] = {}

    def add(self, kernel: Kernel) -> None:
        """Append a call and the copies of its results."""
        results = self._call(kernel.operation._schema, kernel.arguments)
        for copy, result in zip(kernel.copies, results, strict=False):
            if copy is not None:
                self._call(torch.ops.aten.copy_.default._schema, (copy, result, False))

    def compile(self) -> Any:
        """Return the graph as a function of a list of its tensors."""
        self._graph.registerOutput(self._graph.insertConstant(None))
        return torch._C._create_function_from_graph("replay", self._graph)

    def _call(self, schema: Any, arguments: tuple[Any, ...]) -> Iterable[Any]:
        pairs = zip(arguments, schema.arguments, strict=True)
        inputs = [self._find_value(value, argument.type) for value, argument in pairs]
        node = self._add(schema.name, inputs, len(schema.returns))
        results = list(node.outputs())
        for result, returned in zip(results, schema.returns, strict=True):
            result.setType(returned.type)
        if node.schema() == "(no schema)":
            raise TypeError(f"TorchScript has no {schema} for these arguments")
        return results

    def _add(self, name: str, inputs: list[Any], results: int) -> Any:
        return self._graph.appendNode(self._graph.create(name, inputs, results))

    def _find_value(self, argument: Any, kind: Any) -> Any:
        """Find the value of an argument in the graph, or insert it."""
        if isinstance(argument, torch._C.Value):
            return argument
        if isinstance(argument, Tensor):
            return self._values[id(argument)]
        if isinstance(argument, list | tuple):
            if not argument or any(isinstance(element, Tensor) for element in argument):
                return self._add_list(argument, kind)
            argument = list(argument)
        elif isinstance(argument, int) and str(kind) == "float":
            argument = float(argument)
        elif isinstance(argument, bool) and str(kind) == "number":
            argument = int(argument)
        key = (type(argument), repr(argument))
        if key not in self._constants:
            self._constants[key] = self._graph.insertConstant(argument)
        return self._constants[key]

    def _add_list(self, elements: Iterable[Any], kind: Any) -> Any:
        values = [self._find_value(element, None) for element in elements]
        made = self._add("prim::ListConstruct", values, 1).output()
        made.setType(kind)
        return made
