"""The float networks, ready to be quantized: each begins with a QuantStub and ends with a DeQuantStub."""

from __future__ import annotations

import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub


class Mlp(nn.Module):
    """784-512-10 on flat digits."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.fc1 = nn.Linear(784, 512)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(512, 10)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.fc1(self.quant(x)))
        return self.dequant(self.fc2(x))


class Simple(nn.Module):
    """784-100-100-10 on flat, normalised digits."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.fc1 = nn.Linear(784, 100)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(100, 100)
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(100, 10)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.fc1(self.quant(x)))
        x = self.relu2(self.fc2(x))
        return self.dequant(self.fc3(x))


class Cnn(nn.Module):
    """Two convolutions and two fully connected layers, on digits of 1 × 28 × 28."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(64 * 14 * 14, 128)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(128, 10)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.conv1(self.quant(x)))
        x = self.pool(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(self.flatten(x)))
        return self.dequant(self.fc2(x))


class CnnBn(nn.Module):
    """Three convolutions with batch normalization, on images of 3 × 32 × 32."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(128)
        self.relu3 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d((8, 8))
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(128 * 8 * 8, 10)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(self.relu1(self.bn1(self.conv1(self.quant(x)))))
        x = self.pool2(self.relu2(self.bn2(self.conv2(x))))
        x = self.relu3(self.bn3(self.conv3(x)))
        return self.dequant(self.fc(self.flatten(self.avgpool(x))))


class EarlyExit(nn.Module):
    """A CNN with two classifiers: a cheap one after the first stage and one at the end.

    Which of them to believe is decided outside the network, from the first one's scores.
    """

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(4)
        self.early_fc = nn.Linear(8 * 7 * 7, 10)
        self.early_dequant = DeQuantStub()
        self.conv2 = nn.Conv2d(8, 32, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.final_fc = nn.Linear(32 * 7 * 7, 10)
        self.final_dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        stage1 = self.pool1(self.relu1(self.conv1(self.quant(x))))
        early = self.early_dequant(self.early_fc(stage1.flatten(1)))
        stage2 = self.relu2(self.conv2(stage1))
        final = self.final_dequant(self.final_fc(stage2.flatten(1)))
        return early, final


class _Block(nn.Module):
    """Two convolutions and a skip connection, which is a convolution of its own where the shape changes."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if channels != outputs or stride != 1:
            convolution = nn.Conv2d(channels, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
        self.relu2 = nn.ReLU()
        self.skip = nn.quantized.FloatFunctional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.skip.add_relu(x if self.downsample is None else self.downsample(x), y)


class _PlainBlock(_Block):
    """The same without modules that only eager mode needs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + (x if self.downsample is None else self.downsample(x)))


class Residual(nn.Module):
    """A small ResNet on digits of 1 × 28 × 28."""

    BLOCK = _Block

    FUSE = [
        ["conv1", "bn1", "relu1"],
        *([f"block{i}.conv1", f"block{i}.bn1", f"block{i}.relu1"] for i in (1, 2)),
        *([f"block{i}.conv2", f"block{i}.bn2"] for i in (1, 2)),
        ["block2.downsample.0", "block2.downsample.1"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.conv1 = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu1 = nn.ReLU()
        self.block1 = self.BLOCK(8, 8, 1)
        self.block2 = self.BLOCK(8, 16, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 10)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.bn1(self.conv1(self.quant(x))))
        x = self.avgpool(self.block2(self.block1(x)))
        return self.dequant(self.fc(x.flatten(1)))


class PlainResidual(Residual):
    """The same for graph mode, which finds out by itself where to quantize."""

    BLOCK = _PlainBlock

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.fc(self.avgpool(self.block2(self.block1(x))).flatten(1))


class MaxResidual(PlainResidual):
    """With the largest number of each channel instead of the average, whose sum in float32 depends on its order."""

    def __init__(self) -> None:
        super().__init__()
        self.avgpool = nn.MaxPool2d(7)


def _conv_bn(channels: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class _Inverted(nn.Module):
    """Expand, convolve each channel alone, project; and a skip connection."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = _conv_bn(channels, hidden, 1)
        self.relu1 = nn.ReLU6()
        self.depthwise = _conv_bn(hidden, hidden, 3, groups=hidden)
        self.relu2 = nn.ReLU6()
        self.project = _conv_bn(hidden, channels, 1)
        self.skip = nn.quantized.FloatFunctional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu1(self.expand(x))
        y = self.project(self.relu2(self.depthwise(y)))
        return self.skip.add(x, y)


class Inverted(nn.Module):
    """A small MobileNet with ReLU6 and squeeze-and-excitation, on digits of 1 × 28 × 28."""

    FUSE = [
        [f"{name}.0", f"{name}.1"]
        for name in (
            "conv1",
            *(f"block{i}.{part}" for i in (1, 2) for part in ("expand", "depthwise", "project")),
            "head",
        )
    ]

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.conv1 = _conv_bn(1, 8, 3, stride=2)
        self.act1 = nn.Hardswish()
        self.block1 = _Inverted(8, 16)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.gate = nn.Hardsigmoid()
        self.excite = nn.quantized.FloatFunctional()
        self.block2 = _Inverted(8, 16)
        self.head = _conv_bn(8, 16, 3, stride=2)
        self.act2 = nn.LeakyReLU(0.1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 10)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block1(self.act1(self.conv1(self.quant(x))))
        x = self.excite.mul(x, self.gate(self.squeeze(self.pool(x))))
        x = self.act2(self.head(self.block2(x)))
        return self.dequant(self.fc(self.avgpool(x).flatten(1)))
