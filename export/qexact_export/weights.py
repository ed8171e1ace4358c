"""Weights and biases, as the runtime unpacks them."""

from __future__ import annotations

import numpy as np
import torch

from .errors import Unsupported

_PER_TENSOR = (torch.per_tensor_affine, torch.per_tensor_symmetric)
_PER_CHANNEL = (torch.per_channel_affine, torch.per_channel_symmetric)


def unpack(packed: torch.ScriptObject) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a linear or convolution operator."""
    try:
        return packed.unpack()
    except RuntimeError as error:
        raise Unsupported(f"PyTorch cannot unpack its weights: {str(error).splitlines()[0]}") from error


def weight_parameters(weight: torch.Tensor, bias: torch.Tensor | None) -> dict[str, np.ndarray]:
    """The tensors of a linear or convolution node, with scales exactly as PyTorch holds them."""
    if weight.dtype != torch.qint8:
        raise Unsupported(f"its weights are {weight.dtype}; only qint8 can be exported")
    if weight.qscheme() in _PER_TENSOR:
        scale = np.array([weight.q_scale()], dtype=np.float64)
        zero_point = np.array([weight.q_zero_point()], dtype=np.int32)
    elif weight.qscheme() in _PER_CHANNEL and weight.q_per_channel_axis() == 0:
        scale = weight.q_per_channel_scales().numpy().astype(np.float64)
        zero_point = weight.q_per_channel_zero_points().numpy().astype(np.int32)
    else:
        raise Unsupported(f"its weights are quantized by {weight.qscheme()} along another axis than 0")
    if not all(valid_scale(value) for value in scale.tolist()):
        raise Unsupported("a scale of its weights is not a positive finite float32 number")
    parameters = {
        "weight": weight.int_repr().contiguous().numpy().copy(),
        "weight_scale": scale,
        "weight_zero_point": zero_point,
    }
    if bias is not None:
        parameters["bias"] = bias.detach().contiguous().numpy().copy()
    return parameters


def is_per_tensor(weight: torch.Tensor) -> bool:
    """Whether there is one scale for all channels."""
    return weight.qscheme() in _PER_TENSOR


def valid_scale(scale: float) -> bool:
    """Whether a scale is finite and positive, as it is and after rounding to float32."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(scale))
    return 0 < scale < float("inf") and 0 < rounded < float("inf")
