"""The graph of a Brevitas model whose scales are powers of two.

Brevitas computes with real numbers that stand for codes. Where every scale is a power of two and no sum needs
more than 24 bits, float32 is exact, whatever the order of the sums: then what it computed is integer arithmetic. That
is checked here for every layer; a model for which it does not hold is refused.

Layers and quantizers are seen through hooks on their modules, and values are known by the tensors between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .errors import Reasons, Unsupported
from .graph import Graph, Node, Value, call_site, input_names
from .names import Names
from .operator import Operator
from .snapshot import Snapshot
from .trace import one_thread

_QUANTIZE = {"kind": "quantize", "multiplier": "reciprocal", "zero_point": "after", "overflow": "wrap"}
_AXES = {"QuantConv1d": 1, "QuantConv2d": 2, "QuantConv3d": 3}
_LAYERS = {"QuantLinear", *_AXES}
_QUANTIZERS = {"QuantIdentity", "QuantReLU"}
_PASSED = (nn.Identity, nn.Dropout, nn.Flatten)
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def is_brevitas(model: nn.Module) -> bool:
    return any(_kind(module) in _LAYERS | _QUANTIZERS for module in model.modules())


def build_fixed_point_graph(model: nn.Module, inputs: tuple[torch.Tensor, ...], reasons: Reasons) -> Graph:
    """The graph of a run. Whatever cannot be part of it is added to the reasons."""
    builder = _Builder(model, inputs, reasons)
    with torch.no_grad(), one_thread(), builder.hooks():
        try:
            outputs = model(*inputs)
        except Exception as error:  # whatever the model raises is a reason not to export it
            reasons.add(f"the model fails on the example inputs: {type(error).__name__}: {error}")
            return builder.graph
    builder.add_outputs(outputs if isinstance(outputs, (tuple, list)) else (outputs,))
    return builder.graph


@dataclass
class _Pending:
    """A layer whose results have not been quantized yet."""

    name: str
    source: Value
    operator: Operator
    accumulators: np.ndarray
    scale: np.ndarray
    """Of the accumulators, in a shape that is broadcast with them."""
    bias: np.ndarray | None
    """In real units."""


class _Builder:
    def __init__(self, model: nn.Module, inputs: tuple[torch.Tensor, ...], reasons: Reasons):
        self._model, self._reasons = model, reasons
        self._names = Names()
        self._known: dict[int, Value | _Pending] = {}
        self._held: list[torch.Tensor] = []  # so that no address is given to another tensor
        self.graph = Graph([])
        for name, tensor in zip(input_names(model, len(inputs)), inputs):
            value = Value(self._names.unused(name), _reals(tensor.detach().numpy().copy()))
            self.graph.inputs.append(value)
            self._remember(tensor, value)

    def hooks(self):
        return _Hooks(self._model, self._see)

    def add_outputs(self, outputs: Any) -> None:
        for position, output in enumerate(outputs):
            found = self._find(_tensor(output)) if isinstance(_tensor(output), torch.Tensor) else None
            if isinstance(found, _Pending):
                found = self._reals_of(found, _tensor(output))
            if found is None:
                self._reasons.add(f"output {position}: it is no result of a Brevitas layer")
            else:
                self.graph.outputs.append(found)

    def _see(self, name: str, module: nn.Module, source: Any, result: Any) -> None:
        kind = _kind(module)
        try:
            if isinstance(module, _PASSED) and not module.training:
                self._pass(source, result)
            elif kind in _QUANTIZERS:
                self._quantizer(name, module, source, result)
            elif kind in _LAYERS:
                self._layer(name, module, source, result)
            elif isinstance(module, nn.MaxPool2d):
                self._max_pool(name, module, source, result)
            elif kind is not None:
                raise Unsupported("not supported")
        except Unsupported as error:
            self._reasons.add(f"{call_site(name, type(module).__name__)}: {error}")

    def _pass(self, source: Any, result: Any) -> None:
        before, after = _tensor(source), _tensor(result)
        found = self._find(before)
        if found is None or found is self._find(after):
            return
        self._remember(after, found)

    def _quantizer(self, name: str, module: nn.Module, source: Any, result: Any) -> None:
        snapshot = _codes_of(result, module)
        found = self._operand(source)
        if isinstance(found, _Pending):
            found.operator.attributes["relu"] |= _kind(module) == "QuantReLU"
            self._requantized(found, snapshot, result)
            return
        if found.snapshot.scale is not None:
            raise Unsupported("it quantizes codes anew; only real inputs and results of layers can be quantized")
        if _kind(module) == "QuantReLU":
            raise Unsupported("it is a ReLU of real inputs; only results of layers can be rectified")
        self._add(name, Operator("quantize", rule=_QUANTIZE), found, snapshot, _tensor(result))

    def _requantized(self, layer: _Pending, snapshot: Snapshot, result: Any) -> None:
        ratio = layer.scale / snapshot.scale
        least, most = _range(snapshot)
        least = 0 if layer.operator.attributes["relu"] else least
        codes = np.clip(np.rint(layer.accumulators * ratio), least, most)
        if not np.array_equal(codes, snapshot.data):
            raise Unsupported("Brevitas did not compute what integers give")
        layer.operator.rule = {"kind": "pow2", "rounding": "even"}
        self._add(layer.name, layer.operator, layer.source, snapshot, _tensor(result))

    def _reals_of(self, layer: _Pending, result: torch.Tensor) -> Value | None:
        """A layer whose results are not quantized: real numbers, all of them exact."""
        reals = (layer.accumulators * layer.scale).astype(np.float32)
        site = call_site(layer.name, layer.operator.op)
        if not np.array_equal(reals, result.numpy()):
            self._reasons.add(f"{site}: Brevitas did not compute what integers give")
            return None
        if layer.bias is not None:
            layer.operator.parameters["bias"] = layer.bias.astype(np.float32)
        weight = "per_tensor" if layer.operator.parameters["weight_scale"].size == 1 else "per_channel"
        layer.operator.rule = {"kind": "f32_real", "scales": "direct", "weight": weight}
        return self._add(layer.name, layer.operator, layer.source, _reals(result.numpy().copy()), result)

    def _layer(self, name: str, module: nn.Module, source: Any, result: Any) -> None:
        found = self._operand(source)
        if isinstance(found, _Pending) or found.snapshot.scale is None:
            raise Unsupported("its input is not quantized")
        weight = module.quant_weight()
        codes, scale = weight.int().numpy().astype(np.int8), _powers(weight.scale, "scale of its weights")
        bits = int(weight.bit_width)
        if not bool(weight.signed) or float(weight.zero_point.abs().max()) != 0 or bits > 8:
            raise Unsupported("its weights are not signed codes of at most 8 bits with the zero point 0")
        x = found.snapshot
        bias = None
        if module.bias is not None:
            if not module.bias_quant.is_quant_enabled:
                raise Unsupported("its bias is not quantized")
            quantized = module.bias_quant(module.bias, source, weight)
            bias = quantized.int().numpy().astype(np.int32).reshape(-1)
            expected = np.broadcast_to(scale * x.scale, bias.shape)
            if not np.array_equal(np.broadcast_to(_powers(quantized.scale, "scale of its bias"), bias.shape), expected):
                raise Unsupported("the scale of its bias is not that of its accumulators")
        axes = _AXES.get(_kind(module))
        attributes: dict[str, Any] = {"relu": False, "weight_bits": bits}
        operands = [torch.from_numpy(array.astype(np.float64)) for array in (x.data, codes)]
        if axes is None:
            sums = F.linear(*operands)
        else:
            if module.padding_mode != "zeros" or isinstance(module.padding, str):
                raise Unsupported("its padding is not a number of zeros")
            attributes |= {
                "stride": list(module.stride),
                "padding": [[pad, pad] for pad in module.padding],
                "dilation": list(module.dilation),
                "groups": module.groups,
            }
            geometry = {key: list(getattr(module, key)) for key in ("stride", "padding", "dilation")}
            sums = _CONVOLUTIONS[axes](*operands, **geometry, groups=module.groups)
        shape = [-1] + [1] * (axes or 0)
        accumulators = sums.numpy() if bias is None else sums.numpy() + bias.reshape(shape)
        # Partial sums are no larger than the sum of all magnitudes.
        columns = np.abs(codes.astype(np.int64)).reshape(len(codes), -1).sum(1)
        largest = int(np.abs(x.data.astype(np.int64)).max() * columns.max())
        if largest + (0 if bias is None else int(np.abs(bias).max())) >= 2**24:
            raise Unsupported("its sums may not fit 24 bits: float32 is not exact then")
        parameters = {
            "weight": codes,
            "weight_scale": scale,
            "weight_zero_point": np.zeros(scale.shape, np.int32),
        }
        if bias is not None:
            parameters["bias"] = bias
        total = (scale * x.scale).reshape(shape) if scale.size > 1 else scale * x.scale
        reals = None if bias is None else bias * (scale * x.scale)
        operator = Operator("linear" if axes is None else f"conv{axes}d", attributes, None, parameters)
        pending = _Pending(name, found, operator, accumulators, total, reals)
        self._remember(_tensor(result), pending)
        if module.output_quant.is_quant_enabled:
            self._requantized(pending, _codes_of(result, module), result)

    def _max_pool(self, name: str, module: nn.MaxPool2d, source: Any, result: Any) -> None:
        found = self._operand(source)
        if isinstance(found, _Pending) or found.snapshot.scale is None:
            raise Unsupported("its input is not quantized")
        pair = lambda value: [value, value] if isinstance(value, int) else list(value)  # noqa: E731
        attributes = {key: pair(getattr(module, key)) for key in ("stride", "padding", "dilation")}
        attributes |= {"kernel": pair(module.kernel_size), "ceil_mode": module.ceil_mode}
        x = found.snapshot
        data = np.rint(_tensor(result).numpy() / x.scale).astype(x.data.dtype)
        snapshot = Snapshot(x.dtype, data.shape, data, x.scale, 0, "contiguous", True, x.bits)
        self._add(name, Operator("max_pool2d", attributes), found, snapshot, _tensor(result))

    def _operand(self, source: Any) -> Value | _Pending:
        tensor = _tensor(source)
        found = self._find(tensor)
        if found is None:
            raise Unsupported("its input is the result of an operator outside of layers; only reshapes may stand there")
        if isinstance(found, _Pending) or tuple(tensor.shape) == found.snapshot.shape:
            return found
        before = found.snapshot
        if len(tensor) != before.shape[0] or not tensor.is_contiguous():
            raise Unsupported("its input is reordered, or is no batch")
        data = before.data.reshape(tensor.shape)
        after = Snapshot(
            before.dtype, data.shape, data, before.scale, before.zero_point, "contiguous", True, before.bits
        )
        op = "flatten" if data.ndim == 2 else "reshape"
        return self._add(op, Operator(op), found, after, tensor)

    def _add(self, name: str, operator: Operator, source: Value, snapshot: Snapshot, tensor: torch.Tensor) -> Value:
        value = Value(self._names.unused(name or operator.op), snapshot)
        self.graph.nodes.append(Node(value.name, operator, [source], value))
        self._remember(tensor, value)
        return value

    def _remember(self, tensor: torch.Tensor, what: Value | _Pending) -> None:
        self._held.append(tensor)
        self._known[tensor.data_ptr()] = what

    def _find(self, tensor: torch.Tensor) -> Value | _Pending | None:
        return self._known.get(tensor.data_ptr())


class _Hooks:
    """Calls ``see(name, module, first argument, result)`` after every module's forward()."""

    def __init__(self, model: nn.Module, see) -> None:
        self._model, self._see, self._handles = model, see, []

    def __enter__(self) -> None:
        for name, module in self._model.named_modules():
            inside = any(_kind(parent) in _LAYERS | _QUANTIZERS for parent in _parents(self._model, name))
            if not inside:
                hook = lambda module, inputs, result, name=name: self._see(name, module, inputs[0], result)  # noqa: E731
                self._handles.append(module.register_forward_hook(hook))

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()


