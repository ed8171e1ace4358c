"""What is in the file: names, shapes, attributes, rules and recorded values."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub, fuse_modules
from torch.nn import functional as F

from conftest import Function, Wrapped, quantized
from files import by_name, check_structure, read
from qexact_export import ExportError, export


def exported(tmp_path, model, inputs, **options):
    """Export, check the structure and what was returned, and give the document and the tensors."""
    path = tmp_path / "net.safetensors"
    returned = export(model, inputs, path, **options)
    document, tensors = read(path)
    assert returned == document
    check_structure(document, tensors)
    return document, tensors


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.BatchNorm2d(4, eps=0.01),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(16, 3, bias=False),
    )


def test_a_network_of_many_layers(tmp_path):
    example = torch.randn(5, 2, 8, 8)
    net = small_cnn()
    for tensor in (net[1].weight.data, net[1].bias.data, net[1].running_mean, net[1].running_var):
        tensor.uniform_(0.5, 1.5)
    model = quantized(Wrapped(net), example, per_channel=True)
    document, tensors = exported(tmp_path, model, example, full=2)

    names = ["quant", "body.0", "body.1", "body.2", "body.3", "body.5", "body.6", "dequant"]
    ops = ["quantize", "conv2d", "batch_norm2d", "relu", "max_pool2d", "flatten", "linear", "dequantize"]
    assert [node["name"] for node in document["nodes"]] == names
    assert [node["op"] for node in document["nodes"]] == ops
    assert [node["inputs"] for node in document["nodes"]] == [[name] for name in ["x", *names[:-1]]]
    assert document["inputs"] == [{"name": "x"}]
    assert document["outputs"] == [{"name": "dequant"}]
    nodes = by_name(document["nodes"])
    assert nodes["body.0"] == {
        "name": "body.0",
        "op": "conv2d",
        "inputs": ["quant"],
        "outputs": ["body.0"],
        "attributes": {
            "stride": [2, 2],
            "padding": [[1, 1], [1, 1]],
            "dilation": [1, 1],
            "groups": 1,
            "relu": False,
        },
        "rule": {"kind": "f32_mul", "multiplier": "quotient", "bias": "addend", "overflow": "convert"},
    }
    assert nodes["body.1"]["rule"] == {"kind": "batch_norm", "fma": True}
    assert nodes["body.1"]["attributes"] == {"eps": 0.01, "relu": False}
    for parameter in ("weight", "bias", "running_mean", "running_var"):
        assert np.array_equal(tensors[f"body.1.{parameter}"], getattr(model.body[1], parameter).detach().numpy())
    assert nodes["body.6"]["rule"]["bias"] == "none"
    values = by_name(document["values"])
    assert values["body.0"]["memory"] == "channels_last"
    assert values["body.5"]["shape"] == [16]
    assert values["x"] == {"name": "x", "dtype": "f32", "shape": [2, 8, 8], "memory": "contiguous"}

    # Recorded values are those of PyTorch: in full, in logical order, and by digest.
    codes = model.body[0](model.quant(example))
    assert codes.int_repr().is_contiguous() is False
    assert values["body.0"]["scale"] == codes.q_scale()
    assert values["body.0"]["zero_point"] == codes.q_zero_point()
    assert np.array_equal(tensors["record.body.0"], codes.int_repr()[:2].numpy())
    last = np.ascontiguousarray(codes.int_repr()[4].numpy()).tobytes()
    assert tensors["digest.body.0"][2].tobytes() == hashlib.sha256(last).digest()
    assert np.array_equal(tensors["record.x"], example.numpy())
    assert np.array_equal(tensors["record.dequant"], model(example)[:2].numpy())
    # The in-place ReLU did not change what was recorded before it.
    assert (tensors["record.body.1"] < tensors["record.body.2"]).any()

    weight, bias = model.body[0]._weight_bias()
    assert np.array_equal(tensors["body.0.weight"], weight.int_repr().numpy())
    assert np.array_equal(tensors["body.0.weight_scale"], weight.q_per_channel_scales().numpy())
    assert np.array_equal(tensors["body.0.bias"], bias.detach().numpy())


def test_fused_relu_and_per_tensor_weights(tmp_path):
    example = torch.randn(3, 6)
    model = Wrapped(nn.Sequential(nn.Linear(6, 4), nn.ReLU()))
    model.eval()
    model.body = fuse_modules(model.body, [["0", "1"]])
    document, tensors = exported(tmp_path, quantized(model, example), example)
    (linear,) = [node for node in document["nodes"] if node["op"] == "linear"]
    assert linear["attributes"] == {"relu": True}
    assert linear["rule"]["bias"] == "fused"
    assert tensors["body.0.weight_scale"].shape == (1,)


def test_scales_and_zero_points_are_those_that_the_runtime_holds(tmp_path):
    weight = torch.quantize_per_tensor(torch.randn(4, 6), 0.1, -3, torch.qint8)
    example = torch.randn(3, 6)
    model = quantized(nn.Sequential(QuantStub(), nn.Linear(6, 4)), example)
    model[1].set_weight_bias(weight, None)
    model[1].scale = 0.3
    document, tensors = exported(tmp_path, model, example)
    # fbgemm rounds the scales of weights to float32 when it packs them, and only those.
    assert tensors["1.weight_scale"].tolist() == [float(np.float32(0.1))]
    assert tensors["1.weight_zero_point"].tolist() == [-3]
    assert np.array_equal(tensors["1.weight"], weight.int_repr().numpy())
    assert by_name(document["values"])["1"]["scale"] == 0.3
    assert by_name(document["nodes"])["1"]["rule"]["bias"] == "none"


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("relu", [False, True])
def test_convolutions_of_one_two_and_three_axes(tmp_path, axes, relu):
    convolution = [nn.Conv1d, nn.Conv2d, nn.Conv3d][axes - 1]
    kernel, stride, padding, dilation = (2, 3, 1)[:axes], (1, 2, 3)[:axes], (1, 0, 2)[:axes], (2, 1, 1)[:axes]
    body = nn.Sequential(convolution(4, 6, kernel, stride, padding, dilation, groups=2), nn.ReLU())
    example = torch.randn(2, 4, *(7, 8, 9)[:axes])
    model = Wrapped(body).eval()
    if relu:
        model.body = fuse_modules(model.body, [["0", "1"]])
    document, tensors = exported(tmp_path, quantized(model, example, per_channel=True), example)
    node = by_name(document["nodes"])["body.0"]
    assert node["op"] == f"conv{axes}d"
    assert node["attributes"] == {
        "stride": list(stride),
        "padding": [[pad, pad] for pad in padding],
        "dilation": list(dilation),
        "groups": 2,
        "relu": relu,
    }
    assert tensors["body.0.weight"].shape == (6, 2, *kernel)
    assert tensors["body.0.weight_scale"].shape == (6,)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_transposed_convolutions(tmp_path, axes):
    layer = getattr(nn, f"ConvTranspose{axes}d")(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    example = torch.randn(2, 4, *[5, 4, 3][:axes])
    document, tensors = exported(tmp_path, quantized(Wrapped(layer), example), example)
    node = by_name(document["nodes"])["body"]
    assert node["op"] == f"conv_transpose{axes}d"
    assert node["attributes"] == {
        "stride": [2] * axes,
        "padding": [[1, 1]] * axes,
        "output_padding": [1] * axes,
        "dilation": [1] * axes,
        "groups": 2,
        "relu": False,
    }
    assert node["rule"] == {"kind": "f32_mul", "multiplier": "quotient", "bias": "fused", "overflow": "convert"}
    assert tensors["body.weight"].shape == (4, 3, *[3] * axes)
    assert by_name(document["values"])["body"]["shape"] == [6, *[2 * extent for extent in [5, 4, 3][:axes]]]


def test_operators_that_choose_elements(tmp_path):
    class Choices(nn.Module):
        def forward(self, x):
            x = F.pad(x, (1, 2, 0, 3))
            x = F.pad(x, (0, 1), value=1.0)
            x = F.pad(x, (2, 0, 1, 1), mode="reflect")
            x = F.interpolate(x, scale_factor=1.5, mode="nearest")
            return nn.ChannelShuffle(3)(F.interpolate(x, size=(7, 30), mode="nearest"))

    example = torch.randn(3, 6, 4, 5)
    document, tensors = exported(tmp_path, quantized(Wrapped(Choices()), example), example, full=1)
    nodes = [node for node in document["nodes"] if node["op"] not in ("quantize", "dequantize")]
    zero_point = by_name(document["values"])["quant"]["zero_point"]
    scale = by_name(document["values"])["quant"]["scale"]
    one = int(torch.quantize_per_tensor(torch.ones(1), scale, zero_point, torch.quint8).int_repr())
    assert [(node["op"], node["attributes"]) for node in nodes] == [
        ("pad", {"padding": [[0, 0], [0, 3], [1, 2]], "value": zero_point}),
        ("pad", {"padding": [[0, 0], [0, 0], [0, 1]], "value": one}),
        ("reflection_pad", {"padding": [[0, 0], [1, 1], [2, 0]]}),
        ("upsample_nearest", {"scale_factors": [1.5, 1.5]}),
        ("upsample_nearest", {"scale_factors": [None, None]}),
        ("channel_shuffle", {"groups": 3}),
    ]
    assert all("rule" not in node for node in nodes)


def test_padding_of_a_convolution_that_is_not_zeros(tmp_path):
    example = torch.randn(2, 3, 5, 5)
    model = quantized(Wrapped(nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect")), example)
    document, _ = exported(tmp_path, model, example)
    nodes = document["nodes"][1:-1]
    assert [node["op"] for node in nodes] == ["reflection_pad", "conv2d"]
    assert nodes[1]["attributes"]["padding"] == [[0, 0], [0, 0]]


def test_pools_and_their_defaults(tmp_path):
    body = nn.Sequential(
        nn.MaxPool2d(3, 2, padding=1, dilation=(1, 2), ceil_mode=True),
        nn.AvgPool2d((2, 3), padding=(0, 1), count_include_pad=False, divisor_override=4),
        nn.AdaptiveAvgPool2d((2, 1)),
        Function(lambda x: F.avg_pool2d(x, (2, 1))),
    )
    example = torch.randn(2, 3, 16, 16)
    document, _ = exported(tmp_path, quantized(Wrapped(body), example), example)
    nodes = by_name(document["nodes"])
    assert nodes["body.0"]["attributes"] == {
        "kernel": [3, 3],
        "stride": [2, 2],
        "padding": [1, 1],
        "dilation": [1, 2],
        "ceil_mode": True,
    }
    assert nodes["body.1"]["attributes"] == {
        "kernel": [2, 3],
        "stride": [2, 3],
        "padding": [0, 1],
        "ceil_mode": False,
        "count_include_pad": False,
        "divisor_override": 4,
    }
    assert nodes["body.2"]["attributes"] == {"output_size": [2, 1]}
    assert nodes["body.3.avg_pool2d"]["attributes"]["kernel"] == [2, 1]
    assert nodes["body.3.avg_pool2d"]["attributes"]["stride"] == [2, 1]


@pytest.mark.parametrize("pool", [lambda x: F.avg_pool2d(x, 2), lambda x: F.adaptive_avg_pool2d(x, (3, 3))])
@pytest.mark.parametrize("channels, channels_last", [(8, False), (8, True), (1, False)])
def test_the_rule_of_a_pool_is_that_of_the_kernel_that_ran(tmp_path, pool, channels, channels_last):
    """The two kernels break ties differently, so the recorded codes tell which one ran."""
    codes = torch.randint(0, 256, (4, channels, 6, 6), dtype=torch.uint8)
    value = torch._make_per_tensor_quantized_tensor(codes, 1.0, 3)
    if channels_last:
        value = value.contiguous(memory_format=torch.channels_last)
    document, tensors = exported(tmp_path, Function(pool).eval(), value)
    (node,) = document["nodes"]
    expected = "channels_last" if channels_last or channels == 1 else "contiguous"
    assert node["rule"] == {"kind": "pool", "memory": expected}
    sums = codes.numpy().astype(np.int64).reshape(4, channels, 3, 2, 3, 2).sum((3, 5))
    formulas = {
        "channels_last": np.rint((sums - 4 * 3) / 4) + 3,
        "contiguous": np.rint(sums / 4),  # what both contiguous kernels amount to for this divisor
    }
    recorded = tensors[f"record.{node['name']}"]
    assert (formulas["channels_last"] != formulas["contiguous"]).any()
    assert np.array_equal(recorded, formulas[expected])


def test_reshapes_become_nodes_and_copies_do_not(tmp_path):
    def body(x):
        x = x.contiguous().clone().detach()  # not a node
        x = x.unsqueeze(1).transpose(1, 2)  # an axis of extent 1 goes elsewhere: two reshapes
        return x.reshape(x.shape[0], -1)

    example = torch.randn(3, 4, 3)
    document, tensors = exported(tmp_path, quantized(Wrapped(Function(body)), example), example)
    assert [(node["name"], node["op"]) for node in document["nodes"]] == [
        ("quant", "quantize"),
        ("body.reshape", "reshape"),
        ("body.reshape_2", "reshape"),
        ("body.flatten", "flatten"),
        ("dequant", "dequantize"),
    ]
    shapes = [value["shape"] for value in document["values"]]
    assert shapes == [[4, 3], [4, 3], [1, 4, 3], [4, 1, 3], [12], [12]]
    assert np.array_equal(tensors["record.quant"].ravel(), tensors["record.body.flatten"].ravel())


def test_branches_several_inputs_and_outputs(tmp_path):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant = QuantStub()
            self.relu = nn.ReLU()
            self.dequant = DeQuantStub()

        def forward(self, left, right):
            value = self.quant(left)
            once, twice = self.relu(value), self.relu(F.relu(value))
            signed = torch.quantize_per_tensor(right, 0.1, -3, torch.qint8)
            return {"a": self.dequant(once), "b": [twice, right], "c": signed}

    example = (torch.randn(3, 4), torch.randn(3, 2))
    document, tensors = exported(tmp_path, quantized(Branches(), *example), example, full=3)
    assert [entry["name"] for entry in document["inputs"]] == ["left", "right"]
    assert [entry["name"] for entry in document["outputs"]] == ["dequant", "relu_3", "right", "quantize"]
    assert [node["inputs"][0] for node in document["nodes"]] == ["left", "quant", "quant", "relu_2", "right", "relu"]
    assert tensors["record.quantize"].dtype == np.int8
    assert not any(name.startswith("digest.") for name in tensors)


def test_a_module_called_twice_gives_two_nodes(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.fc(x))

    example = torch.randn(2, 4)
    document, tensors = exported(tmp_path, quantized(Wrapped(Twice()), example), example)
    assert [node["name"] for node in document["nodes"]] == ["quant", "body.fc", "body.fc_2", "dequant"]
    assert np.array_equal(tensors["body.fc.weight"], tensors["body.fc_2.weight"])


def test_accuracy_counts_the_labels_of_the_chosen_output(tmp_path):
    def two_outputs(x):
        return x.dequantize(), torch.relu(x).dequantize()

    model = Function(two_outputs).eval()
    codes = torch.tensor([[0, 9, 9], [5, 1, 2], [1, 2, 3]], dtype=torch.uint8)
    value = torch._make_per_tensor_quantized_tensor(codes, 0.5, 0)
    document, tensors = exported(tmp_path, model, value, labels=[1, 0, 0], accuracy_output="dequantize")
    assert document["recording"]["accuracy"] == {"output": "dequantize", "correct": 2}
    assert tensors["record.labels"].tolist() == [1, 0, 0]
    document, _ = exported(tmp_path, model, value, labels=[1, 0, 0])
    assert "accuracy" not in document["recording"]
    with pytest.raises(ExportError, match="'scores', but the outputs are dequantize, dequantize_2"):
        export(model, value, tmp_path / "other", labels=[1, 0, 0], accuracy_output="scores")


def test_names_that_would_collide_with_the_recording(tmp_path):
    class Names(nn.Module):
        def __init__(self):
            super().__init__()
            self.record = nn.Linear(3, 3)
            self.quant = QuantStub()

        def forward(self, labels):
            return self.record(self.quant(labels))

    example = torch.randn(2, 3)
    document, _ = exported(tmp_path, quantized(Names(), example), example, labels=[0, 1])
    assert [value["name"] for value in document["values"]] == ["labels_2", "quant", "model.record"]


def test_recording_without_full_samples_and_with_more_than_there_are(tmp_path):
    example = torch.randn(2, 3)
    model = quantized(Wrapped(nn.Linear(3, 3)), example)
    document, tensors = exported(tmp_path, model, example, full=0)
    assert document["recording"] == {"samples": 2, "full": 0}
    assert {name for name in tensors if name.startswith("record.")} == {"record.x"}
    document, _ = exported(tmp_path, model, example, full=9)
    assert document["recording"] == {"samples": 2, "full": 2}


def test_threads_annotations_and_repeatability(tmp_path):
    example = torch.randn(2, 3)
    model = quantized(Wrapped(nn.Linear(3, 3)), example)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        document, _ = exported(tmp_path, model, example, annotations={"threshold": 0.1})
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert document["annotations"] == {"threshold": 0.1}
    assert document["producer"]["engine"] == "fbgemm"
    assert document["producer"]["threads"] == 1
    first = (tmp_path / "net.safetensors").read_bytes()
    export(model, example, tmp_path / "net.safetensors", annotations={"threshold": 0.1})
    assert (tmp_path / "net.safetensors").read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


class TwoBranches(nn.Module):
    """A value that several operators read."""

    def __init__(self):
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.add, self.mul, self.cat = (nn.quantized.FloatFunctional() for _ in range(3))
        self.tanh = nn.Tanh()

    def forward(self, x):
        x = self.conv(self.quant(x))
        y = self.tanh(x)
        y = self.mul.mul(self.add.add_relu(x, y), F.adaptive_avg_pool2d(x, 1))
        first, second = self.cat.cat([x, y], 1).split([2, 4], 1)
        return self.dequant(first.permute(0, 2, 3, 1)), self.dequant(second)


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_operators_of_several_values(tmp_path, engine):
    torch.backends.quantized.engine = engine
    example = torch.randn(5, 2, 3, 3)
    document, tensors = exported(tmp_path, quantized(TwoBranches(), example), example, full=5)
    nodes = by_name(document["nodes"])
    summary = {name: (node["op"], node["inputs"]) for name, node in nodes.items()}
    assert summary["tanh"] == ("table", ["conv"])
    assert summary["add"] == ("add", ["conv", "tanh"])
    assert summary["mul"] == ("mul", ["add", "adaptive_avg_pool2d"])
    assert summary["concat"] == ("concat", ["conv", "mul"])
    assert nodes["add"]["rule"] == {"kind": "add", "sum": "real" if engine == "fbgemm" else "shifted"}
    assert nodes["add"]["attributes"] == {"relu": True}
    assert nodes["concat"]["rule"] == {"kind": "concat", "memory": "channels_last"}
    assert nodes["slice_2"]["attributes"] == {"axis": 0, "start": 2, "step": 1}
    assert nodes["permute"]["attributes"] == {"axes": [1, 2, 0]}
    # The table gives what was recorded, and so do the moves.
    codes = tensors["record.conv"]
    assert np.array_equal(tensors["tanh.table"][codes], tensors["record.tanh"])
    assert np.array_equal(tensors["record.concat"][:, 2:], tensors["record.slice_2"])
    assert np.array_equal(tensors["record.slice"].transpose(0, 2, 3, 1), tensors["record.permute"])


@pytest.mark.parametrize("engine", ["fbgemm", "x86", "onednn", "qnnpack"])
def test_dynamic_layers(tmp_path, engine):
    torch.backends.quantized.engine = engine
    layers = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    example = torch.randn(5, 6)
    model = torch.ao.quantization.quantize_dynamic(layers, {nn.Linear})
    document, tensors = exported(tmp_path, model, example, full=5)
    assert [node["op"] for node in document["nodes"]] == ["linear_dynamic", "relu", "linear_dynamic"]
    quantize = {"onednn": "zero_point_first", "qnnpack": "wrapping"}.get(engine, "fused")
    assert document["nodes"][0]["rule"] == {"kind": "f32_out", "quantize": quantize, "weight": "per_tensor"}
    assert document["recording"]["batch"] == 1
    for sample in range(5):
        assert np.array_equal(tensors["record.2"][sample], model(example[sample : sample + 1])[0].numpy())


@pytest.mark.parametrize("engine", ["x86", "onednn", "qnnpack"])
def test_rules_of_other_engines(tmp_path, engine):
    torch.backends.quantized.engine = engine
    example = torch.randn(4, 3, 5, 5)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3, bias=False))
    document, _ = exported(tmp_path, quantized(Wrapped(body), example), example)
    nodes = by_name(document["nodes"])
    onednn = {"kind": "f32_real", "scales": "reciprocal", "weight": "per_tensor"}
    qnnpack = {"kind": "f32_mul", "multiplier": "reciprocal", "bias": "rounded", "overflow": "convert"}
    fbgemm = {"kind": "f32_mul", "multiplier": "quotient", "bias": "none", "overflow": "convert"}
    conv, linear = {
        "x86": (onednn, fbgemm),
        "onednn": (onednn, onednn),
        # It packs zeros where there is no bias.
        "qnnpack": (qnnpack, qnnpack),
    }[engine]
    assert (nodes["body.0"]["rule"], nodes["body.3"]["rule"]) == (conv, linear)
    pool = nodes["body.1"]["rule"]
    assert pool == ({"kind": "mean", "multiplier": "quotient"} if engine == "qnnpack" else pool)
    assert document["numerics"] == document["producer"]["engine"] == engine
