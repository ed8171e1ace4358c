"""Each operator that can be exported: what the document says about one call of it.

``CONVERTERS`` maps the name of a PyTorch operator to a function from the call to an ``Operator``.
Such a function raises ``Unsupported`` when this particular call cannot be exported.
"""

from __future__ import annotations

from typing import Any

import torch

from . import elementwise, gather, layers
from .errors import Unsupported
from .operator import Operator, expect_codes, expect_dtype, expect_image
from .trace import Call


def _quantize(call: Call) -> Operator:
    expect_dtype(call.operands()[0], "f32")
    expect_codes(call.results[0])
    rule = {"kind": "quantize", "multiplier": "reciprocal", "zero_point": "after", "overflow": "wrap"}
    return Operator("quantize", rule=rule)


def _dequantize(call: Call) -> Operator:
    expect_codes(call.operands()[0])
    return Operator("dequantize", rule={"kind": "dequantize"})


def _batch_norm(call: Call) -> Operator:
    expect_image(call.operands()[0])
    names = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    parameters = {}
    for name, argument in names.items():
        tensor = call.arguments[argument]
        if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float32:
            raise Unsupported(f"its {name} is not a constant float32 tensor")
        parameters[name] = tensor.detach().contiguous().numpy().copy()
    attributes = {"eps": call.arguments["eps"], "relu": call.operator.endswith("_relu")}
    return Operator("batch_norm2d", attributes, {"kind": "batch_norm", "fma": True}, parameters)


def _relu(call: Call) -> Operator:
    if call.operands()[0].dtype != torch.float32:
        expect_codes(call.operands()[0])
    return Operator("relu")


def _max_pool(call: Call) -> Operator:
    expect_image(call.operands()[0])
    kernel = _pair(call.arguments["kernel_size"])
    dilated = _pair(call.arguments["dilation"]) != [1, 1] and _pair(call.arguments["padding"]) != [0, 0]
    if _on_qnnpack(call) and dilated and not call.arguments["ceil_mode"]:
        raise Unsupported("engine qnnpack reads pixels outside of dilated windows where there is padding")
    attributes = {
        "kernel": kernel,
        "stride": _pair(call.arguments["stride"]) or kernel,
        "padding": _pair(call.arguments["padding"]),
        "dilation": _pair(call.arguments["dilation"]),
        "ceil_mode": call.arguments["ceil_mode"],
    }
    return Operator("max_pool2d", attributes)


def _avg_pool(call: Call) -> Operator:
    expect_image(call.operands()[0])
    kernel = _pair(call.arguments["kernel_size"])
    attributes = {
        "kernel": kernel,
        "stride": _pair(call.arguments["stride"]) or kernel,
        "padding": _pair(call.arguments["padding"]),
        "ceil_mode": call.arguments["ceil_mode"],
        "count_include_pad": call.arguments["count_include_pad"],
        "divisor_override": call.arguments["divisor_override"],
    }
    if _on_qnnpack(call) and not attributes["ceil_mode"]:
        # Its padding always counts, and it has no other divisor.
        attributes |= {"count_include_pad": True, "divisor_override": None}
        return Operator("avg_pool2d", attributes, _QNNPACK_POOL)
    return Operator("avg_pool2d", attributes, _pool_rule(call))


def _adaptive_avg_pool(call: Call) -> Operator:
    expect_image(call.operands()[0])
    attributes = {"output_size": _pair(call.arguments["output_size"])}
    if _on_qnnpack(call):
        if attributes["output_size"] != [1, 1]:
            raise Unsupported(f"engine qnnpack pools to {attributes['output_size']}; only to [1, 1] can be exported")
        return Operator("adaptive_avg_pool2d", attributes, _QNNPACK_POOL)
    return Operator("adaptive_avg_pool2d", attributes, _pool_rule(call))


def _pool_rule(call: Call) -> dict[str, Any]:
    """PyTorch has two kernels with two formulas, chosen by the layout of the operand."""
    return {"kind": "pool", "memory": call.operands()[0].memory}


_QNNPACK_POOL = {"kind": "mean", "multiplier": "quotient"}


def _on_qnnpack(call: Call) -> bool:
    """Whether the engine's own kernel takes the call, in whatever layout."""
    return torch.backends.quantized.engine == "qnnpack" and call.operands()[0].dtype == torch.quint8


def _mean(call: Call) -> Operator:
    raise Unsupported(
        "not supported: PyTorch sums dequantized values in an order that depends on the layout; use "
        "adaptive_avg_pool2d to one pixel"
    )


def _pair(value: int | list[int]) -> list[int]:
    """One entry per spatial axis; an empty list stays empty."""
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


CONVERTERS = {
    "aten.quantize_per_tensor": _quantize,
    "aten.dequantize": _dequantize,
    **layers.CONVERTERS,
    **elementwise.CONVERTERS,
    **gather.CONVERTERS,
    "aten.mean": _mean,
    "quantized.batch_norm2d": _batch_norm,
    "quantized.batch_norm2d_relu": _batch_norm,
    "aten.relu": _relu,
    "aten.relu_": _relu,
    "aten.quantized_max_pool2d": _max_pool,
    "aten.avg_pool2d": _avg_pool,
    "aten._adaptive_avg_pool2d": _adaptive_avg_pool,
}
