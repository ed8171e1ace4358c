"""Run a model once and log every operator that touches its inputs or what is computed from them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator

import torch
from torch.nn.modules import module as module_hooks
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from .snapshot import Snapshot, take_snapshot


def operator_name(function: torch._ops.OpOverload) -> str:
    """The operator's name without its overload: ``quantized.conv2d``."""
    return function._schema.name.replace("::", ".")


@dataclass(eq=False)
class Call:
    """One operator call. Tensors that depend on the model's inputs appear as snapshots."""

    function: torch._ops.OpOverload
    module: str
    """Qualified name of the module whose forward() made the call; empty for the model itself."""
    module_is_operator: bool
    """Whether that module is one of PyTorch's own operators, such as nn.ReLU: it stands for the call."""
    arguments: dict[str, Any]
    """By the names of the operator's schema; arguments left at their defaults are filled in."""
    results: list[Snapshot]
    modified: bool
    """Whether an operand had been changed behind the log's back since it was recorded."""

    @property
    def operator(self) -> str:
        return operator_name(self.function)

    def operands(self) -> list[Snapshot]:
        leaves, _ = tree_flatten(list(self.arguments.values()))
        return [leaf for leaf in leaves if isinstance(leaf, Snapshot)]


@dataclass
class Failure:
    """Where a run stopped with an exception."""

    operator: str
    module: str
    message: str


@dataclass
class Trace:
    """The log of one run."""

    inputs: list[Snapshot]
    calls: list[Call]
    outputs: list[Any]
    """The model's results, flattened: a snapshot each, or the object itself if it is no value."""
    failure: Failure | None


def trace(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Trace:
    """Run the model on the inputs, on one thread, and log what it computes.

    An exception in the model ends the log early and is returned as its ``failure``.
    """
    modules = _ModuleStack(model)
    log = _Log(modules)
    functions = _LastFunction()
    input_snapshots = [log.track(tensor) for tensor in inputs]
    outputs: list[Any] = []
    failure = None
    with torch.no_grad(), one_thread(), modules.hooks():
        try:
            with functions, log:
                result = model(*inputs)
            outputs = [log.lookup(leaf) for leaf in tree_flatten(result)[0]]
        except Exception as error:  # whatever the model raises is a reason not to export it
            operator = log.failing or functions.name
            failure = Failure(operator, modules.current()[0], _first_line(error))
    return Trace(input_snapshots, log.calls, outputs, failure)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread: PyTorch's elementwise kernels round differently at the seams between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Log(TorchDispatchMode):
    """Sees every operator after PyTorch has decomposed the composite ones."""

    def __init__(self, modules: _ModuleStack):
        super().__init__()
        self.calls: list[Call] = []
        self.failing = ""
        self._modules = modules
        self._by_object: dict[int, Snapshot] = {}
        self._by_memory: dict[tuple, Snapshot] = {}
        # Held, so that neither an object's id nor its memory is given to another tensor.
        self._tracked: list[torch.Tensor] = []

    def track(self, tensor: torch.Tensor) -> Snapshot:
        """Remember what the tensor holds now."""
        snapshot = take_snapshot(tensor)
        self._tracked.append(tensor)
        self._by_object[id(tensor)] = self._by_memory[_memory(tensor)] = snapshot
        return snapshot

    def lookup(self, value: Any) -> Any:
        """The snapshot of a tensor that depends on the model's inputs, anything else as it is.

        Some functions, such as detach(), wrap an operator's result in a new object after the
        operator was logged; such an object is known by its memory.
        """
        if not isinstance(value, torch.Tensor):
            return value
        return self._by_object.get(id(value)) or self._by_memory.get(_memory(value), value)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        arguments = _by_name(function, tree_map(self.lookup, args), tree_map(self.lookup, kwargs))
        operands = [a for a in tree_flatten((args, kwargs))[0] if self.lookup(a) is not a]
        modified = any(not take_snapshot(a).same_content(self.lookup(a)) for a in operands)
        self.failing = operator_name(function)
        result = function(*args, **kwargs)
        self.failing = ""
        if operands:
            leaves = tree_flatten(result)[0]
            results = [self.track(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]
            module, is_operator = self._modules.current()
            self.calls.append(Call(function, module, is_operator, arguments, results, modified))
        return result


class _LastFunction(TorchFunctionMode):
    """Remembers the torch function being called: some fail before they reach an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.name = resolve_name(function) or getattr(function, "__name__", str(function))
        return function(*args, **(kwargs or {}))


class _ModuleStack:
    """The modules whose forward() is running, innermost last."""

    def __init__(self, model: torch.nn.Module):
        self._names = {id(module): name for name, module in model.named_modules()}
        self._stack: list[torch.nn.Module] = []

    def current(self) -> tuple[str, bool]:
        """Name of the innermost module, and whether it is one of PyTorch's own operators."""
        for module in reversed(self._stack):
            if id(module) in self._names:
                return self._names[id(module)], _is_operator(module)
        return "", False

    @contextmanager
    def hooks(self) -> Iterator[None]:
        enter = module_hooks.register_module_forward_pre_hook(self._enter)
        leave = module_hooks.register_module_forward_hook(self._leave)
        try:
            yield
        finally:
            enter.remove()
            leave.remove()

    def _enter(self, module, inputs) -> None:
        self._stack.append(module)

    def _leave(self, module, inputs, output) -> None:
        # A module that left by an exception is still on the stack, so that a failure can name it.
        while self._stack and self._stack.pop() is not module:
            pass


def _memory(tensor: torch.Tensor) -> tuple:
    """Which elements of which memory the tensor consists of."""
    if tensor.layout != torch.strided:
        return (id(tensor),)
    start = tensor.untyped_storage().data_ptr()
    return start, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _is_operator(module: torch.nn.Module) -> bool:
    own = type(module).__module__.startswith("torch.")
    return own and not isinstance(module, (torch.nn.Sequential, torch.fx.GraphModule))


def _by_name(function: torch._ops.OpOverload, args: tuple, kwargs: dict) -> dict[str, Any]:
    arguments = {}
    for position, argument in enumerate(function._schema.arguments):
        if position < len(args):
            arguments[argument.name] = args[position]
        elif argument.name in kwargs:
            arguments[argument.name] = kwargs[argument.name]
        else:
            arguments[argument.name] = argument.default_value
    return arguments


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def call_with(call: Call, replace: Callable[[Any], Any]) -> Any:
    """Call the operator again with every argument passed through ``replace``."""
    return call.function(**{name: tree_map(replace, value) for name, value in call.arguments.items()})
