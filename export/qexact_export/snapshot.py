"""What a tensor held at the moment it was computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

DTYPES = {torch.quint8: "u8", torch.qint8: "i8", torch.float32: "f32"}
"""The data types of values, and their names in the document."""

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(eq=False)
class Snapshot:
    """A copy of a tensor's elements in logical order, with its quantization and memory layout.

    Snapshots are compared by identity: each stands for one result of one operator call.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    data: np.ndarray | None
    """The codes or floats, or None for a data type that values cannot have."""
    scale: float | None
    zero_point: int | None
    memory: str
    dense: bool
    """Whether its elements lie in memory without gaps, in one of the two layouts."""
    bits: int = 8
    """Width of its codes."""

    def same_content(self, other: Snapshot) -> bool:
        """Whether two snapshots hold the same bytes. (Bytes, because NaN differs from itself.)"""
        if self.dtype != other.dtype or self.shape != other.shape:
            return False
        if self.data is None or other.data is None:
            return self.data is other.data
        return self.data.tobytes() == other.data.tobytes()


def memory_layout(tensor: torch.Tensor) -> str:
    """``channels_last`` when PyTorch would take the tensor for channels-last, else ``contiguous``.

    This is the question its pooling kernels ask first, so a tensor that is both (a single channel,
    say) counts as channels-last.
    """
    layout = _CHANNELS_LAST.get(tensor.dim())
    if layout is not None and tensor.is_contiguous(memory_format=layout):
        return "channels_last"
    return "contiguous"


def take_snapshot(tensor: torch.Tensor) -> Snapshot:
    scale = zero_point = data = None
    if tensor.is_quantized:
        if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            scale, zero_point = tensor.q_scale(), tensor.q_zero_point()
        if tensor.dtype in DTYPES:
            data = _copy(tensor.int_repr())
    elif tensor.dtype in DTYPES:
        data = _copy(tensor.detach())
    return Snapshot(
        dtype=tensor.dtype,
        shape=tuple(tensor.shape),
        data=data,
        scale=scale,
        zero_point=zero_point,
        memory=memory_layout(tensor),
        dense=memory_layout(tensor) == "channels_last" or tensor.is_contiguous(),
    )


def _copy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().clone(memory_format=torch.contiguous_format).numpy()
