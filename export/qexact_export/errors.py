"""Reasons not to export, collected so that all of them can be reported at once."""

from __future__ import annotations


class ExportError(Exception):
    """The model cannot be exported. ``reasons`` lists every reason that was found."""

    def __init__(self, reasons: list[str]):
        self.reasons = list(reasons)
        if len(self.reasons) == 1:
            message = f"cannot export: {self.reasons[0]}"
        else:
            lines = [f"cannot export, for {len(self.reasons)} reasons:"]
            message = "\n  - ".join(lines + self.reasons)
        super().__init__(message)


class Unsupported(Exception):
    """One operator call cannot be exported; the message says why."""


class Reasons:
    """Collects reasons, each once, in the order in which they were found."""

    def __init__(self) -> None:
        self._reasons: dict[str, None] = {}

    def add(self, reason: str) -> None:
        self._reasons[reason] = None

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def raise_if_any(self) -> None:
        if self._reasons:
            raise ExportError(list(self._reasons))
