"""Brevitas models whose scales are powers of two."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("brevitas")

import brevitas.nn as qnn
from brevitas.quant import Int8WeightPerTensorFloat, Int16Bias, Uint8ActPerTensorFloat
from brevitas.quant.fixed_point import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerChannelFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
)

from files import by_name, check_structure, read
from qexact_export import ExportError, export


pytestmark = pytest.mark.filterwarnings("ignore")


def network(weight=Int8WeightPerChannelFixedPoint, act=Uint8ActPerTensorFixedPoint, bits=4, **layer):
    layer = {"bias": True, "bias_quant": Int16Bias, "return_quant_tensor": True, **layer}
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, return_quant_tensor=True),
        qnn.QuantConv2d(2, 4, 3, padding=1, weight_quant=weight, weight_bit_width=bits, **layer),
        qnn.QuantReLU(act_quant=act, bit_width=bits, return_quant_tensor=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(16, 3, weight_quant=weight, weight_bit_width=bits, **{**layer, "return_quant_tensor": False}),
    )


def calibrated(model, example):
    model.train()
    model(example)
    return model.eval()


def refused(tmp_path, model, example):
    with pytest.raises(ExportError) as caught:
        export(model, example, tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []
    return caught.value.reasons


@pytest.mark.parametrize("weight", [Int8WeightPerChannelFixedPoint, Int8WeightPerTensorFixedPoint])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_and_rules(tmp_path, weight, bits):
    example = torch.randn(6, 2, 4, 4)
    model = calibrated(network(weight, bits=bits), example)
    export(model, example, tmp_path / "net.safetensors", full=6)
    document, tensors = read(tmp_path / "net.safetensors")
    check_structure(document, tensors)
    nodes, values = by_name(document["nodes"]), by_name(document["values"])
    assert [node["op"] for node in document["nodes"]] == ["quantize", "conv2d", "max_pool2d", "flatten", "linear"]
    assert nodes["1"]["rule"] == {"kind": "pow2", "rounding": "even"}
    assert nodes["1"]["attributes"]["weight_bits"] == bits
    assert nodes["1"]["attributes"]["relu"]
    assert values["1"].get("bits", 8) == bits
    assert tensors["1.weight"].dtype == np.int8 and abs(tensors["1.weight"].astype(int)).max() < 2 ** (bits - 1)
    assert tensors["1.bias"].dtype == np.int32
    assert nodes["5"]["rule"]["kind"] == "f32_real"
    assert np.array_equal(tensors["record.5"], model(example).detach().numpy())
    assert document["producer"]["framework"] == "brevitas"


def test_what_is_not_exact_is_refused(tmp_path):
    example = torch.randn(6, 2, 4, 4)
    floats = calibrated(network(Int8WeightPerTensorFloat), example)
    reasons = refused(tmp_path, floats, example)
    assert reasons[0].startswith("module '1', operator QuantConv2d: the scale of its weights is ")
    assert "not a power of two: Brevitas computes in float32" in reasons[0]
    activations = calibrated(network(act=Uint8ActPerTensorFloat), example)
    assert "module '2', operator QuantReLU: the scale of its results is" in refused(tmp_path, activations, example)[0]
    bias = calibrated(network(bias_quant=None), example)
    assert refused(tmp_path, bias, example)[0] == "module '1', operator QuantConv2d: its bias is not quantized"


def test_what_stands_between_layers_is_refused(tmp_path):
    example = torch.randn(6, 2, 4, 4)
    model = network()
    model[3] = nn.AvgPool2d(2)
    (reason, *_) = refused(tmp_path, calibrated(model, example), example)
    assert reason.startswith(
        "module '5', operator QuantLinear: its input is the result of an operator outside of layers"
    )
