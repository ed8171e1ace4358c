"""Record a float network and what PyTorch makes of it: python record_float.py

Writes fixtures/quantize/float.safetensors and, quantized by PyTorch per tensor and per channel,
pytorch_per_tensor.safetensors and pytorch_per_channel.safetensors.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.ao.quantization import (
    DeQuantStub,
    MinMaxObserver,
    PerChannelMinMaxObserver,
    QConfig,
    QuantStub,
    convert,
    fuse_modules,
    prepare,
)

_HERE = Path(__file__).resolve().parent
_FOLDER = _HERE.parents[1] / "fixtures/quantize"
sys.path.insert(0, str(_HERE.parent))  # qexact_export, whether or not it is installed

from qexact_export import export

SAMPLES = 6


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.conv1 = nn.Conv2d(3, 10, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(10)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(10, 6, (3, 2), stride=(2, 1), dilation=(1, 2), groups=2)
        self.pool2 = nn.AvgPool2d(2, stride=1, padding=1)
        self.relu2 = nn.ReLU()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(90, 12)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(12, 5, bias=False)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(self.relu1(self.bn1(self.conv1(self.quant(x)))))
        x = self.flatten(self.relu2(self.pool2(self.conv2(x))))
        return self.dequant(self.fc2(self.relu3(self.fc1(x))))


def nodes() -> list[dict]:
    """The network in words of FLOAT.md."""
    pool = dict(ceil_mode=False)
    conv1 = dict(stride=[1, 1], padding=[[1, 1], [1, 1]], dilation=[1, 1], groups=1)
    conv2 = dict(stride=[2, 1], padding=[[0, 0], [0, 0]], dilation=[1, 2], groups=2)
    pool1 = dict(kernel=[2, 2], stride=[2, 2], padding=[0, 0], dilation=[1, 1], **pool)
    pool2 = dict(kernel=[2, 2], stride=[1, 1], padding=[1, 1], count_include_pad=True, divisor_override=None, **pool)
    listed = [
        ("conv1", "conv2d", conv1),
        ("bn1", "batch_norm2d", {"eps": 1e-5}),
        ("relu1", "relu", {}),
        ("pool1", "max_pool2d", pool1),
        ("conv2", "conv2d", conv2),
        ("pool2", "avg_pool2d", pool2),
        ("relu2", "relu", {}),
        ("flatten", "flatten", {}),
        ("fc1", "linear", {}),
        ("relu3", "relu", {}),
        ("fc2", "linear", {}),
    ]
    inputs = ["x"] + [name for name, _, _ in listed]
    return [dict(name=n, op=op, input=i, attributes=a) for (n, op, a), i in zip(listed, inputs)]


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.backends.quantized.engine = "fbgemm"
    torch.manual_seed(1)
    model = Network().eval()
    for parameter in (model.bn1.weight, model.bn1.bias, model.bn1.running_mean):
        parameter.copy_(torch.randn(10))
    model.bn1.running_var.copy_(torch.rand(10) + 0.1)
    samples = torch.randn(SAMPLES, 3, 12, 13)
    activation = MinMaxObserver.with_args(dtype=torch.quint8)
    per_tensor = MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    per_channel = PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
    ranges = {}
    for name, weight in (("per_tensor", per_tensor), ("per_channel", per_channel)):
        fused = fuse_modules(copy.deepcopy(model), [["conv1", "bn1", "relu1"], ["fc1", "relu3"]])
        fused.qconfig = QConfig(activation=activation, weight=weight)
        prepare(fused, inplace=True)
        fused(samples)
        observed = {"x": fused.quant, "relu1": fused.conv1, "conv2": fused.conv2, "relu3": fused.fc1, "fc2": fused.fc2}
        for value, module in observed.items():
            observer = module.activation_post_process
            ranges[value] = [observer.min_val.item(), observer.max_val.item()]
        export(convert(fused), samples, _FOLDER / f"pytorch_{name}.safetensors", full=SAMPLES)
    document = {
        "format": 1,
        "input": {"name": "x", "shape": [3, 12, 13]},
        "nodes": nodes(),
        "outputs": ["fc2"],
        "ranges": ranges,
    }
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if "num_batches" not in name}
    save_file({"samples": samples, **tensors}, _FOLDER / "float.safetensors", {"qexact_float": json.dumps(document)})
    for path in sorted(_FOLDER.glob("*.safetensors")):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
