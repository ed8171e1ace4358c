"""What cannot be exported is refused with every reason, and nothing is written."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub, default_qconfig, prepare, quantize_dynamic
from torch.nn import functional as F

from conftest import Function, Wrapped, quantized
from qexact_export import ExportError, export
from qexact_export.batch import check_batch
from qexact_export.errors import Reasons
from qexact_export.trace import trace


def reasons_for(tmp_path, model, inputs, **options):
    with pytest.raises(ExportError) as caught:
        export(model, inputs, tmp_path / "net.safetensors", **options)
    assert list(tmp_path.iterdir()) == []
    assert all(reason in str(caught.value) for reason in caught.value.reasons)
    return caught.value.reasons


def refuse_function(tmp_path, function, example=None):
    """Reasons against a function of a quantized value."""
    example = torch.randn(4, 6) if example is None else example
    return reasons_for(tmp_path, quantized(Wrapped(Function(function)), example), example)


def test_all_reasons_at_once_with_module_and_operator(tmp_path):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.PixelUnshuffle(2)
            self.add = nn.quantized.FloatFunctional()

        def forward(self, x):
            return self.add.add(self.down(x), self.down(x))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant = QuantStub()
            self.block = Block()
            self.dequant = DeQuantStub()

        def forward(self, x):
            x = torch.flip(self.block(self.quant(x)), [2])
            return self.dequant(x.mean([2, 3]))

    example = torch.randn(2, 3, 4, 4)
    model = quantized(Model(), example)
    model.train()
    reasons = reasons_for(tmp_path, model, example)
    assert "training mode" in reasons[0]
    assert reasons[1:] == [
        "module 'block.down', operator aten.pixel_unshuffle: not supported",
        "the model itself, operator aten.flip: not supported",
        "the model itself, operator aten.mean: not supported: PyTorch sums dequantized values in an order that "
        "depends on the layout; use adaptive_avg_pool2d to one pixel",
    ]


def test_paddings_and_resizes_that_are_not_in_the_format(tmp_path):
    image = torch.randn(2, 3, 4, 4)
    for function, reason in [
        (lambda x: F.pad(x, (0, -1)), "it has a negative padding; slice what is to be cut off"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 0, 2)), "it pads the batch"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"), "not supported"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "not supported"),
    ]:
        reasons = refuse_function(tmp_path, function, image)
        assert any(reason in text for text in reasons), reasons

    def not_a_number(x):
        return torch.quantize_per_tensor(F.pad(x.dequantize(), (1, 0), value=math.inf), 0.1, 3, torch.quint8)

    assert refuse_function(tmp_path, not_a_number, image) == [
        "module 'body', operator aten.constant_pad_nd: it pads with inf; only finite numbers can be exported"
    ]


@pytest.mark.parametrize("engine", ["onednn", "x86"])
def test_transposed_convolutions_of_onednn(tmp_path, engine):
    torch.backends.quantized.engine = engine
    image = torch.randn(2, 3, 4, 4)
    reasons = reasons_for(tmp_path, quantized(Wrapped(nn.ConvTranspose2d(3, 2, 2, stride=2)), image), image)
    assert "oneDNN mixes up the channels and pixels of its result" in reasons[0]


def test_dilated_maxima_of_qnnpack_that_read_outside_of_their_windows(tmp_path):
    torch.backends.quantized.engine = "qnnpack"
    image = torch.randn(2, 3, 8, 8)
    reasons = reasons_for(tmp_path, quantized(Wrapped(nn.MaxPool2d(3, 1, 1, dilation=2)), image), image)
    assert "engine qnnpack reads pixels outside of dilated windows where there is padding" in reasons[0]


def test_a_float_model_and_an_island_of_float(tmp_path):
    reasons = reasons_for(tmp_path, nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), torch.randn(2, 4))
    assert [reason.split(":")[0] for reason in reasons] == [
        "module '0', operator aten.addmm",
    ]
    assert all("float32" in reason for reason in reasons)

    def island(x):
        return torch.quantize_per_tensor(F.silu(x.dequantize()), 0.1, 3, torch.quint8)

    assert refuse_function(tmp_path, island) == [
        "module 'body', operator aten.silu: not supported: it computes on float32 values"
    ]


def test_dynamic_quantization_of_other_kinds(tmp_path):
    layers = nn.Sequential(nn.Linear(4, 4)).eval()
    model = quantize_dynamic(layers, {nn.Linear}, dtype=torch.float16)
    (reason,) = reasons_for(tmp_path, model, torch.randn(2, 4))
    assert reason.startswith("module '0', operator quantized.linear_dynamic_fp16: not supported")


def test_moves_that_change_the_order(tmp_path):
    for function in (lambda x: x.flip(1), lambda x: x[:, 3], lambda x: x.unsqueeze(1).expand(-1, 3, -1)):
        (reason,) = refuse_function(tmp_path, function)
        assert reason.startswith("module 'body', operator aten.")


ENGINES = ["fbgemm", "x86", "onednn", "qnnpack"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("selected", ENGINES)
def test_selecting_the_engine_too_late(tmp_path, engine, selected):
    if not {engine, selected} <= set(torch.backends.quantized.supported_engines):
        pytest.skip(f"this PyTorch has no {engine} or {selected}")
    layers = {"fbgemm": ["fbgemm", "fbgemm"], "onednn": ["onednn", "onednn"], "qnnpack": ["qnnpack", "qnnpack"]}
    # The engine x86 gives linear layers to fbgemm, and on a CPU without AVX512-VNNI convolutions too.
    vnni = "avx512_vnni" in Path("/proc/cpuinfo").read_text()
    layers["x86"] = ["onednn" if vnni else "fbgemm", "fbgemm"]
    torch.backends.quantized.engine = engine
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    example = torch.randn(2, 3, 4, 4)
    model = quantized(Wrapped(body), example)
    torch.backends.quantized.engine = selected
    # x86 takes convolutions of fbgemm too: it has those with many groups.
    accepted = [{"fbgemm", "onednn"}, {"fbgemm"}] if selected == "x86" else [{selected}, {selected}]
    names = ["module 'body.0', operator quantized.conv2d", "module 'body.2', operator quantized.linear"]
    refused = [name for name, own, taken in zip(names, layers[engine], accepted) if own not in taken]
    if not refused:
        export(model, example, tmp_path / "net.safetensors")
        return
    reasons = reasons_for(tmp_path, model, example)
    assert [reason.split(":")[0] for reason in reasons] == refused
    assert all(f"converted for another engine than {selected}" in reason for reason in reasons)


def test_sums_that_pytorch_computes_in_rows(tmp_path):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.add = nn.quantized.FloatFunctional()

        def forward(self, x):
            x = self.quant(x)
            return self.dequant(self.add.add(*self.operands(x)))

    cases = [
        (lambda x: (x, x[:, :1]), "different shapes"),
        (lambda x: (x[:, :2], x[:, 2:]), "lie in memory differently, or with gaps"),
    ]
    for operands, text in cases:
        model = Rows()
        model.operands = operands
        example = torch.randn(4, 4, 4)
        (reason,) = reasons_for(tmp_path, quantized(model, example), example)
        assert text in reason


def test_a_function_that_confuses_its_pixels(tmp_path):
    """PyTorch 2.5's ReLU6 with engine qnnpack, on images that are channels last."""
    if "qnnpack" not in torch.backends.quantized.supported_engines:
        pytest.skip("this PyTorch has no qnnpack")
    torch.backends.quantized.engine = "qnnpack"
    example = torch.randn(4, 3, 5, 5)
    model = quantized(Wrapped(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6())), example)
    (reason,) = reasons_for(tmp_path, model, example)
    assert reason == "module 'body.1', operator quantized.relu6: its result is not a function of each code alone"


