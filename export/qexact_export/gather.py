"""Operators each of whose axes chooses elements of the operand: padding, nearest neighbours, shuffles."""

from __future__ import annotations

from math import floor

import numpy as np
import torch

from .errors import Unsupported
from .operator import Operator
from .snapshot import Snapshot
from .trace import Call


def _pad(call: Call) -> Operator:
    source = call.operands()[0]
    value = float(call.arguments["value"] or 0)
    if source.dtype != torch.float32:
        real = torch.tensor([value])
        value = int(torch.quantize_per_tensor(real, source.scale, source.zero_point, source.dtype).int_repr())
    elif not np.isfinite(np.float32(value)):
        raise Unsupported(f"it pads with {value}; only finite numbers can be exported")
    return Operator("pad", {"padding": _paddings(call, call.arguments["pad"]), "value": value})


def _reflection_pad(call: Call) -> Operator:
    return Operator("reflection_pad", {"padding": _paddings(call, call.arguments["padding"])})


def _paddings(call: Call, flat: list[int]) -> list[list[int]]:
    """Two numbers an axis, of the last axis first, as two numbers for every axis of a sample."""
    rank = len(call.operands()[0].shape)
    pairs = [list(flat[i : i + 2]) for i in range(0, len(flat), 2)]
    pairs = [[0, 0]] * (rank - len(pairs)) + pairs[::-1]
    if any(value < 0 for pair in pairs for value in pair):
        raise Unsupported("it has a negative padding; slice what is to be cut off")
    if pairs[0] != [0, 0]:
        raise Unsupported("it pads the batch")
    return pairs[1:]


def _upsample_nearest(call: Call) -> Operator:
    source, result = call.operands()[0], call.results[0]
    before, after = list(source.shape[2:]), list(result.shape[2:])
    names = {1: ["scales"], 2: ["scales_h", "scales_w"], 3: ["scales_d", "scales_h", "scales_w"]}[len(before)]
    factors = [call.arguments[name] for name in names]
    for extent, to, factor in zip(before, after, factors):
        if factor is not None and floor(extent * factor) != to:
            raise Unsupported(f"it resizes {extent} elements by a factor of {factor} to {to}")
    if not np.array_equal(_nearest(source, after, factors), result.data):
        raise Unsupported("its result is not what the nearest neighbours are for quantized values")
    return Operator("upsample_nearest", {"scale_factors": factors})


def _nearest(source: Snapshot, after: list[int], factors: list[float | None]) -> np.ndarray:
    """The elements that PyTorch's kernel for quantized values chooses; that for float32 may choose others."""
    data = source.data
    if list(source.shape[2:]) == after:
        return data
    for axis, (to, factor) in enumerate(zip(after, factors), 2):
        extent = source.shape[axis]
        step = np.float32(extent) / np.float32(to) if factor is None else np.float32(1 / factor)
        chosen = np.floor(np.arange(to).astype(np.float32) * step).astype(np.int64)
        data = np.take(data, np.minimum(chosen, extent - 1), axis)
    return data


def _channel_shuffle(call: Call) -> Operator:
    return Operator("channel_shuffle", {"groups": call.arguments["groups"]})


CONVERTERS = {
    "aten.constant_pad_nd": _pad,
    **{f"aten.reflection_pad{axes}d": _reflection_pad for axes in (1, 2, 3)},
    **{f"aten.upsample_nearest{axes}d": _upsample_nearest for axes in (1, 2, 3)},
    "aten.channel_shuffle": _channel_shuffle,
    "aten.native_channel_shuffle": _channel_shuffle,
}