def _parents(model: nn.Module, name: str) -> list[nn.Module]:
    parts = name.split(".")
    return [model.get_submodule(".".join(parts[:end])) for end in range(1, len(parts))]


def _kind(module: nn.Module) -> str | None:
    """The class of one of Brevitas's layers."""
    own = type(module).__module__.startswith("brevitas.nn.")
    return type(module).__name__ if own else None


def _tensor(value: Any) -> Any:
    return getattr(value, "value", value)


def _reals(data: np.ndarray) -> Snapshot:
    return Snapshot(torch.float32, data.shape, data, None, None, "contiguous", True)


def _codes_of(result: Any, module: nn.Module) -> Snapshot:
    """The codes that a quantizer made."""
    if not hasattr(result, "bit_width"):
        raise Unsupported("it gives no codes; set return_quant_tensor=True")
    scale = _powers(result.scale, "scale of its results")
    bits = int(result.bit_width)
    if scale.size != 1 or bits > 8 or float(result.zero_point.abs().max()) != 0:
        raise Unsupported("its results are not codes of at most 8 bits with one scale and the zero point 0")
    signed = bool(result.signed)
    proxy = module.act_quant if _kind(module) in _QUANTIZERS else module.output_quant
    if proxy.is_narrow_range:
        raise Unsupported("its codes have a narrow range; only the full range of codes can be exported")
    data = np.rint(_tensor(result).numpy() / scale[0]).astype(np.int8 if signed else np.uint8)
    dtype = torch.qint8 if signed else torch.quint8
    return Snapshot(dtype, data.shape, data, float(scale[0]), 0, "contiguous", True, bits)


def _range(snapshot: Snapshot) -> tuple[int, int]:
    if snapshot.dtype == torch.quint8:
        return 0, 2**snapshot.bits - 1
    return -(2 ** (snapshot.bits - 1)), 2 ** (snapshot.bits - 1) - 1


def _powers(scale: torch.Tensor, what: str) -> np.ndarray:
    scales = scale.detach().numpy().astype(np.float64).reshape(-1)
    for value in scales.tolist():
        if not 0 < value < float("inf") or frexp(value)[0] != 0.5:
            raise Unsupported(
                f"the {what} is {value!r}, not a power of two: Brevitas computes in float32 then, and its sums depend "
                "on their order"
            )
    return scales
