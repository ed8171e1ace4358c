"""Unique names for values and nodes."""

from __future__ import annotations

_RESERVED = ("record", "digest")
"""Prefixes of the recording's tensors: a node's parameters must not look like them."""


class Names:
    def __init__(self) -> None:
        self._used: set[str] = set()

    def unused(self, base: str) -> str:
        """The name itself if nothing has it yet, else with a number: relu, relu_2, relu_3."""
        if base.split(".")[0] in _RESERVED:
            base = f"model.{base}"
        name, number = base, 1
        while name in self._used or name == "labels":
            number += 1
            name = f"{base}_{number}"
        self._used.add(name)
        return name
