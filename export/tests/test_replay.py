"""A linear layer computed from the file alone, in a few lines of numpy, gives the recorded codes."""

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Wrapped, quantized
from files import by_name, read
from qexact_export import export


@pytest.mark.parametrize("per_channel", [False, True])
def test_linear(tmp_path, per_channel):
    example = torch.randn(64, 40)
    model = quantized(Wrapped(nn.Linear(40, 30)), example, per_channel=per_channel)
    # Activations of 7 bits: no CPU's kernels saturate on them.
    export(model, example, tmp_path / "net.safetensors", full=64)
    document, tensors = read(tmp_path / "net.safetensors")
    values, node = by_name(document["values"]), by_name(document["nodes"])["body"]
    assert tensors["record.quant"].max() <= 127

    source, result = values["quant"], values["body"]
    x = tensors["record.quant"].astype(np.int64) - source["zero_point"]
    w = tensors["body.weight"].astype(np.int64) - tensors["body.weight_zero_point"].reshape(-1, 1)
    sums = x @ w.T

    scale = np.float32(source["scale"]) * tensors["body.weight_scale"].astype(np.float32)
    multiplier = scale / np.float32(result["scale"])
    bias = tensors["body.bias"]
    if node["rule"]["bias"] == "addend":
        shifted = sums.astype(np.float32) + bias / scale
    else:
        assert node["rule"]["bias"] == "fused"
        # A fused multiply-add: exact in float64 for numbers this small, then rounded once.
        reciprocal = (1 / scale.astype(np.float64)).astype(np.float32)
        shifted = (sums + bias.astype(np.float64) * reciprocal).astype(np.float32)
    codes = np.rint(shifted * multiplier).astype(np.int64) + result["zero_point"]
    assert np.array_equal(np.clip(codes, 0, 255), tensors["record.body"])
