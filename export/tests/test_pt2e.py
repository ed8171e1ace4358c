"""Models quantized by PyTorch 2 export for x86, lowered to the operators that oneDNN runs."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._export import capture_pre_autograd_graph
from torch.ao.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch.ao.quantization.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

from conftest import Function
from files import by_name, check_structure, read
from qexact_export import ExportError, export


def converted(model, example):
    with torch.no_grad():
        graph = capture_pre_autograd_graph(model.eval(), (example,))
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(graph, quantizer)
    prepared(example)
    return convert_pt2e(prepared)


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.bounded = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU6())
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x) + x)
        return self.fc(self.pool(self.bounded(x)).flatten(1))


def test_layers_with_what_is_fused_into_them(tmp_path):
    torch.manual_seed(0)
    example = torch.randn(5, 2, 4, 4)
    model = converted(Skip(), example)
    export(model, example, tmp_path / "net.safetensors", full=5)
    document, tensors = read(tmp_path / "net.safetensors")
    check_structure(document, tensors)
    nodes = by_name(document["nodes"])
    ops = [node["op"] for node in document["nodes"]]
    assert ops == ["quantize", "conv2d", "conv2d", "conv2d", "max_pool2d", "flatten", "linear"]
    rule = {"kind": "f32_real", "scales": "direct", "weight": "per_channel"}
    assert nodes["conv2d"]["rule"] == rule and nodes["conv2d"]["attributes"]["relu"]
    assert nodes["conv2d_1"]["inputs"] == ["conv2d", "conv2d"]
    assert nodes["conv2d_2"]["rule"] == {**rule, "clip": [0.0, 6.0]}
    assert nodes["quantize"]["rule"]["multiplier"] == "f64_reciprocal"
    assert document["numerics"] == "pt2e"
    # The simulation, in float32, is near.
    assert np.allclose(tensors["record.linear"], model(example).detach().numpy(), atol=0.05)


@pytest.mark.parametrize(
    "body, text",
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1)), "aten.adaptive_avg_pool2d: not supported"),
        (nn.Sequential(nn.Conv2d(2, 4, 3), Function(lambda x: torch.sigmoid(x))), "aten.sigmoid: not supported"),
    ],
)
def test_what_computes_on_real_numbers_is_refused(tmp_path, body, text):
    example = torch.randn(5, 2, 4, 4)
    with pytest.raises(ExportError) as caught:
        export(converted(body, example), example, tmp_path / "net.safetensors")
    assert text in caught.value.reasons[0]
    assert list(tmp_path.iterdir()) == []
