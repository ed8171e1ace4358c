"""Find out whose arithmetic the weights of a converted model are packed for.

A converted model keeps the engine that was selected when it was converted: selecting another one later
changes nothing. PyTorch does not tell which engine packed a weight, but the engines differ in how
they round ties. So the same operator is run on a small input made of ties, once with the model's
packed weight and once with the weight packed anew for each engine. The engine x86 is none of its own: it
gives every layer to fbgemm or to oneDNN.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import numpy as np
import torch

from .trace import Call, one_thread

_SAMPLES = 256
# Odd, because engines that add it before rounding then move each tie to the other neighbour.
_OUTPUT_ZERO_POINT = 127

_PREPACK = {
    "linear": torch.ops.quantized.linear_prepack,
    "conv1d": torch.ops.quantized.conv1d_prepack,
    "conv2d": torch.ops.quantized.conv2d_prepack,
    "conv3d": torch.ops.quantized.conv3d_prepack,
    "conv_transpose1d": torch.ops.quantized.conv_transpose1d_prepack,
    "conv_transpose2d": torch.ops.quantized.conv_transpose2d_prepack,
    "conv_transpose3d": torch.ops.quantized.conv_transpose3d_prepack,
}

# How the schemas of the operators name what is replaced.
_ARGUMENTS = {
    "linear": ("X", "W_prepack", "Y_scale_i", "Y_zero_point_i"),
    "conv": ("qx", "packed_weight", "output_scale", "output_zero_point"),
}

WITH_WEIGHTS = {f"quantized.{kind}{relu}" for kind in _PREPACK for relu in ("", "_relu")} | {
    f"quantized.conv2d_add{relu}" for relu in ("", "_relu")
}
"""The static operators that dialect_of takes."""

DYNAMIC = {"quantized.linear_dynamic", "quantized.linear_relu_dynamic"}
"""The dynamic ones."""

ENGINES = ("fbgemm", "x86", "onednn", "qnnpack")


def _dialects(call: Call, engine: str) -> list[str]:
    """Whose arithmetic a layer may have that was converted for an engine, the likeliest first."""
    if engine != "x86":
        return [engine]
    return ["onednn", "fbgemm"] if "conv" in call.operator else ["fbgemm"]


def dialect_of(call: Call, engine: str) -> str | None:
    """``fbgemm``, ``onednn`` or ``qnnpack``: whose arithmetic a layer has that was converted for the engine.

    None if it has that of another engine's layers.
    """
    probe = _dynamic_probe if call.operator in DYNAMIC else _probe
    for dialect in _dialects(call, engine):
        try:
            with torch.no_grad(), one_thread(), _selected(dialect):
                if torch.equal(*probe(call)):
                    return dialect
        except RuntimeError:  # an engine cannot unpack, or cannot pack, every kind of weight
            continue
    return None


@contextmanager
def _selected(engine: str) -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def _probe(call: Call) -> list[torch.Tensor]:
    """Codes of ties, computed with the weight as it is and with the weight packed for the selected engine."""
    operand, weights, scale, zero_point = _ARGUMENTS["linear" if "linear" in call.operator else "conv"]
    packed = call.arguments[weights]
    shape, weight_scale, repacked = _repack(call, packed)
    input_scale, output_scale = _scales_of_ties(weight_scale)
    # The operator without a sum has the same packed weight.
    function = torch.ops.quantized.conv2d.new if "_add" in call.operator else call.function
    names = {argument.name for argument in function._schema.arguments} if "_add" in call.operator else call.arguments
    results = []
    for candidate in (packed, repacked):
        replaced = {
            operand: _one_hot(shape, input_scale),
            weights: candidate,
            scale: output_scale,
            zero_point: _OUTPUT_ZERO_POINT,
        }
        arguments = {**call.arguments, **replaced}
        results.append(function(**{name: arguments[name] for name in names}).int_repr())
    return results


def _dynamic_probe(call: Call) -> list[torch.Tensor]:
    """Real numbers, which show every rounding of every engine."""
    packed = call.arguments["W_prepack"]
    weight, bias = packed.unpack()
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(_SAMPLES, weight.shape[1], generator=generator)
    repacked = torch.ops.quantized.linear_prepack(weight, bias)
    arguments = {**call.arguments, "X": data}
    return [call.function(**{**arguments, "W_prepack": candidate}) for candidate in (packed, repacked)]


def _repack(call: Call, packed: torch.ScriptObject) -> tuple[list[int], float, torch.ScriptObject]:
    """The shape of the smallest input, the first channel's scale, and the weight packed anew."""
    kind = call.operator.split(".")[1].replace("_relu", "").replace("_add", "")
    if kind == "linear":
        weight, bias = packed.unpack()
        return [_SAMPLES, weight.shape[1]], _first_scale(weight), _PREPACK[kind](weight, bias)
    axes = int(kind[-2])
    if "transpose" in kind:
        return _repack_transposed(kind, axes, packed)
    weight, bias = torch.ops.quantized.conv1d_unpack(packed) if axes == 1 else packed.unpack()
    stride, padding, dilation = (values[-axes:] for values in (packed.stride(), packed.padding(), packed.dilation()))
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:])]
    shape = [_SAMPLES, weight.shape[1] * packed.groups(), *extent]
    repacked = _PREPACK[kind](weight, bias, stride, padding, dilation, packed.groups())
    return shape, _first_scale(weight), repacked


def _repack_transposed(kind: str, axes: int, packed: torch.ScriptObject) -> tuple[list[int], float, torch.ScriptObject]:
    """As ``_repack``; an input so large that its padding leaves an output."""
    weight, bias = torch.ops.quantized.conv_transpose1d_unpack(packed) if axes == 1 else packed.unpack()
    geometry = [packed.stride(), packed.padding(), packed.output_padding(), packed.dilation()]
    stride, padding, output_padding, dilation = (values[-axes:] for values in geometry)
    extent = [-(-2 * pad // step) + 1 for pad, step in zip(padding, stride)]
    repacked = _PREPACK[kind](weight, bias, stride, padding, output_padding, dilation, packed.groups())
    return [_SAMPLES, weight.shape[0], *extent], _first_scale(weight), repacked


def _scales_of_ties(weight_scale: float) -> tuple[float, float]:
    """Scales of input and output with which every odd accumulator is a tie, in fbgemm.

    The output scale is twice the product of the others, so fbgemm multiplies by their quotient, 0.5.
    An engine that multiplies by a reciprocal instead may get 0.5 as well; take a product for which it
    does not. The input scale is so large that the bias does not matter.
    """
    weight = np.float32(weight_scale)
    for step in range(1000):
        source = np.float32(2.0**64 * (1 + step / 1000))
        product = source * weight
        if product * (np.float32(1) / (2 * product)) != np.float32(0.5):
            break
    return float(source), 2 * float(product)


def _one_hot(shape: list[int], scale: float) -> torch.Tensor:
    """Samples with a single code of 1 each, so that every accumulator is one weight."""
    samples, elements = shape[0], torch.Size(shape[1:]).numel()
    positions = torch.arange(samples) * max(1, elements // samples) % elements
    codes = torch.zeros(samples, elements, dtype=torch.uint8)
    codes[torch.arange(samples), positions] = 1
    return torch._make_per_tensor_quantized_tensor(codes.reshape(shape), scale, 0)


def _first_scale(weight: torch.Tensor) -> float:
    if weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return weight.q_scale()
    return weight.q_per_channel_scales()[0].item()
