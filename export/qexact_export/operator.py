"""What the document says about one call of an operator, and what calls have to be like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .errors import Unsupported
from .snapshot import DTYPES, Snapshot


@dataclass
class Operator:
    """The part of a node that does not depend on the rest of the graph."""

    op: str
    attributes: dict[str, Any] = field(default_factory=dict)
    rule: dict[str, Any] | None = None
    parameters: dict[str, np.ndarray] = field(default_factory=dict)


def expect_dtype(value: Snapshot, dtype: str) -> None:
    found = DTYPES.get(value.dtype, value.dtype)
    if found != dtype:
        raise Unsupported(f"it works on {value.dtype} here; only {dtype} values can be exported")


def expect_codes(value: Snapshot) -> None:
    if DTYPES.get(value.dtype) not in ("u8", "i8"):
        computes = "it computes in float32" if value.dtype == torch.float32 else f"it works on {value.dtype}"
        raise Unsupported(f"{computes} here; only quantized values (quint8, qint8) can be exported")


def expect_image(value: Snapshot) -> None:
    expect_codes(value)
    if len(value.shape) != 4:
        raise Unsupported(f"it needs values of the shape [N, C, H, W], not {list(value.shape)}")
