"""An untrained network of elementwise operators and of operators that move codes, on activations of 8 bits.

It computes nothing useful. It is there so that every function, both layouts of a concatenation and every
move of the format occur in a recording.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, MinMaxObserver, QConfig, QuantStub

from qexact_export import export
from quantizing import quantize

SEED = 1
SAMPLES = 6
FULL = 3

_QCONFIG = QConfig(
    activation=MinMaxObserver.with_args(dtype=torch.quint8, quant_min=0, quant_max=255),
    weight=MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric),
)


class Functions(nn.Module):
    """Two inputs: an image of 4 × 6 × 6 and 5 tokens of 9 features."""

    def __init__(self) -> None:
        super().__init__()
        self.quant_image = QuantStub()
        self.quant_tokens = QuantStub()
        # Behind a convolution images are channels last.
        self.conv = nn.Conv2d(4, 13, 3, padding=1)
        self.functions = nn.ModuleList(
            [
                nn.Hardswish(),
                nn.ELU(0.7),
                nn.LeakyReLU(0.1),
                nn.Sigmoid(),
                nn.Tanh(),
                nn.Hardsigmoid(),
            ]
        )
        self.bounds = nn.ModuleList([nn.ReLU6(), nn.Hardtanh(-0.4, 0.8)])
        names = "cat cat_twice cat_rows add add_relu mul mul_same add_scalar mul_scalar negative".split()
        self.with_codes = nn.ModuleDict({name: nn.quantized.FloatFunctional() for name in names})
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.largest = nn.MaxPool2d(3, stride=1, padding=1)
        self.to_pixel = nn.AdaptiveAvgPool2d(1)
        self.dequant = DeQuantStub()

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        codes = self.with_codes
        image, tokens = self.quant_image(image), self.quant_tokens(tokens)
        x = self.conv(image)
        results = [function(x) for function in self.functions]
        # PyTorch 2.5 confuses the pixels here when the engine is qnnpack and images are channels last.
        contiguous = x.contiguous()
        results += [function(contiguous) for function in self.bounds]
        results.append(torch.clamp(contiguous, -0.3, 0.5))
        results.append(codes["add_scalar"].add_scalar(x, 0.25))
        results.append(codes["mul_scalar"].mul_scalar(x, 1.7))
        results.append(codes["negative"].mul_scalar(x, -0.6))
        joined = codes["cat"].cat([x, results[0], results[3]], 1)
        first, second, third = joined.split([8, 20, 11], 1)
        shuffled = third[:, 1:].reshape(-1, 2, 5, 6, 6).transpose(1, 2).reshape(-1, 10, 6, 6)
        twice = codes["cat_twice"].cat([tokens, tokens.clamp(-1.0, 1.0)], 2)
        a, b = twice.chunk(2, 2)
        rows = codes["cat_rows"].cat([a.contiguous(), b.contiguous()], 1)
        added = codes["add"].add(x, self.largest(x))
        rectified = codes["add_relu"].add_relu(added, x)
        gated = codes["mul"].mul(rectified, self.to_pixel(results[5]))
        positive = codes["mul_same"].mul(gated, x)
        results += [first, second, shuffled, rows.permute(0, 2, 1), self.pool(positive), positive[:, :, ::2, 1:5]]
        return tuple(self.dequant(result) for result in results)


def record(path: Path, engine: str) -> dict:
    torch.backends.quantized.engine = engine
    torch.manual_seed(SEED)
    model = Functions()
    model = quantize(model, _QCONFIG, [_inputs(64)])
    _make_ties(model)
    return export(model, _inputs(SAMPLES), path, full=FULL, annotations={"note": __doc__.split("\n")[0], "seed": SEED})


def _make_ties(model: Functions) -> None:
    """Output scales of twice the step between sums and products: half of all results lie between two codes."""
    codes, scale = model.with_codes, model.conv.scale
    codes["add"].scale, codes["add"].zero_point = 2 * scale, 63
    codes["cat"].scale, codes["cat"].zero_point = 2 * scale, 63
    codes["mul_same"].scale, codes["mul_same"].zero_point = 2 * codes["mul"].scale * scale, 127


def _inputs(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(samples, 4, 6, 6) * 6 - 3, torch.rand(samples, 5, 9) * 4 - 2
