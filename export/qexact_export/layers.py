"""Linear and convolution layers: whose arithmetic they have is found out by ``engine.dialect_of``."""

from __future__ import annotations

from typing import Any

import torch

from .engine import dialect_of
from .errors import Unsupported
from .operator import Operator, expect_dtype
from .trace import Call
from .weights import is_per_tensor, unpack, weight_parameters


def _linear(call: Call) -> Operator:
    expect_dtype(call.operands()[0], "u8")
    weight, bias = unpack(call.arguments["W_prepack"])
    return Operator(
        "linear",
        attributes={"relu": call.operator.endswith("_relu")},
        rule=_rule(_dialect(call), weight, bias),
        parameters=weight_parameters(weight, bias),
    )


def _linear_dynamic(call: Call) -> Operator:
    expect_dtype(call.operands()[0], "f32")
    weight, bias = unpack(call.arguments["W_prepack"])
    quantize = {"fbgemm": "fused", "onednn": "zero_point_first", "qnnpack": "wrapping"}[_dialect(call)]
    return Operator(
        "linear_dynamic",
        attributes={"relu": "_relu" in call.operator, "reduce_range": call.arguments["reduce_range"]},
        rule={"kind": "f32_out", "quantize": quantize, "weight": _granularity(weight)},
        parameters=weight_parameters(weight, bias),
    )


def _conv(axes: int):
    def convert(call: Call) -> Operator:
        for operand in call.operands():
            expect_dtype(operand, "u8")
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
        return Operator(f"conv{axes}d", attributes, _rule(_dialect(call), weight, bias), parameters)

    return convert


def _conv_transpose(axes: int):
    def convert(call: Call) -> Operator:
        expect_dtype(call.operands()[0], "u8")
        packed = call.arguments["packed_weight"]
        weight, bias = unpack(packed)
        dialect = _dialect(call)
        if dialect == "onednn":
            raise Unsupported("oneDNN mixes up the channels and pixels of its result in PyTorch 2.5; use engine fbgemm")
        parameters = weight_parameters(weight, bias)
        if len(parameters["weight_scale"]) != 1:
            raise Unsupported("its weights are quantized per channel; only per tensor can be exported")
        while parameters["weight"].ndim > axes + 2:
            parameters["weight"] = parameters["weight"].squeeze(2)
        attributes = {
            "stride": packed.stride()[-axes:],
            "padding": [[pad, pad] for pad in packed.padding()[-axes:]],
            "output_padding": packed.output_padding()[-axes:],
            "dilation": packed.dilation()[-axes:],
            "groups": packed.groups(),
            "relu": False,
        }
        return Operator(f"conv_transpose{axes}d", attributes, _rule(dialect, weight, bias), parameters)

    return convert


def _dialect(call: Call) -> str:
    engine = torch.backends.quantized.engine
    dialect = dialect_of(call, engine)
    if dialect is None:
        raise Unsupported(
            f"it was converted for another engine than {engine}; set torch.backends.quantized.engine = {engine!r} "
            "before converting"
        )
    return dialect


def _rule(dialect: str, weight: torch.Tensor, bias: torch.Tensor | None) -> dict[str, Any]:
    if dialect == "onednn":
        return {"kind": "f32_real", "scales": "reciprocal", "weight": _granularity(weight)}
    if dialect == "qnnpack":
        kind, multiplier = "rounded", "reciprocal"
    else:
        # fbgemm has different code for the two granularities of weights.
        kind, multiplier = "fused" if is_per_tensor(weight) else "addend", "quotient"
    bias_kind = "none" if bias is None else kind
    return {"kind": "f32_mul", "multiplier": multiplier, "bias": bias_kind, "overflow": "convert"}


def _granularity(weight: torch.Tensor) -> str:
    return "per_tensor" if is_per_tensor(weight) else "per_channel"


CONVERTERS = {
    "quantized.linear": _linear,
    "quantized.linear_relu": _linear,
    "quantized.linear_dynamic": _linear_dynamic,
    "quantized.linear_relu_dynamic": _linear_dynamic,
    "quantized.conv1d": _conv(1),
    "quantized.conv1d_relu": _conv(1),
    "quantized.conv2d": _conv(2),
    "quantized.conv2d_relu": _conv(2),
    "quantized.conv2d_add": _conv(2),
    "quantized.conv2d_add_relu": _conv(2),
    "quantized.conv3d": _conv(3),
    "quantized.conv3d_relu": _conv(3),
    **{f"quantized.conv_transpose{axes}d": _conv_transpose(axes) for axes in (1, 2, 3)},
}
