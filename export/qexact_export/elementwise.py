"""Operators that compute each code from the codes at its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .errors import Unsupported
from .operator import Operator, expect_codes
from .snapshot import Snapshot
from .trace import Call, call_with

GRANULE = 64
"""PyTorch's kernels compute vectors of so many elements by one formula, and elements left over by another."""


def has_tail(call: Call) -> bool:
    """Whether a call of one of these operators computes its last elements by the other formula."""
    return call.operator in FUNCTIONS | SUMS and any(result.data.size % GRANULE for result in call.results)


def function(call: Call) -> Operator:
    """A function of one code: a table of what PyTorch gives for every code."""
    source, result = call.operands()[0], call.results[0]
    expect_codes(source)
    expect_codes(result)
    least, dtype = (0, torch.uint8) if source.dtype == torch.quint8 else (-128, torch.int8)
    codes = torch.arange(least, least + 256).to(dtype).reshape(1, 256)
    every = torch._make_per_tensor_quantized_tensor(codes, source.scale, source.zero_point)
    with torch.no_grad():
        table = call_with(call, lambda value: every if isinstance(value, Snapshot) else value)
    entries = table.int_repr().flatten().numpy().copy()
    if (table.q_scale(), table.q_zero_point()) != (result.scale, result.zero_point):
        raise Unsupported("the quantization of its result depends on its operand")
    if not np.array_equal(entries[source.data.astype(np.int64) - least], result.data):
        raise Unsupported("its result is not a function of each code alone")
    name = call.operator.split(".")[1].rstrip("_")
    return Operator("table", {"function": name}, parameters={"table": entries})


def add(call: Call) -> Operator:
    a, b = _pair(call)
    if a.shape != b.shape:
        raise Unsupported("its operands have different shapes: PyTorch adds the ends of rows by another formula then")
    if torch.backends.quantized.engine == "qnnpack":
        if a.dtype != torch.quint8:
            raise Unsupported("engine qnnpack adds qint8 values by XNNPACK; only quint8 values can be exported")
        return Operator("add", _relu(call), {"kind": "add", "sum": "shifted"})
    if not (a.dense and b.dense and a.memory == b.memory):
        raise Unsupported("its operands lie in memory differently, or with gaps; make both contiguous")
    return Operator("add", _relu(call), {"kind": "add", "sum": "real"})


def mul(call: Call) -> Operator:
    a, b = _pair(call)
    if len(a.shape) != len(b.shape):
        raise Unsupported("its operands have different numbers of axes")
    return Operator("mul", _relu(call), {"kind": "mul", "multiplier": "reciprocal"})


def concat(call: Call) -> Operator:
    """PyTorch has a kernel of its own for images whose channels are innermost in memory."""
    sources = call.operands()
    tensors = call.arguments["tensors" if call.operator == "aten.cat" else "qx"]
    if len(sources) != len(tensors):
        raise Unsupported("one of its operands is a constant")
    for source in sources:
        expect_codes(source)
    axis = call.arguments["dim"] % len(sources[0].shape)
    if axis == 0:
        raise Unsupported("it joins batches")
    fast = axis == 1 and all(len(s.shape) == 4 and s.memory == "channels_last" for s in sources)
    return Operator(
        "concat", {"axis": axis - 1}, {"kind": "concat", "memory": "channels_last" if fast else "contiguous"}
    )


def _pair(call: Call) -> tuple[Snapshot, Snapshot]:
    operands = call.operands()
    if len(operands) != 2:
        raise Unsupported("one of its operands is a constant")
    for operand in operands:
        expect_codes(operand)
    return operands[0], operands[1]


def _relu(call: Call) -> dict[str, Any]:
    return {"relu": call.operator.endswith("_relu")}


FUNCTIONS = {
    "quantized.add_scalar",
    "quantized.add_scalar_relu",
    "quantized.mul_scalar",
    "quantized.mul_scalar_relu",
    "quantized.hardswish",
    "quantized.leaky_relu",
    "quantized.elu",
    "quantized.celu",
    "quantized.relu6",
    "quantized.sigmoid",
    "aten.hardsigmoid",
    "aten.sigmoid",
    "aten.tanh",
    "aten.hardtanh",
    "aten.hardtanh_",
    "aten.clamp",
    "aten.clamp_",
    "aten.clamp_min",
    "aten.clamp_max",
    "aten.leaky_relu",
    "aten.gelu",
}
SUMS = {"quantized.add", "quantized.add_relu"}
CONVERTERS = {
    **dict.fromkeys(FUNCTIONS, function),
    **dict.fromkeys(SUMS, add),
    "quantized.mul": mul,
    "quantized.mul_relu": mul,
    "quantized.cat": concat,
    "aten.cat": concat,
}
