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
