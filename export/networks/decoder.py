"""An untrained network of operators that make images larger and of those that move codes, on activations of 8 bits.

It computes nothing useful. It is there so that transposed convolutions, paddings, nearest neighbours and shuffles occur in
a recording.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, MinMaxObserver, QConfig, QConfigMapping, QuantStub
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.nn import functional as F

from qexact_export import export
from quantizing import quantize

SEED = 1
SAMPLES = 4
FULL = 1

# PyTorch has transposed convolutions with one weight scale only.
_QCONFIG = QConfig(
    activation=MinMaxObserver.with_args(dtype=torch.quint8, quant_min=0, quant_max=255),
    weight=MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric),
)


class Decoder(nn.Module):
    """An image of 3 × 5 × 6."""

    def __init__(self, stubs: bool, engine: str) -> None:
        super().__init__()
        self.quant = QuantStub() if stubs else nn.Identity()
        self.dequant = DeQuantStub() if stubs else nn.Identity()
        self.encode = nn.Conv2d(3, 12, 3, padding=1)
        self.relu = nn.ReLU()
        self.shuffle = nn.ChannelShuffle(3)
        self.zeros = nn.ZeroPad2d((1, 0, 2, 1))
        self.reflect = nn.ReflectionPad2d((2, 1, 0, 3))
        self.larger = nn.Upsample(scale_factor=2, mode="nearest")
        self.grow = nn.ConvTranspose2d(12, 9, 3, stride=2, padding=1, output_padding=1)
        self.grouped = nn.ConvTranspose2d(9, 6, (4, 2), stride=(2, 3), groups=3, dilation=(1, 2))
        self.sparse = nn.ConvTranspose2d(6, 5, 1, stride=2, bias=False)
        self.rows = nn.ConvTranspose1d(12, 7, 5, stride=3, padding=2)
        # QNNPACK's three-dimensional weights cannot be unpacked.
        self.volume = nn.ConvTranspose3d(6, 4, (2, 3, 2), stride=(1, 2, 2)) if engine != "qnnpack" else nn.Identity()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.relu(self.encode(self.quant(x)))
        first, second = self.shuffle(x).chunk(2, 1)
        flat = x.flatten(2)
        rows = self.rows(flat)
        volume = self.volume(second.unsqueeze(2))
        resized = F.interpolate(volume, scale_factor=(2.0, 1.5, 0.7), mode="nearest")
        y = self.grouped(self.grow(self.zeros(x)))
        y = F.interpolate(self.reflect(y), size=(9, 31), mode="nearest")
        sparse = self.sparse(self.larger(F.pad(first, (0, 1, 0, 0), value=0.75)))
        return tuple(self.dequant(result) for result in (rows, resized, y, sparse, F.pad(flat, (2, 4), mode="reflect")))


def record(path: Path, engine: str, fx: bool = False) -> dict:
    torch.backends.quantized.engine = engine
    torch.manual_seed(SEED)
    model = Decoder(stubs=not fx, engine=engine)
    if fx:
        mapping = QConfigMapping().set_global(_QCONFIG)
        prepared = prepare_fx(model.eval(), mapping, (_inputs(1),))
        prepared(_inputs(64))
        model = convert_fx(prepared)
    else:
        model = quantize(model, _QCONFIG, [(_inputs(64),)])
    return export(model, _inputs(SAMPLES), path, full=FULL, annotations={"note": __doc__.split("\n")[0], "seed": SEED})


def _inputs(samples: int) -> torch.Tensor:
    return torch.rand(samples, 3, 5, 6) * 4 - 2
