"""An untrained network of unusual operators, quantized to the full range of 8 bits.

It computes nothing useful. It is there so that every operator of the format, and every attribute
that changes what an operator does, occurs in a recording: in particular the depthwise convolutions
for which fbgemm has a kernel of its own, whose intermediate sums saturate.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, MinMaxObserver, PerChannelMinMaxObserver, QConfig, QuantStub

from qexact_export import export
from quantizing import quantize

SEED = 1
SAMPLES = 6
FULL = 3

_ACTIVATION = MinMaxObserver.with_args(dtype=torch.quint8, quant_min=0, quant_max=255)
_PER_CHANNEL = QConfig(
    activation=_ACTIVATION,
    weight=PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric),
)
# Affine weights have zero points other than 0.
_PER_TENSOR_AFFINE = QConfig(
    activation=_ACTIVATION,
    weight=MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_affine),
)
_PER_CHANNEL_AFFINE = QConfig(
    activation=_ACTIVATION,
    weight=PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_affine),
)


class Odd(nn.Module):
    """Two inputs, an image of 8 × 12 × 12 and 5 tokens of 16 features, and many outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.quant_image = QuantStub()
        # fbgemm's depthwise kernels: as many groups as channels, a multiple of 8 of them.
        self.depthwise3 = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.depthwise3_double = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=8, bias=False)
        self.depthwise5 = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=4)
        self.dilated = nn.Sequential(nn.Conv2d(16, 16, 3, padding=2, dilation=2, bias=False), nn.ReLU())
        self.max_pool = nn.MaxPool2d(3, stride=(2, 1), padding=1, dilation=(1, 2), ceil_mode=True)
        self.asymmetric = nn.Conv2d(16, 8, (1, 5), stride=(1, 2), padding=(0, 2))
        self.avg_pool = nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)
        self.adaptive_pool = nn.AdaptiveAvgPool2d((2, 3))
        self.fc = nn.Linear(8 * 2 * 3, 5)
        # The quantized image is contiguous in memory, and PyTorch pools it by other formulas.
        self.avg_pool_contiguous = nn.AvgPool2d((2, 3), padding=(1, 1), divisor_override=5)
        self.adaptive_pool_contiguous = nn.AdaptiveAvgPool2d((5, 7))
        self.conv3d = nn.Conv3d(2, 4, (2, 3, 3), stride=(1, 2, 2), padding=(1, 0, 1))
        self.quant_tokens = QuantStub()
        self.token_fc = nn.Linear(16, 12)
        self.conv1d = nn.Conv1d(5, 6, 3, padding=1, dilation=1, stride=2)
        self.dequant = DeQuantStub()

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch = image.shape[0]
        image = self.quant_image(image)
        x = self.depthwise5(self.depthwise3(image))
        x = self.max_pool(self.dilated(self.grouped(x)))
        x = self.adaptive_pool(self.avg_pool(self.asymmetric(x)))
        scores = self.dequant(self.fc(x.flatten(1)))
        volume = self.conv3d(image.view(batch, 2, 4, 12, 12))
        pooled = self.adaptive_pool_contiguous(self.avg_pool_contiguous(image))
        signed = torch.quantize_per_tensor(tokens, 0.02, -7, torch.qint8)
        tokens = torch.relu(self.token_fc(self.quant_tokens(tokens)))
        sequence = self.conv1d(tokens)
        return (
            scores,
            self.depthwise3_double(image),
            volume.reshape(batch, -1),
            pooled,
            sequence.dequantize(),
            torch.relu(signed).dequantize(),
        )


def build() -> nn.Module:
    torch.manual_seed(SEED)
    model = Odd()
    model.depthwise3_double.qconfig = _PER_TENSOR_AFFINE
    model.grouped.qconfig = _PER_TENSOR_AFFINE
    model.token_fc.qconfig = _PER_TENSOR_AFFINE
    model.conv3d.qconfig = _PER_TENSOR_AFFINE
    model.asymmetric.qconfig = _PER_CHANNEL_AFFINE
    return quantize(model, _PER_CHANNEL, [_inputs(64)], [["dilated.0", "dilated.1"]])


def record(path: Path) -> dict:
    """Write the recording. Some of the tokens are beyond what codes can represent."""
    model = build()
    image, tokens = _inputs(SAMPLES)
    tokens[1, 0, :4] = torch.tensor([1e30, -1e30, float("inf"), -float("inf")])
    # Ties: halfway between two codes of the signed tokens.
    tokens[2, 0] = (torch.arange(16) + 0.5) * 0.02
    note = "random weights and inputs; some accumulators of the depthwise convolutions saturate"
    return export(model, (image, tokens), path, full=FULL, annotations={"note": note, "seed": SEED})


def _inputs(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Uniform numbers, so that all codes are about equally frequent."""
    image = torch.rand(samples, 8, 12, 12) * 2 - 1
    tokens = torch.rand(samples, 5, 16) * 6 - 3
    return image, tokens
