"""Each operator that can be exported: what the document says about one call of it.

``CONVERTERS`` maps the name of a PyTorch operator to a function from the call to an ``Operator``.
Such a function raises ``Unsupported`` when this particular call cannot be exported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .errors import Unsupported
from .snapshot import DTYPES, Snapshot
from .trace import Call
from .weights import bias_rule, unpack, weight_parameters


@dataclass
class Operator:
    """The part of a node that does not depend on the rest of the graph."""

    op: str
    attributes: dict[str, Any] = field(default_factory=dict)
    rule: dict[str, Any] | None = None
    parameters: dict[str, np.ndarray] = field(default_factory=dict)


def _quantize(call: Call) -> Operator:
    _expect_dtype(call.operands()[0], "f32")
    _expect_codes(call.results[0])
    rule = {"kind": "quantize", "multiplier": "reciprocal", "zero_point": "after", "overflow": "wrap"}
    return Operator("quantize", rule=rule)


def _dequantize(call: Call) -> Operator:
    _expect_codes(call.operands()[0])
    return Operator("dequantize", rule={"kind": "dequantize"})


def _linear(call: Call) -> Operator:
    _expect_dtype(call.operands()[0], "u8")
    weight, bias = unpack(call.arguments["W_prepack"])
    return Operator(
        "linear",
        attributes={"relu": call.operator.endswith("_relu")},
        rule=_f32_mul(weight, bias),
        parameters=weight_parameters(weight, bias),
    )


def _conv(axes: int):
    def convert(call: Call) -> Operator:
        _expect_dtype(call.operands()[0], "u8")
        packed = call.arguments["packed_weight"]
        weight, bias = unpack(packed)
        parameters = weight_parameters(weight, bias)
        # One-dimensional convolutions are packed as two-dimensional ones of height 1.
        while parameters["weight"].ndim > axes + 2:
            parameters["weight"] = parameters["weight"].squeeze(2)
        attributes = {
            "stride": packed.stride()[-axes:],
            "padding": [[pad, pad] for pad in packed.padding()[-axes:]],
            "dilation": packed.dilation()[-axes:],
            "groups": packed.groups(),
            "relu": call.operator.endswith("_relu"),
        }
        return Operator(f"conv{axes}d", attributes, _f32_mul(weight, bias), parameters)

    return convert


def _f32_mul(weight: torch.Tensor, bias: torch.Tensor | None) -> dict[str, Any]:
    bias_kind = bias_rule(weight, bias)
    return {"kind": "f32_mul", "multiplier": "quotient", "bias": bias_kind, "overflow": "convert"}


def _batch_norm(call: Call) -> Operator:
    _expect_image(call.operands()[0])
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
    _expect_codes(call.operands()[0])
    return Operator("relu")


def _max_pool(call: Call) -> Operator:
    _expect_image(call.operands()[0])
    kernel = _pair(call.arguments["kernel_size"])
    attributes = {
        "kernel": kernel,
        "stride": _pair(call.arguments["stride"]) or kernel,
        "padding": _pair(call.arguments["padding"]),
        "dilation": _pair(call.arguments["dilation"]),
        "ceil_mode": call.arguments["ceil_mode"],
    }
    return Operator("max_pool2d", attributes)


def _avg_pool(call: Call) -> Operator:
    _expect_image(call.operands()[0])
    kernel = _pair(call.arguments["kernel_size"])
    attributes = {
        "kernel": kernel,
        "stride": _pair(call.arguments["stride"]) or kernel,
        "padding": _pair(call.arguments["padding"]),
        "ceil_mode": call.arguments["ceil_mode"],
        "count_include_pad": call.arguments["count_include_pad"],
        "divisor_override": call.arguments["divisor_override"],
    }
    return Operator("avg_pool2d", attributes, _pool_rule(call))


def _adaptive_avg_pool(call: Call) -> Operator:
    _expect_image(call.operands()[0])
    attributes = {"output_size": _pair(call.arguments["output_size"])}
    return Operator("adaptive_avg_pool2d", attributes, _pool_rule(call))


def _pool_rule(call: Call) -> dict[str, Any]:
    """PyTorch has two kernels with two formulas, chosen by the layout of the operand."""
    return {"kind": "pool", "memory": call.operands()[0].memory}


def _pair(value: int | list[int]) -> list[int]:
    """One entry per spatial axis; an empty list stays empty."""
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def _expect_dtype(value: Snapshot, dtype: str) -> None:
    found = DTYPES.get(value.dtype, value.dtype)
    if found != dtype:
        raise Unsupported(f"it works on {value.dtype} here; only {dtype} values can be exported")


def _expect_codes(value: Snapshot) -> None:
    if DTYPES.get(value.dtype) not in ("u8", "i8"):
        computes = "it computes in float32" if value.dtype == torch.float32 else f"it works on {value.dtype}"
        raise Unsupported(f"{computes} here; only quantized values (quint8, qint8) can be exported")


def _expect_image(value: Snapshot) -> None:
    _expect_codes(value)
    if len(value.shape) != 4:
        raise Unsupported(f"it needs values of the shape [N, C, H, W], not {list(value.shape)}")


CONVERTERS = {
    "aten.quantize_per_tensor": _quantize,
    "aten.dequantize": _dequantize,
    "quantized.linear": _linear,
    "quantized.linear_relu": _linear,
    "quantized.conv1d": _conv(1),
    "quantized.conv1d_relu": _conv(1),
    "quantized.conv2d": _conv(2),
    "quantized.conv2d_relu": _conv(2),
    "quantized.conv3d": _conv(3),
    "quantized.conv3d_relu": _conv(3),
    "quantized.batch_norm2d": _batch_norm,
    "quantized.batch_norm2d_relu": _batch_norm,
    "aten.relu": _relu,
    "aten.relu_": _relu,
    "aten.quantized_max_pool2d": _max_pool,
    "aten.avg_pool2d": _avg_pool,
    "aten._adaptive_avg_pool2d": _adaptive_avg_pool,
}
