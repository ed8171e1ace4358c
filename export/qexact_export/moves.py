"""Operators that only move data: those that keep every element in its logical place, and those that do not."""

from __future__ import annotations

from typing import Any

import torch

from .errors import Unsupported
from .snapshot import Snapshot
from .trace import Call, call_with

MOVES = {
    f"aten.{name}"
    for name in (
        "view _unsafe_view _reshape_alias alias detach clone contiguous lift_fresh _to_copy "
        "squeeze unsqueeze flatten unflatten permute transpose t slice select expand"
    ).split()
}


SPLITS = {"aten.split", "aten.split_with_sizes", "aten.chunk"}
"""Operators with several results, one part of the operand each."""


def keeps_order(call: Call) -> bool:
    """Whether the call keeps all elements and their logical order.

    This is found out by sending through the same operator a tensor whose elements are numbered.
    """
    before, after = call.operands()[0], call.results[0]
    if len(call.results) != 1 or before.dtype != after.dtype:
        raise Unsupported("it changes the data type")
    numbers = torch.arange(_elements(before)).reshape(before.shape)
    moved = call_with(call, lambda value: numbers if isinstance(value, Snapshot) else value)
    return moved.numel() == numbers.numel() and torch.equal(moved.flatten(), numbers.flatten())


def reordering(call: Call) -> tuple[str, dict[str, Any]]:
    """The operator of the format, and its attributes, of a call that does not keep the order."""
    before = call.operands()[0]
    rank, arguments = len(before.shape), call.arguments
    if call.operator == "aten.slice":
        axis = arguments["dim"] % rank
        start, _, step = slice(arguments["start"], arguments["end"], arguments["step"]).indices(before.shape[axis])
        if axis > 0:
            return "slice", {"axis": axis - 1, "start": start, "step": step}
    axes = list(range(rank))
    if call.operator == "aten.permute":
        axes = [axis % rank for axis in arguments["dims"]]
    elif call.operator == "aten.transpose":
        one, other = arguments["dim0"] % rank, arguments["dim1"] % rank
        axes[one], axes[other] = axes[other], axes[one]
    if axes[0] == 0 and axes != sorted(axes):
        return "permute", {"axes": [axis - 1 for axis in axes[1:]]}
    raise Unsupported(
        "it reorders or drops elements; besides reshapes only parts of an axis and permutations of axes behind "
        "the batch can be exported"
    )


def parts(call: Call) -> list[dict[str, Any]]:
    """The attributes of the slice that each result of a split is."""
    axis = call.arguments["dim"] % len(call.operands()[0].shape)
    if axis == 0:
        raise Unsupported("it splits the batch")
    start, slices = 0, []
    for result in call.results:
        slices.append({"axis": axis - 1, "start": start, "step": 1})
        start += result.shape[axis]
    return slices


def _elements(value: Snapshot) -> int:
    return int(torch.Size(value.shape).numel())
