"""Turn the log of a run into a graph of values and nodes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import Reasons, Unsupported
from .moves import MOVES, SPLITS, keeps_order, parts, reordering
from .names import Names
from .operator import Operator
from .operators import CONVERTERS
from .snapshot import DTYPES, Snapshot
from .trace import Call, Trace
from .weights import valid_scale

_QUERIES = {"aten.q_scale", "aten.q_zero_point", "aten.qscheme", "aten.sym_size", "aten.is_contiguous"}
"""Operators that read a fixed property of a value and compute nothing."""


_SEVERAL_OPERANDS = {
    *(f"quantized.{name}{relu}" for name in ("add", "mul", "conv2d_add") for relu in ("", "_relu")),
    "quantized.cat",
    "aten.cat",
}
"""Operators of several values; what the others need besides one value are constants."""


@dataclass(eq=False)
class Value:
    name: str
    snapshot: Snapshot


@dataclass(eq=False)
class Node:
    name: str
    operator: Operator
    inputs: list[Value]
    output: Value


@dataclass
class Graph:
    inputs: list[Value]
    nodes: list[Node] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    refused: set[Call] = field(default_factory=set)

    @property
    def computed(self) -> list[Value]:
        """Every value that is not an input, in execution order."""
        return [node.output for node in self.nodes]


def call_site(module: str, operator: str) -> str:
    """How reasons name an operator call."""
    where = f"module {module!r}" if module else "the model itself"
    return f"{where}, operator {operator}"


def build_graph(trace: Trace, model: torch.nn.Module, reasons: Reasons) -> Graph:
    """The graph of the run. Whatever cannot be part of it is added to the reasons."""
    return _Builder(trace, model, reasons).build()


class _Builder:
    def __init__(self, trace: Trace, model: torch.nn.Module, reasons: Reasons):
        self._trace = trace
        self._reasons = reasons
        self._names = Names()
        self._values: dict[Snapshot, Value | None] = {}
        inputs = []
        for name, snapshot in zip(input_names(model, len(trace.inputs)), trace.inputs):
            inputs.append(Value(self._names.unused(name), snapshot))
            self._values[snapshot] = inputs[-1]
        self._graph = Graph(inputs)

    def build(self) -> Graph:
        for value in self._graph.inputs:
            problem = _value_problem(value.snapshot)
            if problem:
                self._reasons.add(f"input {value.name!r}: it is {problem}")
        for call in self._trace.calls:
            try:
                self._add(call)
            except Unsupported as error:
                self._reasons.add(f"{call_site(call.module, call.operator)}: {error}")
                self._graph.refused.add(call)
                for snapshot in call.results:
                    self._values.setdefault(snapshot, None)
        for position, output in enumerate(self._trace.outputs):
            self._add_output(position, output)
        return self._graph

    def _add(self, call: Call) -> None:
        if call.operator in _QUERIES and not call.results:
            return
        if call.modified:
            raise Unsupported("its operand was changed in place after it had been computed")
        if call.operator in MOVES:
            self._add_move(call)
        elif call.operator in SPLITS:
            for result, attributes in zip(call.results, parts(call)):
                self._add_node(call, Operator("slice", attributes), result)
        elif call.operator in CONVERTERS:
            if len(call.operands()) != 1 and call.operator not in _SEVERAL_OPERANDS:
                raise Unsupported("its parameters depend on the input; they have to be constants")
            self._add_node(call, CONVERTERS[call.operator](call), call.results[0])
        else:
            raise Unsupported(_why_unsupported(call))

    def _add_move(self, call: Call) -> None:
        before, after = call.operands()[0], call.results[0]
        if not keeps_order(call):
            self._add_node(call, Operator(*reordering(call)), after)
        elif before.shape == after.shape:
            self._values[after] = self._values[before]
        else:
            self._add_node(call, Operator("flatten" if len(after.shape) == 2 else "reshape"), after)

    def _add_node(self, call: Call, operator: Operator, result: Snapshot) -> None:
        problem = _value_problem(result)
        if problem:
            raise Unsupported(f"its result is {problem}")
        sources = [self._values[operand] for operand in call.operands()]
        if None in sources:  # one comes from a refused call: nothing more can be said about it
            self._values[result] = None
            return
        name = self._names.unused(_base_name(call, operator.op))
        value = Value(name, result)
        self._values[result] = value
        self._graph.nodes.append(Node(name, operator, sources, value))

    def _add_output(self, position: int, output: Any) -> None:
        if not isinstance(output, Snapshot):
            found = "a constant" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
            self._reasons.add(f"output {position} is {found}; outputs have to be tensors computed from the inputs")
        elif self._values.get(output) is not None:
            self._graph.outputs.append(self._values[output])


def _value_problem(value: Snapshot) -> str | None:
    """Why the document has no such value, or None if it has."""
    if value.dtype not in DTYPES:
        return f"of type {value.dtype}; only quint8, qint8 and float32 can be exported"
    if 0 in value.shape:
        return f"empty: its shape is {list(value.shape)}"
    if value.dtype == torch.float32:
        return None
    if value.scale is None:
        return "quantized per channel; only values quantized per tensor can be exported"
    if not valid_scale(value.scale):
        return f"quantized with the scale {value.scale!r}, which is not a positive finite float32 number"
    least, most = (0, 255) if value.dtype == torch.quint8 else (-128, 127)
    if not least <= value.zero_point <= most:
        return f"quantized with the zero point {value.zero_point}, which is not from {least} to {most}"
    return None


def _base_name(call: Call, op: str) -> str:
    """The module's name if the module stands for the call, else the operator's name in that module."""
    if call.module_is_operator and call.module:
        return call.module
    return f"{call.module}.{op}" if call.module else op


def input_names(model: torch.nn.Module, count: int) -> list[str]:
    """The parameter names of forward(); those collected by *args are numbered."""
    names = []
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names += [f"input_{position}" for position in range(len(names), count)]
    return names[:count]


def _why_unsupported(call: Call) -> str:
    if not call.results:
        return "it reads values back into Python; what is exported cannot depend on them"
    if any(operand.dtype == torch.float32 for operand in call.operands()):
        return "not supported: it computes on float32 values"
    return "not supported"
