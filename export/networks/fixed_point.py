"""A small network on digits whose scales are powers of two, trained with Brevitas (`pip install brevitas==0.13.4`)."""

from __future__ import annotations

import brevitas.nn as qnn
import torch
from brevitas.quant import Int16Bias
from brevitas.quant.fixed_point import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerChannelFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
)
from torch import nn


class FixedPoint(nn.Module):
    """Two convolutions and a classifier, with biases of 16 bits; ``weights`` and ``activations`` are bit widths."""

    def __init__(self, weights: tuple[int, int, int], activations: tuple[int, int, int], per_channel: bool) -> None:
        super().__init__()
        weight = Int8WeightPerChannelFixedPoint if per_channel else Int8WeightPerTensorFixedPoint
        layer = {"bias": True, "weight_quant": weight, "bias_quant": Int16Bias, "return_quant_tensor": True}
        relu = {"act_quant": Uint8ActPerTensorFixedPoint, "return_quant_tensor": True}
        self.quant = qnn.QuantIdentity(
            act_quant=Int8ActPerTensorFixedPoint, bit_width=activations[0], return_quant_tensor=True
        )
        self.conv1 = qnn.QuantConv2d(1, 8, 3, padding=1, weight_bit_width=weights[0], **layer)
        self.relu1 = qnn.QuantReLU(bit_width=activations[1], **relu)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = qnn.QuantConv2d(8, 16, 3, stride=2, padding=1, weight_bit_width=weights[1], **layer)
        self.relu2 = qnn.QuantReLU(bit_width=activations[2], **relu)
        self.flatten = nn.Flatten()
        self.fc = qnn.QuantLinear(
            16 * 7 * 7, 10, weight_bit_width=weights[2], **{**layer, "return_quant_tensor": False}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(self.relu1(self.conv1(self.quant(x))))
        return self.fc(self.flatten(self.relu2(self.conv2(x))))