def test_weights_that_cannot_be_unpacked(tmp_path):
    if "qnnpack" not in torch.backends.quantized.supported_engines:
        pytest.skip("this PyTorch has no qnnpack")
    torch.backends.quantized.engine = "qnnpack"
    example = torch.randn(2, 3, 4, 4, 4)
    model = quantized(Wrapped(nn.Conv3d(3, 4, 3)), example)
    reasons = reasons_for(tmp_path, model, example)
    assert any("module 'body', operator quantized.conv3d: PyTorch cannot unpack" in reason for reason in reasons)


@pytest.mark.parametrize(
    "function, operator",
    [
        (lambda x: x.view(4, -1), "aten.view"),
        (lambda x: x.view(2, -1, 6), "aten.view"),
        (lambda x: x.view(4, 6), "aten.view"),
        (lambda x: x.reshape(4, 2, 3), "aten.view"),
        (lambda x: x[:4], "aten.slice"),
        (lambda x: x.view(-1), "aten.view"),
        (lambda x: torch.relu(x) if len(x) == 4 else x, "aten.relu"),
        (lambda x: x.unsqueeze(0), "aten.unsqueeze"),
    ],
)
def test_a_baked_batch_size(tmp_path, function, operator):
    reasons = refuse_function(tmp_path, function)
    assert len(reasons) == 1
    assert "module 'body'" in reasons[0]
    assert operator in reasons[0]


def test_a_baked_batch_size_after_a_convolution(tmp_path):
    """Its result is not contiguous, so reshape() fails before it reaches an operator."""
    body = nn.Sequential(nn.Conv2d(3, 2, 1), Function(lambda x: x.reshape(4, 32)))
    example = torch.randn(4, 3, 4, 4)
    (reason,) = reasons_for(tmp_path, quantized(Wrapped(body), example), example)
    assert "module 'body.1'" in reason
    assert "reshape" in reason
    assert "fails for 8 samples after working for 4" in reason


def test_one_sample_does_not_hide_a_lost_batch_axis(tmp_path):
    (reason,) = refuse_function(tmp_path, lambda x: x.squeeze(), torch.randn(1, 6))
    assert "operator aten.squeeze: the first axis of its result [6] is not the batch of 1" in reason


