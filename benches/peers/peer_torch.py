"""PyTorch: quantized::linear_relu and conv2d_relu, u8 by i8 to u8, with the engine that is the second argument."""

import sys

import torch
from protocol import serve

engine = sys.argv[2]
torch.set_num_threads(1)
torch.set_grad_enabled(False)
torch.backends.quantized.engine = engine
# Otherwise TorchScript unrolls the loops below and merges their calls, which are all the same.
torch._C._set_graph_executor_optimize(False)


class Linear(torch.nn.Module):
    def __init__(self, packed):
        super().__init__()
        self.packed = packed

    def forward(self, x: torch.Tensor, n: int):
        y = x
        for _ in range(n):
            y = torch.ops.quantized.linear_relu(x, self.packed, 0.05, 0)
        return y


class Conv(torch.nn.Module):
    def __init__(self, packed):
        super().__init__()
        self.packed = packed

    def forward(self, x: torch.Tensor, n: int):
        y = x
        for _ in range(n):
            y = torch.ops.quantized.conv2d_relu(x, self.packed, 0.05, 0)
        return y


def weights(*extents):
    codes = torch.randint(-127, 128, extents, dtype=torch.float32)
    scales = torch.rand(extents[0], dtype=torch.float64) * 0.01 + 0.001
    reals = codes * scales.float().view(-1, *[1] * (len(extents) - 1))
    zero_points = torch.zeros(extents[0], dtype=torch.int64)
    return torch.quantize_per_channel(reals, scales, zero_points, 0, torch.qint8)


def codes(*extents):
    return torch.quantize_per_tensor(torch.rand(extents) * 2.55, 0.01, 3, torch.quint8)


def build(shape):
    quantized = torch.ops.quantized
    if shape["op"] == "linear":
        packed = quantized.linear_prepack(weights(shape["N"], shape["K"]), torch.rand(shape["N"]))
        layer, x = Linear(packed), codes(shape["M"], shape["K"])
    else:
        outputs, inputs, groups = shape["Cout"], shape["Cin"], shape["groups"]
        weight, pair = weights(outputs, inputs // groups, shape["kh"], shape["kw"]), lambda key: [shape[key]] * 2
        packed = quantized.conv2d_prepack(
            weight, torch.rand(outputs), pair("stride"), pair("pad"), pair("dilation"), groups)
        layer = Conv(packed)
        x = codes(shape["N"], inputs, shape["H"], shape["W"]).contiguous(memory_format=torch.channels_last)
    script = torch.jit.script(layer)
    return (lambda n: script(x, n)), engine


serve(build)
