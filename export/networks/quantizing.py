"""From a float network to the int8 network that PyTorch runs."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn
from torch.ao.quantization import (
    QConfig,
    convert,
    fuse_modules,
    prepare,
)

# These PyTorch APIs announce their successors; this is the release they are used from.
warnings.filterwarnings("ignore", module="torch.ao.quantization")

Groups = list[list[str]]
"""Names of modules to be fused, group by group."""


@torch.no_grad()
def quantize(
    model: nn.Module,
    qconfig: QConfig,
    calibration: list[tuple[torch.Tensor, ...]],
    fuse: Groups | None = None,
) -> nn.Module:
    """Post-training static quantization of a copy of the model. ``calibration`` is a list of arguments."""
    model = copy.deepcopy(model).eval()
    if fuse:
        model = fuse_modules(model, fuse)
    model.qconfig = qconfig
    prepare(model, inplace=True)
    for arguments in calibration:
        model(*arguments)
    return convert(model)
