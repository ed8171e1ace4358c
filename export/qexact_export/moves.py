"""Operators that only move data: which of them keep every element in its logical place."""

from __future__ import annotations

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


def require_same_order(call: Call) -> None:
    """Refuse the call unless it keeps all elements and their logical order.

    This is found out by sending through the same operator a tensor whose elements are numbered.
    """
    before, after = call.operands()[0], call.results[0]
    if len(call.results) != 1 or before.dtype != after.dtype:
        raise Unsupported("it changes the data type")
    numbers = torch.arange(_elements(before)).reshape(before.shape)
    moved = call_with(call, lambda value: numbers if isinstance(value, Snapshot) else value)
    if moved.numel() != numbers.numel() or not torch.equal(moved.flatten(), numbers.flatten()):
        raise Unsupported("it reorders or drops elements; only reshapes that keep their order can be exported")


def _elements(value: Snapshot) -> int:
    return int(torch.Size(value.shape).numel())
