"""Short, repeatable training, and the measuring of accuracy."""

from __future__ import annotations

from typing import Callable

import torch
from torch import nn
from torch.nn import functional as F

from digits import Digits

Prepare = Callable[[torch.Tensor], torch.Tensor]
"""From digits of 1 × 28 × 28 with pixels from 0 to 1 to what a network takes."""


def train(
    model: nn.Module,
    digits: Digits,
    prepare: Prepare,
    *,
    epochs: int,
    seed: int,
    rate: float = 1e-3,
    batch: int = 64,
) -> None:
    """Train with Adam. The losses of several outputs are added."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(epochs):
        for chosen in torch.randperm(len(digits.images)).split(batch):
            optimizer.zero_grad()
            outputs = _as_tuple(model(prepare(digits.images[chosen])))
            sum(F.cross_entropy(output, digits.labels[chosen]) for output in outputs).backward()
            optimizer.step()


@torch.no_grad()
def scores(model: nn.Module, digits: Digits, prepare: Prepare) -> list[torch.Tensor]:
    """The class scores of all digits, a tensor for every output of the model."""
    batches = [_as_tuple(model(prepare(images))) for images in digits.images.split(250)]
    return [torch.cat(parts) for parts in zip(*batches)]


def accuracy(model: nn.Module, digits: Digits, prepare: Prepare) -> list[float]:
    """The fraction of digits classified correctly, for every output of the model."""
    return [(output.argmax(1) == digits.labels).float().mean().item() for output in scores(model, digits, prepare)]


def _as_tuple(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
