"""Record the kernel calls of a function once, and replay them: CUDA graphs, but for a CPU.

For a small model, most of the time of a training step is overhead: Python calls
modules, PyTorch builds and traverses the autograd graph, allocates and frees memory,
the same at every step. A trace is recorded below all of that, while the function runs:
the list of kernels called, each with the memory it read and wrote. Replaying it calls
them again (`kernel_list`), with bit-identical results.

The cost: all intermediate results stay in memory, and whatever Python decides, such as
a shape or a number, stays as it was when the trace was recorded. What changes between
two replays must be a tensor that is changed in place.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from drakegpt.compute.kernel_list import Kernel, compile_kernels

Call = tuple[Any, tuple[Any, ...], dict[str, Any], Any]

# Activations of a layer, B * T * C, up to which overhead takes as long as arithmetic on a CPU, so
# that a trace is worth the memory it holds.
REPLAYED_UP_TO = 2**18


class KernelTrace:
    """Runs `function` once and records its kernel calls; calling the trace replays them."""

    def __init__(self, function: Callable[[], Tensor]) -> None:
        """`function` may change existing tensors in place; its result is kept and overwritten."""
        with _Recorder() as recorder:
            self.result = function()
        kernels = _select_kernels(recorder.calls, self.result)
        self._count, self._replay = len(kernels), compile_kernels(kernels)

    def __len__(self) -> int:
        """Return the number of kernel calls."""
        return self._count

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Replay; the tensor that `function` returned then holds what it would return now."""
        self._replay()
        return self.result


class Replayed:
    """Calls `function`, recording the second call and replaying from the third on.

    The first call runs eagerly, for whatever is made once and then kept. Arguments
    must be tensors, the same number with the same shapes at each call. The result is
    valid until the next call.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._called = False
        self._inputs: list[Tensor] = []  # memory that the trace reads
        self._trace: KernelTrace | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return what `function` returns for `inputs`; `ValueError` if it cannot be recorded."""
        if self._trace is not None:
            for memory, tensor in zip(self._inputs, inputs, strict=True):
                memory.copy_(tensor)
            return self._trace()
        if not self._called:
            self._called = True
            return self._function(*inputs)
        self._inputs = [tensor.clone() for tensor in inputs]
        self._trace = KernelTrace(lambda: self._function(*self._inputs))
        return self._trace.result


class _Recorder(TorchDispatchMode):
    """Records every operation that reaches a kernel, below autograd and autocast."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return no: to skip the compiler, PyTorch would load it, which takes a second."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise ValueError("a number read from a tensor would be replayed unchanged")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out


def _select_kernels(calls: list[Call], result: Tensor) -> list[Kernel]:
    """Select the calls that must be replayed, each writing to its recorded result."""
    constants = _find_constants(calls)
    read = _find_storages([result, *((args, kwargs) for _, args, kwargs, _ in calls)])
    kernels = []
    for func, args, kwargs, out in calls:
        if func._schema.is_mutable:
            kernels.append(Kernel(func, _complete(func, args, kwargs)))
        elif not (
            func.namespace == "profiler" or _is_view(args, out) or _find_storages(out) <= constants
        ):
            kernels.append(_write_into(func, args, kwargs, out, read))
    return kernels


def _find_constants(calls: list[Call]) -> set[int]:
    """Find memory that no call must fill: it is constant, or was allocated uninitialized."""
    changed = {
        place
        for func, args, kwargs, _ in calls
        if func._schema.is_mutable
        for place in _find_storages(_find_written(func, args, kwargs))
    }
    constants: set[int] = set()
    for func, args, kwargs, out in calls:
        name, results = func._schema.name, _find_storages(out)
        if name.startswith(("aten::empty", "aten::new_empty")):
            constants |= results
        elif not results & changed and torch.Tag.nondeterministic_seeded not in func.tags:
            shape_only = name.endswith("_like") or name.startswith("aten::new_")
            if shape_only or _find_storages((args, kwargs)) <= constants - changed:
                constants |= results
    return constants


def _find_written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Find the arguments that a call writes to."""
    values = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)}
    values |= kwargs
    return [
        values[a.name]
        for a in func._schema.arguments
        if a.alias_info is not None and a.alias_info.is_write and a.name in values
    ]


def _is_view(args: tuple[Any, ...], out: Any) -> bool:
    """Return whether a result is a view of an argument's memory."""
    return bool(_find_storages(out)) and _find_storages(out) <= _find_storages(args)


def _find_storages(values: Any) -> set[int]:
    """Find the addresses of the memory of all tensors in `values`."""
    tensors = (value for value in tree_iter(values) if isinstance(value, Tensor))
    return {place for t in tensors if (place := t.untyped_storage().data_ptr())}


def _write_into(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, read: set[int]
) -> Kernel:
    """Return a call of `func` that writes into `out`, if that memory is `read` later."""
    aten = torch.ops.aten
    if func in (aten.clone.default, aten._to_copy.default):
        return Kernel(aten.copy_.default, (out, args[0], False))
    if func is aten.embedding.default and args[1].is_contiguous():
        rows = out.view(-1, out.shape[-1])
        return Kernel(aten.index_select.out, (args[0], 0, args[1].view(-1), rows))
    if func is aten.relu.default:  # as PyTorch computes it
        return Kernel(aten.clamp_min.out, (args[0], 0, out))
    outs = (out,) if isinstance(out, Tensor) else tuple(out)
    if overload := _find_out_overload(func, len(outs)):
        names = [argument.name for argument in overload._schema.arguments if argument.is_out]
        given = kwargs | dict(zip(names, outs, strict=True))
        return Kernel(overload, _complete(overload, args, given))
    copies = tuple(tensor if _find_storages(tensor) & read else None for tensor in outs)
    return Kernel(func, _complete(func, args, kwargs), copies)


def _complete(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """List all arguments of a call in the order of the schema, defaults included."""
    rest = func._schema.arguments[len(args) :]
    return *args, *(kwargs.get(a.name, a.default_value) for a in rest)


def _find_out_overload(func: Any, results: int) -> Any:
    """Find the overload of an operation that takes the same arguments and `out` tensors."""
    wanted = [(argument.name, str(argument.type)) for argument in func._schema.arguments]
    made_new = ("dtype", "layout", "device", "pin_memory")  # not used with given memory
    fewer = [argument for argument in wanted if argument[0] not in made_new]
    for name in func.overloadpacket.overloads():
        overload = getattr(func.overloadpacket, name)
        # Overloads tagged `generated` copy from new memory, even results that are not read.
        if torch.Tag.generated not in overload.tags:
            arguments = overload._schema.arguments
            inputs = [(a.name, str(a.type)) for a in arguments if not a.is_out]
            if len(arguments) - len(inputs) == results and inputs in (wanted, fewer):
                return overload
    return None
