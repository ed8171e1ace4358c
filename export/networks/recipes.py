"""How each network on digits is trained and quantized."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._export import capture_pre_autograd_graph
from torch.ao.quantization import (
    convert,
    default_qconfig,
    fuse_modules_qat,
    get_default_qat_qconfig,
    get_default_qconfig,
    get_default_qconfig_mapping,
    prepare_qat,
    quantize_dynamic,
)
from torch.ao.quantization.backend_config import get_onednn_backend_config
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.ao.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch.ao.quantization.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)
from torch.nn import functional as F

import digits
import networks
from quantizing import Groups, quantize
from training import Prepare, accuracy, scores, train

SEED = 1
_CALIBRATION = 1000
_THRESHOLD = 0.9


@dataclass
class Result:
    """A quantized network and how it came about."""

    model: nn.Module
    prepare: Prepare
    preprocessing: str
    accuracy_float: list[float]
    annotations: dict[str, Any] = field(default_factory=dict)


@cache
def load_digits() -> tuple[digits.Digits, digits.Digits]:
    return digits.load()


def mlp(fused: bool) -> Result:
    fuse = [["fc1", "relu"]] if fused else None
    return _static(networks.Mlp, _flat, "pixels / 255, flat", 20, default_qconfig, fuse)


def simple(fused: bool) -> Result:
    fuse = [["fc1", "relu1"], ["fc2", "relu2"]] if fused else None
    text = "(pixels / 255 - 0.1307) / 0.3081, flat"
    return _static(networks.Simple, _normalised, text, 20, default_qconfig, fuse)


def cnn_bn(per_channel: bool, folded: bool) -> Result:
    qconfig = get_default_qconfig("fbgemm") if per_channel else default_qconfig
    if folded:
        fuse = [[f"conv{stage}", f"bn{stage}", f"relu{stage}"] for stage in (1, 2, 3)]
    elif per_channel:  # the two unfolded variants cover both forms of the operator
        fuse = [[f"bn{stage}", f"relu{stage}"] for stage in (1, 2, 3)]
    else:
        fuse = None
    text = "pixels / 255, two background pixels added on each side, repeated in three channels"
    return _static(networks.CnnBn, _colour, text, 2, qconfig, fuse)


def residual() -> Result:
    qconfig = get_default_qconfig(torch.backends.quantized.engine)
    return _static(networks.Residual, _image, "pixels / 255", 6, qconfig, networks.Residual.FUSE)


def residual_fx() -> Result:
    """By FX graph mode, whose backend onednn fuses sums into convolutions."""
    training, test = load_digits()
    model = _trained(networks.PlainResidual, _image, 6)
    backend = get_onednn_backend_config() if torch.backends.quantized.engine == "onednn" else None
    mapping = get_default_qconfig_mapping(torch.backends.quantized.engine)
    prepared = prepare_fx(copy.deepcopy(model), mapping, (training.images[:1],), backend_config=backend)
    for part in training.images[:_CALIBRATION].split(250):
        prepared(part)
    quantized = convert_fx(prepared, backend_config=backend)
    return Result(quantized, _image, "pixels / 255", accuracy(model, test, _image))


def residual_pt2e() -> Result:
    """By PyTorch 2 export, for x86."""
    training, test = load_digits()
    model = _trained(networks.MaxResidual, _image, 6)
    # A batch of 250, because the batch of the graph is that of the example.
    graph = capture_pre_autograd_graph(copy.deepcopy(model), (training.images[:250],))
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(graph, quantizer)
    for part in training.images[:_CALIBRATION].split(250):
        prepared(part)
    return Result(convert_pt2e(prepared), _image, "pixels / 255", accuracy(model, test, _image))


def inverted() -> Result:
    qconfig = get_default_qconfig(torch.backends.quantized.engine)
    return _static(networks.Inverted, _image, "pixels / 255", 6, qconfig, networks.Inverted.FUSE)


def simple_dynamic() -> Result:
    """Only weights are quantized beforehand."""
    test = load_digits()[1]
    model = _trained(networks.Simple, _normalised, 20)
    layers = nn.Sequential(model.fc1, model.relu1, model.fc2, model.relu2, model.fc3)
    quantized = quantize_dynamic(copy.deepcopy(layers), {nn.Linear})
    text = "(pixels / 255 - 0.1307) / 0.3081, flat"
    return Result(quantized, _normalised, text, accuracy(model, test, _normalised))


def fixed_point(weights: tuple[int, int, int], activations: tuple[int, int, int], per_channel: bool) -> Result:
    """Trained with quantization from the beginning; there is no float network beside it."""
    from fixed_point import FixedPoint  # needs Brevitas, which the other recipes do without

    training, test = load_digits()
    torch.manual_seed(SEED)
    model = FixedPoint(weights, activations, per_channel)
    train(model, training, _centred, epochs=3, seed=SEED, rate=2e-3)
    return Result(model.eval(), _centred, "2 * pixels / 255 - 1", accuracy(model, test, _centred))


def early_exit() -> Result:
    fuse = [["conv1", "relu1"], ["conv2", "relu2"]]
    result = _static(networks.EarlyExit, _image, "pixels / 255", 6, default_qconfig, fuse)
    result.annotations["early_exit"] = {
        "rule": "believe the early output when its largest softmax probability reaches the threshold",
        "early": "early_dequant",
        "final": "final_dequant",
        "threshold": _THRESHOLD,
        **_measure_early_exit(result),
    }
    return result


def _measure_early_exit(result: Result) -> dict[str, float]:
    """How many of the test digits need only the early output, and how many come out right."""
    test = load_digits()[1]
    early, final = scores(result.model, test, result.prepare)
    confident = early.softmax(1).amax(1) >= _THRESHOLD
    chosen = torch.where(confident, early.argmax(1), final.argmax(1))
    return {
        "exits_early": round(confident.float().mean().item(), 4),
        "accuracy": round((chosen == test.labels).float().mean().item(), 4),
    }


def cnn_qat() -> Result:
    """Trained in float, then for two more epochs with the quantization simulated."""
    training, test = load_digits()
    model = copy.deepcopy(_trained(networks.Cnn, _image, 3))
    accuracy_float = accuracy(model, test, _image)
    model = fuse_modules_qat(model.train(), [["conv1", "relu1"], ["conv2", "relu2"], ["fc1", "relu3"]])
    model.qconfig = get_default_qat_qconfig("fbgemm")
    prepare_qat(model, inplace=True)
    train(model, training, _image, epochs=2, seed=SEED, rate=3e-4)
    return Result(convert(model.eval()), _image, "pixels / 255", accuracy_float)


def _static(network, prepare: Prepare, text: str, epochs: int, qconfig, fuse: Groups | None) -> Result:
    training, test = load_digits()
    model = _trained(network, prepare, epochs)
    calibration = [(prepare(part),) for part in training.images[:_CALIBRATION].split(250)]
    quantized = quantize(model, qconfig, calibration, fuse)
    return Result(quantized, prepare, text, accuracy(model, test, prepare))


@cache
def _trained(network, prepare: Prepare, epochs: int) -> nn.Module:
    torch.manual_seed(SEED)
    model = network()
    train(model, load_digits()[0], prepare, epochs=epochs, seed=SEED)
    return model.eval()


def _image(images: torch.Tensor) -> torch.Tensor:
    return images


def _centred(images: torch.Tensor) -> torch.Tensor:
    return 2 * images - 1


def _flat(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)


def _normalised(images: torch.Tensor) -> torch.Tensor:
    return (images.flatten(1) - 0.1307) / 0.3081


def _colour(images: torch.Tensor) -> torch.Tensor:
    return F.pad(images, (2, 2, 2, 2)).repeat(1, 3, 1, 1)
