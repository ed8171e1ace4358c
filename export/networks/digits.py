"""The handwritten digits that train, calibrate and measure the networks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

_FILE = Path(__file__).parent / "mnist10k.npz"
_TRAINING = 8000


class Digits(NamedTuple):
    """Images ``[N, 1, 28, 28]`` with pixels from 0 to 1, and the digit each of them shows."""

    images: torch.Tensor
    labels: torch.Tensor


def load() -> tuple[Digits, Digits]:
    """The digits to train with, and those to measure with."""
    with np.load(_FILE) as file:
        images = torch.from_numpy(file["x"].astype(np.float32) / 255).unsqueeze(1)
        labels = torch.from_numpy(file["y"].astype(np.int64))
    return (
        Digits(images[:_TRAINING], labels[:_TRAINING]),
        Digits(images[_TRAINING:], labels[_TRAINING:]),
    )
