"""The graph of a model that PyTorch 2 export quantized for x86 (``convert_pt2e`` with X86InductorQuantizer).

The converted module only simulates: it computes layers on dequantized numbers in float32, whose sums depend on their
order. What runs is its lowered form, in which each layer, with what is added to it, its activation and the
quantization of its result, is one of PyTorch's ``onednn.q…_pointwise`` operators. So these are called here, as
the lowering calls them, and it is their results that are recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from .errors import Reasons, Unsupported
from .graph import Graph, Node, Value, call_site
from .names import Names
from .operator import Operator
from .snapshot import Snapshot
from .trace import one_thread

_QUANTIZE = {"kind": "quantize", "multiplier": "f64_reciprocal", "zero_point": "after", "overflow": "saturate"}
_PASSED = {"aten.dropout", "aten.dropout_", "aten.contiguous", "aten.clone", "aten.detach", "aten.alias"}
_RESHAPES = {"aten.flatten", "aten.view", "aten.reshape"}


def is_pt2e(model: torch.nn.Module) -> bool:
    return isinstance(model, fx.GraphModule) and any("quantized_decomposed" in str(n.target) for n in model.graph.nodes)


def build_pt2e_graph(model: fx.GraphModule, inputs: tuple[torch.Tensor, ...], reasons: Reasons) -> Graph:
    """The graph, with the values of a run. Whatever cannot be part of it is added to the reasons."""
    builder = _Builder(model, inputs)
    with torch.no_grad(), one_thread():
        for node in model.graph.nodes:
            try:
                builder.add(node)
            except Unsupported as error:
                reasons.add(f"{call_site(node.name, _name(node))}: {error}")
                break  # nothing can be said about what follows
    return builder.graph


@dataclass
class _Layer:
    """A layer whose results have not been quantized yet."""

    name: str
    source: Value
    parameters: dict[str, np.ndarray]
    geometry: dict[str, Any] | None
    """Of a convolution."""
    addend: Value | None = None
    relu: bool = False
    clip: list[float] | None = None


class _Moved(tuple):
    """The results of an operator that moves codes, in real numbers, and the operator and value they came from."""


class _Builder:
    def __init__(self, model: fx.GraphModule, inputs: tuple[torch.Tensor, ...]):
        self._model = model
        self._names = Names()
        self._known: dict[fx.Node, Any] = {}
        self._inputs = iter(inputs)
        names = [node.name for node in model.graph.nodes if node.op == "placeholder"]
        self.graph = Graph([])
        for name, tensor in zip(names, inputs):
            data = tensor.detach().numpy().copy()
            snapshot = Snapshot(torch.float32, data.shape, data, None, None, "contiguous", True)
            self.graph.inputs.append(Value(self._names.unused(name), snapshot))
        self._placeholders = iter(self.graph.inputs)

    def add(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._known[node] = next(self._placeholders)
        elif node.op == "get_attr":
            self._known[node] = _attribute(self._model, node.target)
        elif node.op == "output":
            for result in _flat(node.args[0]):
                self.graph.outputs.append(self._output(self._known[result]))
        elif _name(node).startswith("aten.") or _name(node).startswith("quantized_decomposed."):
            self._call(node, _name(node), [self._known[a] if isinstance(a, fx.Node) else a for a in node.args])
        elif node.args and isinstance(
            node.args[0], fx.Node | list
        ):  # the taking apart and putting together of arguments
            found = [self._known[a] for a in _flat(node.args[0])]
            self._known[node] = found[0] if len(found) == 1 else found

    def _call(self, node: fx.Node, name: str, args: list[Any]) -> None:
        handler = {
            "quantized_decomposed.quantize_per_tensor": self._quantize,
            "quantized_decomposed.dequantize_per_tensor": self._dequantize,
            "quantized_decomposed.dequantize_per_channel": self._dequantize,
            "aten.conv2d": self._layer,
            "aten.linear": self._layer,
            "aten.add": self._add,
            "aten.add_": self._add,
            "aten.relu": self._relu,
            "aten.relu_": self._relu,
            "aten.hardtanh": self._hardtanh,
            "aten.hardtanh_": self._hardtanh,
            "aten.max_pool2d": self._max_pool,
        }.get(name)
        if "dropout" in name and args[2]:
            raise Unsupported("the model was captured in training mode; call model.eval() before")
        if name in _PASSED:
            self._known[node] = args[0]
        elif name in _RESHAPES:
            self._known[node] = self._moved(node, args, Operator("flatten" if name == "aten.flatten" else "reshape"))
        elif handler is None:
            raise Unsupported("not supported: it computes on float32 values, whose sums may depend on their order")
        else:
            self._known[node] = handler(node, args)

    def _quantize(self, node: fx.Node, args: list[Any]) -> Value:
        source, scale, zero_point, *bounds, dtype = args
        if dtype != torch.uint8 or bounds != [0, 255]:
            codes = f"{dtype} from {bounds[0]} to {bounds[1]}"
            raise Unsupported(f"its codes are {codes}; only uint8 from 0 to 255 can be exported")
        if isinstance(source, _Layer):
            return self._finish(source, scale, zero_point)
        operator, before = Operator("quantize", rule=_QUANTIZE), source
        if isinstance(source, _Moved):
            operator, before, reals = source
            if (scale, zero_point) != (before.snapshot.scale, before.snapshot.zero_point):
                raise Unsupported("it quantizes codes anew, with another scale or zero point")
        else:
            reals = torch.from_numpy(source.snapshot.data)
        codes = node.target(reals, scale, zero_point, 0, 255, torch.uint8)
        return self._value(operator.op, operator, [before], _codes(codes, scale, zero_point))

    def _dequantize(self, node: fx.Node, args: list[Any]) -> Any:
        if isinstance(args[0], torch.Tensor):
            if "per_channel" in str(node.target):
                weight, scale, zero_point, axis = args[:4]
                if axis != 0:
                    raise Unsupported("its weights are quantized along another axis than 0")
            else:
                weight, scale, zero_point = args[0], torch.tensor([args[1]]), torch.tensor([args[2]])
            return {
                "weight": weight.numpy().copy(),
                "weight_scale": scale.numpy().astype(np.float64).reshape(-1),
                "weight_zero_point": zero_point.numpy().astype(np.int32).reshape(-1),
            }
        return args[0]

    def _layer(self, node: fx.Node, args: list[Any]) -> _Layer:
        source, parameters, bias = args[0], args[1], args[2] if len(args) > 2 else None
        if not isinstance(source, Value) or source.snapshot.scale is None or not isinstance(parameters, dict):
            raise Unsupported("its input or its weights are not quantized")
        if parameters["weight_zero_point"].any():
            raise Unsupported("its weights have zero points other than 0")
        geometry = None
        if "conv2d" in _name(node):
            defaults = [[1, 1], [0, 0], [1, 1], 1]
            given = [*args[3:], *defaults[len(args) - 3 :]] if len(args) > 3 else defaults
            if isinstance(given[1], str):
                raise Unsupported("its padding is not a number of zeros")
            pairs = [list(value) * 2 if len(value) == 1 else list(value) for value in given[:3]]
            geometry = dict(zip(("stride", "padding", "dilation"), pairs), groups=given[3])
        if bias is not None:
            parameters = {**parameters, "bias": bias.detach().numpy().copy()}
        return _Layer(node.name, source, parameters, geometry)

    def _add(self, node: fx.Node, args: list[Any]) -> _Layer:
        layer = self._only_user(node, args)
        (other,) = [arg for arg in args[:2] if arg is not layer] or [layer]
        is_codes = isinstance(other, Value) and other.snapshot.scale is not None
        if layer.geometry is None or not is_codes or layer.addend or layer.relu or layer.clip or node.kwargs:
            raise Unsupported("it is no sum of a convolution and of quantized values")
        layer.addend = other
        return layer

    def _relu(self, node: fx.Node, args: list[Any]) -> _Layer:
        layer = self._only_user(node, args)
        layer.relu = True
        return layer

    def _hardtanh(self, node: fx.Node, args: list[Any]) -> _Layer:
        layer = self._only_user(node, args)
        if layer.addend or layer.geometry is None:
            raise Unsupported("it does not follow a convolution")
        layer.clip = [float(bound) for bound in [*args[1:], *[-1.0, 1.0][len(args) - 1 :]]]
        return layer

    def _only_user(self, node: fx.Node, args: list[Any]) -> _Layer:
        layers = [arg for arg in args[:2] if isinstance(arg, _Layer)]
        users = [arg for arg in node.args[:2] if isinstance(arg, fx.Node) and isinstance(self._known[arg], _Layer)]
        if len(layers) != 1 or any(len(user.users) > 1 for user in users):
            raise Unsupported("it computes on float32 values that are not the results of one layer, used once")
        if layers[0].relu or layers[0].clip:
            raise Unsupported("it computes on the results of an activation")
        return layers[0]

    def _max_pool(self, node: fx.Node, args: list[Any]) -> _Moved:
        defaults = [None, [], [0, 0], [1, 1], False]
        kernel, stride, padding, dilation, ceil_mode = [*args[1:], *defaults[len(args) - 1 :]]
        pair = lambda value: list(value) * 2 if len(value) == 1 else list(value)  # noqa: E731
        attributes = {
            "kernel": pair(kernel),
            "stride": pair(stride or kernel),
            "padding": pair(padding),
            "dilation": pair(dilation),
            "ceil_mode": ceil_mode,
        }
        return self._moved(node, args, Operator("max_pool2d", attributes))

    def _moved(self, node: fx.Node, args: list[Any], operator: Operator) -> _Moved:
        """An operator that does the same to codes as to the real numbers they stand for."""
        if not isinstance(args[0], Value) or args[0].snapshot.scale is None:
            raise Unsupported("its operand is not quantized")
        before = args[0].snapshot
        try:
            reals = node.target(_dequantized(before), *args[1:], **node.kwargs)
        except RuntimeError as error:  # a shape with the batch of the capture in it, for instance
            raise Unsupported(f"it fails on the example inputs: {str(error).splitlines()[0]}") from error
        if len(reals) != before.shape[0]:
            raise Unsupported("it does not keep the batch")
        return _Moved((operator, args[0], reals))

    def _finish(self, layer: _Layer, scale: float | None, zero_point: int) -> Value:
        """Calls the operator to which the lowering turns a layer; without a scale its results are real numbers."""
        x, parameters = layer.source.snapshot, layer.parameters
        weight = torch.from_numpy(parameters["weight"])
        w_scale = torch.from_numpy(parameters["weight_scale"].astype(np.float32))
        w_zero = torch.from_numpy(parameters["weight_zero_point"])
        bias = torch.from_numpy(parameters["bias"]) if "bias" in parameters else None
        codes = torch.from_numpy(x.data)
        output = (1.0, 0, torch.float32) if scale is None else (scale, zero_point, None)
        unary = ("hardtanh", layer.clip) if layer.clip else ("relu", []) if layer.relu else ("none", [])
        attributes: dict[str, Any] = {"relu": layer.relu}
        if layer.geometry is None:
            packed = torch.ops.onednn.qlinear_prepack(weight, list(codes.shape))
            result = torch.ops.onednn.qlinear_pointwise.default(
                codes, x.scale, x.zero_point, packed, w_scale, w_zero, bias, *output, *unary, ""
            )
        else:
            geometry = list(layer.geometry.values())
            packed = torch.ops.onednn.qconv_prepack(
                weight, w_scale, x.scale, x.zero_point, *geometry, list(codes.shape)
            )
            if layer.addend is None:
                result = torch.ops.onednn.qconv2d_pointwise.default(
                    codes, x.scale, x.zero_point, packed, w_scale, w_zero, bias, *geometry, *output, *unary, ""
                )
            else:
                if scale is None:
                    raise Unsupported("its sum is not quantized")
                sum_ = layer.addend.snapshot
                # The operator writes its results over what it adds.
                accumulator = torch.from_numpy(sum_.data.copy()).contiguous(memory_format=torch.channels_last)
                result = torch.ops.onednn.qconv2d_pointwise.binary(
                    codes, x.scale, x.zero_point, accumulator, sum_.scale, sum_.zero_point,
                    packed, w_scale, w_zero, bias, *geometry, *output, "sum", 1.0, *unary, "",
                )  # fmt: skip
            padding = [[pad, pad] for pad in layer.geometry["padding"]]
            attributes = {**layer.geometry, "padding": padding, **attributes}
        if scale is None:
            data = result.contiguous().numpy().copy()
            snapshot = Snapshot(torch.float32, data.shape, data, None, None, "contiguous", True)
        else:
            snapshot = _codes(result, scale, zero_point)
        granularity = "per_tensor" if w_scale.numel() == 1 else "per_channel"
        rule: dict[str, Any] = {"kind": "f32_real", "scales": "direct", "weight": granularity}
        if layer.clip:
            rule["clip"] = layer.clip
        operator = Operator("linear" if layer.geometry is None else "conv2d", attributes, rule, parameters)
        sources = [layer.source] if layer.addend is None else [layer.source, layer.addend]
        return self._value(layer.name, operator, sources, snapshot)

    def _output(self, found: Any) -> Value:
        if isinstance(found, _Layer):
            return self._finish(found, None, 0)
        if isinstance(found, Value) and found.snapshot.scale is not None:
            data = _dequantized(found.snapshot).numpy()
            snapshot = Snapshot(torch.float32, data.shape, data, None, None, "contiguous", True)
            return self._value("dequantize", Operator("dequantize", rule={"kind": "dequantize"}), [found], snapshot)
        if isinstance(found, Value):
            return found
        raise Unsupported("it is neither a layer's result nor quantized")

    def _value(self, name: str, operator: Operator, sources: list[Value], snapshot: Snapshot) -> Value:
        value = Value(self._names.unused(name), snapshot)
        self.graph.nodes.append(Node(value.name, operator, sources, value))
        return value


def _name(node: fx.Node) -> str:
    """The operator's name without its overload."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.replace("::", ".") if schema else str(node.target)


def _flat(argument: Any) -> list[fx.Node]:
    return [argument] if isinstance(argument, fx.Node) else [a for part in argument for a in _flat(part)]


def _attribute(model: fx.GraphModule, target: str) -> torch.Tensor:
    return getattr(model, target) if hasattr(model, target) else model.get_parameter(target)


def _codes(codes: torch.Tensor, scale: float, zero_point: int) -> Snapshot:
    data = codes.contiguous().numpy().copy()
    return Snapshot(torch.quint8, data.shape, data, scale, zero_point, "contiguous", True)


def _dequantized(codes: Snapshot) -> torch.Tensor:
    return torch.ops.quantized_decomposed.dequantize_per_tensor(
        torch.from_numpy(codes.data), codes.scale, codes.zero_point, 0, 255, torch.uint8
    )
