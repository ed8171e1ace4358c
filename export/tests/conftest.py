"""Small models for the tests, converted by PyTorch's eager-mode quantization."""

import warnings

import pytest
import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub, convert, default_qconfig, get_default_qconfig, prepare

warnings.filterwarnings("ignore", module="torch.ao.quantization")


@pytest.fixture(autouse=True)
def fbgemm():
    """Every test starts with the engine that can be exported, and the same random numbers."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    torch.manual_seed(0)
    yield
    torch.backends.quantized.engine = before


class Wrapped(nn.Module):
    """Quantizes its input, applies a body, and dequantizes the result."""

    def __init__(self, body):
        super().__init__()
        self.quant = QuantStub()
        self.body = body
        self.dequant = DeQuantStub()

    def forward(self, x):
        return self.dequant(self.body(self.quant(x)))


class Function(nn.Module):
    """A module that applies a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def quantized(model, *example, per_channel=False):
    """Calibrate the model on the example and convert it."""
    model.eval()
    model.qconfig = get_default_qconfig("fbgemm") if per_channel else default_qconfig
    prepare(model, inplace=True)
    model(*example)
    return convert(model, inplace=True)