def test_samples_that_influence_each_other():
    """No operator that can be exported does this; the check stands behind that."""
    model = Function(lambda x: x.relu().cumsum(0)).eval()
    example = torch.rand(3, 2)
    runs = trace(model, (example,)), trace(model, (torch.cat([example, example]),))
    reasons = Reasons()
    check_batch(*runs, 3, set(), reasons)
    with pytest.raises(ExportError, match="aten.cumsum: its result for a sample depends on the other samples"):
        reasons.raise_if_any()


def test_parameters_that_depend_on_the_input(tmp_path):
    class Mixing(nn.Module):
        def forward(self, x):
            return torch.quantize_per_tensor(x, x.abs().max() / 100, torch.tensor(5), torch.quint8)

    reasons = reasons_for(tmp_path, Mixing().eval(), torch.randn(4, 6))
    assert any("aten.quantize_per_tensor: its parameters depend on the input" in reason for reason in reasons)


def test_control_flow_that_depends_on_values(tmp_path):
    def exits_early(x):
        return x if float(x.dequantize()[0, 0]) > 0 else torch.relu(x)

    reasons = refuse_function(tmp_path, exits_early)
    assert any("reads values back into Python" in reason for reason in reasons)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint32), "torch.qint32"),
        (lambda x: torch.quantize_per_channel(x, torch.ones(6), torch.zeros(6), 1, torch.quint8), "per_channel"),
        (lambda x: torch.quantize_per_tensor(x, 0.0, 0, torch.quint8), "the scale 0.0"),
        (lambda x: torch.quantize_per_tensor(x, math.inf, 0, torch.quint8), "the scale inf"),
        (lambda x: torch.quantize_per_tensor(x, math.nan, 0, torch.quint8), "the scale nan"),
        (lambda x: torch.quantize_per_tensor(x, 1e-60, 0, torch.quint8), "the scale 1e-60"),
    ],
)
def test_values_that_the_format_does_not_have(tmp_path, make, text):
    reasons = reasons_for(tmp_path, Function(make).eval(), torch.randn(4, 6))
    assert len(reasons) == 1
    assert "operator aten.quantize_per" in reasons[0]
    assert text in reasons[0]


def test_inputs_of_other_types(tmp_path):
    (reason, *_) = reasons_for(tmp_path, Function(lambda x: x).eval(), torch.zeros(2, 3, dtype=torch.float64))
    assert "torch.float64" in reason


def test_outputs_that_are_not_computed_from_the_inputs(tmp_path):
    def outputs(x):
        return x, torch.zeros(3), 7

    reasons = reasons_for(tmp_path, Function(outputs).eval(), torch.randn(2, 3))
    assert [reason.split(";")[0] for reason in reasons] == ["output 1 is a constant", "output 2 is a int"]


def test_a_value_changed_behind_a_view(tmp_path):
    def changes(x):
        x = x.clone()
        view = x.view(x.shape[0], 2, 3)
        torch.relu_(x)
        return torch.relu(view)

    (reason,) = refuse_function(tmp_path, changes)
    assert "changed in place" in reason


def test_a_model_that_fails(tmp_path):
    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError("no luck")

    model = nn.Sequential(Fails()).eval()
    (reason,) = reasons_for(tmp_path, model, torch.randn(2, 3))
    assert "module '0'" in reason
    assert reason.endswith("the model fails on the example inputs: ValueError: no luck")


def test_wrong_arguments(tmp_path):
    model = Function(lambda x: x).eval()
    example = torch.randn(2, 3)
    cases = [
        ([1, 2], {}, "example_inputs has to be a tensor"),
        ((example, torch.randn(3, 3)), {}, "the same number of samples"),
        (torch.zeros(0, 3), {}, "at least 1"),
        (example, {"full": -1}, "full has to be at least 0"),
        (example, {"labels": [1]}, "one class for each of 2 samples"),
        (example, {"accuracy_output": "x"}, "accuracy_output needs labels"),
        (example, {"annotations": math.nan}, "annotations cannot be written as JSON"),
        (example, {"annotations": {1, 2}}, "annotations cannot be written as JSON"),
    ]
    for inputs, options, text in cases:
        (reason,) = reasons_for(tmp_path, model, inputs, **options)
        assert text in reason


def test_models_of_other_kinds(tmp_path):
    example = torch.randn(2, 3)
    scripted = torch.jit.trace(nn.ReLU().eval(), example)
    assert "TorchScript" in reasons_for(tmp_path, scripted, example)[0]
    assert "not a torch.nn.Module" in reasons_for(tmp_path, torch.relu, example)[0]


def test_a_failure_to_write_leaves_the_old_file(tmp_path, monkeypatch):
    example = torch.randn(2, 3)
    path = tmp_path / "net.safetensors"
    path.write_text("the old file")

    def full_disk(source, target):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        export(quantized(Wrapped(nn.Linear(3, 3)), example), example, path)
    assert path.read_text() == "the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_preparing_without_converting(tmp_path):
    model = Wrapped(nn.Linear(3, 3)).eval()
    model.qconfig = default_qconfig
    prepare(model, inplace=True)
    reasons = reasons_for(tmp_path, model, torch.randn(2, 3))
    assert any("operator aten.addmm" in reason for reason in reasons)
