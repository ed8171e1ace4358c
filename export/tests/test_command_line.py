"""python -m qexact_export, as a program of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from files import check_structure, read

_PACKAGE = Path(__file__).resolve().parents[1]

_MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(torch.quantize_per_tensor(x, 0.1, 3, torch.quint8)).dequantize()

torch.backends.quantized.engine = "fbgemm"

def good():
    return Net(torch.relu).eval(), torch.eye(3), {"labels": [0, 1, 2], "full": 1}

def refused():
    return Net(lambda x: x.flip(1)).eval(), torch.eye(3)

def raises():
    raise KeyError("weights")

def returns_nothing():
    pass

def unknown_option():
    return Net(torch.relu).eval(), torch.eye(3), {"label": []}
"""


def run(folder, target):
    (folder / "models.py").write_text(_MODELS)
    environment = {**os.environ, "PYTHONPATH": str(_PACKAGE), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "qexact_export", target, "net.safetensors"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_good_model(tmp_path):
    result = run(tmp_path, "models:good")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "net.safetensors: 3 nodes, 3 samples, 1 in full, 3 classified correctly\n"
    document, tensors = read(tmp_path / "net.safetensors")
    check_structure(document, tensors)


@pytest.mark.parametrize(
    "target, message",
    [
        ("models:refused", "operator aten.flip: not supported"),
        ("models:raises", "models:raises failed: KeyError: 'weights'"),
        ("models:returns_nothing", "has to return (model, example_inputs)"),
        ("models:unknown_option", "unknown options: label"),
        ("models:missing", "has no function 'missing'"),
        ("absent:good", "cannot import 'absent'"),
        ("models", "not of the form MODULE:FUNCTION"),
    ],
)
def test_errors(tmp_path, target, message):
    result = run(tmp_path, target)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "net.safetensors").exists()
