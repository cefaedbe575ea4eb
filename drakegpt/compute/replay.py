"""A tape: what a function computes, recorded once as a list of kernel calls and played again.

For a small model most of a training step is not arithmetic but bookkeeping:
Python calls modules, PyTorch builds a graph of the step, walks it backwards,
asks for memory and gives it back, thousands of times a second and each time the
same. A tape keeps what stays the same. It is recorded while the function runs,
below all of that, as the plain list of kernels that were started, each with the
very memory it read and wrote; to play it is to start them again. The numbers
are those of the function itself, to the last bit. What CUDA graphs are to a
GPU, this is to a CPU.

The price: all intermediate results stay in memory; and whatever is decided in
Python, a shape or a number, stays as it was when the tape was recorded. So what
shall change between two plays must be a tensor that is changed in place.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import BuiltinFunctionType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

Call = tuple[Any, tuple[Any, ...], dict[str, Any], Any]

# Activations of a layer, B * T * C, in all that is recorded: up to so many, bookkeeping weighs as
# much as arithmetic on a CPU, and a tape is worth the memory that it holds.
REPLAYED_UP_TO = 2**18


class KernelTrace:
    """Records `function`, running it once, and plays it again whenever called."""

    def __init__(self, function: Callable[[], Tensor]) -> None:
        """`function` may change tensors that exist before; it returns one that is kept."""
        with _Recorder() as recorder:
            self.result = function()
        self._calls = _kernels(recorder.calls, self.result)

    def __len__(self) -> int:
        """The number of kernel calls."""
        return len(self._calls)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Do it all again; what `function` returned then holds what it would return now."""
        for call in self._calls:
            call()
        return self.result


class Replayed:
    """Calls `function` again and again: recorded at the second call, played from the third on.

    The first call runs as written, for whatever is made once and then kept. Only
    tensors may be given to the function, at each call as many and of the same
    shapes. What it returns is good until the next call.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._called = False
        self._inputs: list[Tensor] = []  # where the tape reads
        self._tape: KernelTrace | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What `function` returns for `inputs`. Raises `ValueError` if it cannot be recorded."""
        if self._tape is not None:
            for place, tensor in zip(self._inputs, inputs, strict=True):
                place.copy_(tensor)
            return self._tape()
        if not self._called:
            self._called = True
            return self._function(*inputs)
        self._inputs = [tensor.clone() for tensor in inputs]
        self._tape = KernelTrace(
            lambda: self._function(*self._inputs)
        )  # recording it carries it out
        return self._tape.result


class _Recorder(TorchDispatchMode):
    """Writes down every operation that reaches a kernel, after autograd and autocast."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to keep the compiler out of here PyTorch would load it, which takes a second."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise ValueError("a number read from a tensor would stay on the tape as it is")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out


def _kernels(calls: list[Call], result: Tensor) -> list[Callable[[], Any]]:
    """The calls that compute something, each writing where its result was when recorded."""
    constants = _constants(calls)
    read = _storages([result, *((args, kwargs) for _, args, kwargs, _ in calls)])
    kernels: list[Callable[[], Any]] = []
    for func, args, kwargs, out in calls:
        if func._schema.is_mutable:
            kernels.append(partial(func._op, *args, **kwargs))
        elif func.namespace == "profiler" or _is_view(args, out) or _storages(out) <= constants:
            continue
        else:
            kernels.append(_into(func, args, kwargs, out, read))
    return kernels


def _constants(calls: list[Call]) -> set[int]:
    """Memory that needs no call: it holds the same at each play, or was only asked for."""
    changed = {
        place
        for func, args, kwargs, _ in calls
        if func._schema.is_mutable
        for place in _storages(_written(func, args, kwargs))
    }
    constants: set[int] = set()
    for func, args, kwargs, out in calls:
        name, results = func._schema.name, _storages(out)
        if name.startswith(("aten::empty", "aten::new_empty")):
            constants |= results
        elif not results & changed and torch.Tag.nondeterministic_seeded not in func.tags:
            shape_only = name.endswith("_like") or name.startswith("aten::new_")
            if shape_only or _storages((args, kwargs)) <= constants - changed:
                constants |= results
    return constants


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that a call writes to."""
    values = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)}
    values |= kwargs
    return [
        values[a.name]
        for a in func._schema.arguments
        if a.alias_info is not None and a.alias_info.is_write and a.name in values
    ]


def _is_view(args: tuple[Any, ...], out: Any) -> bool:
    """Whether a result is nothing new, but another look at an argument's memory."""
    return bool(_storages(out)) and _storages(out) <= _storages(args)


def _storages(values: Any) -> set[int]:
    """The memory of all tensors in `values`; those without any have none."""
    tensors = (value for value in tree_iter(values) if isinstance(value, Tensor))
    return {place for t in tensors if (place := t.untyped_storage().data_ptr())}


def _into(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, read: set[int]
) -> Callable[[], Any]:
    """The call of `func` that writes into `out` instead of new memory, where that is `read`."""
    outs = (out,) if isinstance(out, Tensor) else tuple(out)
    quick = _python_function(func)
    if overload := _overload_with_out(func, len(outs)):
        arguments = overload._schema.arguments
        known = {argument.name for argument in arguments if not argument.is_out}
        names = [argument.name for argument in arguments if argument.is_out]
        kwargs = {key: value for key, value in kwargs.items() if key in known}
        if len(outs) == 1 and torch.Tag.nondeterministic_seeded not in func.tags:
            with suppress(TypeError, RuntimeError):  # whether it takes `out` is tried elsewhere
                quick(*args, **kwargs, out=torch.empty_like(outs[0]))
                return partial(quick, *args, **kwargs, out=outs[0])
        return partial(overload._op, *args, **kwargs, **dict(zip(names, outs, strict=True)))
    return partial(_copied, quick, args, kwargs, [o if _storages(o) & read else None for o in outs])


def _overload_with_out(func: Any, results: int) -> Any:
    """The form of an operation that takes the same arguments and memory for its results."""
    wanted = [(argument.name, str(argument.type)) for argument in func._schema.arguments]
    made_new = ("dtype", "layout", "device", "pin_memory")  # of no use where memory is given
    fewer = [argument for argument in wanted if argument[0] not in made_new]
    for name in func.overloadpacket.overloads():
        overload = getattr(func.overloadpacket, name)
        # Those tagged `generated` only copy from new memory, even what is not read.
        if torch.Tag.generated not in overload.tags:
            arguments = overload._schema.arguments
            inputs = [(a.name, str(a.type)) for a in arguments if not a.is_out]
            if len(arguments) - len(inputs) == results and inputs in (wanted, fewer):
                return overload
    return None


def _python_function(func: Any) -> Any:
    """PyTorch's own binding of an operation: half a microsecond quicker to call."""
    binding = getattr(torch, func._schema.name.removeprefix("aten::"), None)
    return binding if isinstance(binding, BuiltinFunctionType) else func._op


def _copied(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outs: list[Any]) -> None:
    """For operations that can only write into new memory."""
    new = op(*args, **kwargs)
    for old, result in zip(outs, (new,) if isinstance(new, Tensor) else new, strict=True):
        if isinstance(old, Tensor):
            old.copy_(result)
