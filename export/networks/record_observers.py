"""Record what PyTorch's observers compute: python record_observers.py

Writes fixtures/observers/observers.safetensors, described in the README beside it.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.ao.quantization import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

_FILE = Path(__file__).resolve().parents[2] / "fixtures/observers/observers.safetensors"

# Observers announce that `reduce_range` will go; this is the release that is recorded.
warnings.filterwarnings("ignore", module="torch.ao.quantization")

U8, I8 = torch.quint8, torch.qint8
_NAMES = {U8: "u8", I8: "i8"}


class Cases:
    """Tensors by name, and a description of every case."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.cases: list[dict] = []

    def add(self, kind: str, fields: dict, **tensors: torch.Tensor) -> None:
        name = f"case{len(self.cases):03}"
        self.cases.append({"kind": kind, **fields})
        for key, tensor in tensors.items():
            self.tensors[f"{name}.{key}"] = tensor.detach().contiguous().clone()


def bits_at_random(n: int, generator: torch.Generator) -> torch.Tensor:
    """Finite numbers of every exponent and sign, subnormal ones included."""
    bits = torch.randint(-(2**31), 2**31, (2 * n + 64,), generator=generator).to(torch.int32)
    numbers = bits.view(torch.float32)
    return numbers[numbers.isfinite()][:n]


def data(generator: torch.Generator) -> list[torch.Tensor]:
    """Numbers to observe: every magnitude, one sign, constants, zeros; 24 each."""
    normal = lambda: torch.randn(24, generator=generator)
    tensors = [
        torch.zeros(24),
        torch.full((24,), 3.7),
        torch.full((24,), -0.01),
        torch.full((24,), 1e-30),
        normal().abs() + 5,
        -normal().abs(),
        normal() * 1e-6,
        normal() * 1e-42,
        normal() * 1e30,
        bits_at_random(24, generator).clamp(-1e38, 1e38),
        torch.tensor([-1e38, *[0.0] * 22, 1e38]),
        torch.tensor([-(2.0**-23) * 255, *[0.0] * 23]),
    ]
    for exponent in torch.linspace(-12, 12, 28):
        tensors.append((normal() + torch.randn(1, generator=generator)) * 2.0**exponent)
    # Steps of one code and zero points on ties.
    for scale, least in [(0.125, -0.3125), (2.0**-9, -63.5 * 2.0**-9), (1.0, -100.5)]:
        tensors.append(torch.linspace(least, least + 255 * scale, 24))
    return tensors


def ranges() -> list[dict]:
    """Types, and ranges of codes: the type's own, reduced ones, bounds given."""
    arguments = []
    for dtype in (U8, I8):
        arguments += [dict(dtype=dtype), dict(dtype=dtype, reduce_range=True)]
    arguments += [dict(dtype=U8, quant_min=0, quant_max=top) for top in (1, 3, 15, 127, 254, 255)]
    arguments += [dict(dtype=I8, quant_min=-b, quant_max=t) for b, t in [(127, 127), (64, 63), (8, 7), (1, 0), (2, 1)]]
    arguments += [dict(dtype=U8, eps=2.0**-12), dict(dtype=I8, eps=1e-10)]
    return arguments


def describe(arguments: dict) -> dict:
    """The arguments of an observer, as written into a case."""
    given = [arguments["quant_min"], arguments["quant_max"]] if "quant_min" in arguments else None
    return {
        "codes": _NAMES[arguments["dtype"]],
        "bounds": given,
        "reduced": arguments.get("reduce_range", False),
        "eps": arguments.get("eps", torch.finfo(torch.float32).eps),
    }


def record_min_max(cases: Cases, observed: list[torch.Tensor]) -> None:
    x = torch.stack(observed)
    for arguments in ranges():
        for symmetric in (False, True):
            if symmetric and arguments["dtype"] == U8 and arguments.get("reduce_range"):
                continue  # PyTorch refuses it.
            fields = {**describe(arguments), "symmetric": symmetric}
            scheme = "symmetric" if symmetric else "affine"
            results = []
            for row in x:
                observer = MinMaxObserver(qscheme=getattr(torch, f"per_tensor_{scheme}"), **arguments)
                observer(row)
                results.append(observer.calculate_qparams())
            observer = PerChannelMinMaxObserver(qscheme=getattr(torch, f"per_channel_{scheme}"), **arguments)
            observer(x)
            scale, zero_point = observer.calculate_qparams()
            cases.add(
                "min_max",
                fields,
                scale=torch.cat([scale for scale, _ in results]),
                zero_point=torch.cat([zero for _, zero in results]).to(torch.int32),
                channel_scale=scale,
                channel_zero_point=zero_point.to(torch.int32),
            )


def record_moving_average(cases: Cases, generator: torch.Generator) -> None:
    for constant in (0.01, 0.1, 0.5, 1.0, 1 / 3):
        for magnitude in (1.0, 1e-8, 1e25):
            batches = torch.randn(9, 4, 6, generator=generator) * magnitude
            batches[:, 2] = batches[:, 2].abs()
            tensor = MovingAverageMinMaxObserver(averaging_constant=constant)
            channel = MovingAveragePerChannelMinMaxObserver(averaging_constant=constant)
            seen: dict[str, list] = {"min": [], "max": [], "channel_min": [], "channel_max": []}
            for batch in batches:
                tensor(batch)
                channel(batch)
                seen["min"].append(tensor.min_val.clone())
                seen["max"].append(tensor.max_val.clone())
                seen["channel_min"].append(channel.min_val.clone())
                seen["channel_max"].append(channel.max_val.clone())
            stacked = {name: torch.stack(values) for name, values in seen.items()}
            scale, zero_point = tensor.calculate_qparams()
            cases.add(
                "moving_average",
                {"averaging_constant": constant},
                x=batches,
                **stacked,
                scale=scale,
                zero_point=zero_point.to(torch.int32),
            )


def record_dynamic(cases: Cases, observed: list[torch.Tensor], generator: torch.Generator) -> None:
    """Parameters that quantize_per_tensor_dynamic chooses, for many ranges, around its thresholds above all."""
    rows = [torch.stack([row.min(), row.max()]) for row in observed]
    for exponent in torch.linspace(-46, 38, 300):
        ends = torch.rand(2, generator=generator) * 10.0**exponent
        sign = torch.randint(0, 3, (1,), generator=generator).item()
        low, high = ends.sort().values
        rows.append({0: torch.stack([low, high]), 1: torch.stack([-high, -low]), 2: torch.stack([-low, high])}[sign])
    for steps in (127, 255):
        for share in torch.linspace(0, 1, 41):
            for factor in (0.999999, 1.0, 1.000001, 0.1):
                width = 6.1e-5 * steps * factor
                rows.append(torch.stack([-share * width, (1 - share) * width]))
    x = torch.stack(rows)
    for dtype in (U8, I8):
        for reduced in (False, True):
            chosen = [torch.quantize_per_tensor_dynamic(row, dtype, reduced) for row in x]
            cases.add(
                "choose",
                {"codes": _NAMES[dtype], "reduced": reduced},
                x=x,
                scale=torch.tensor([q.q_scale() for q in chosen], dtype=torch.float64),
                zero_point=torch.tensor([q.q_zero_point() for q in chosen], dtype=torch.int32),
            )


def record_weights(cases: Cases, observed: list[torch.Tensor]) -> None:
    """Weights to codes as `torch.ao.nn.quantized` modules do it, per tensor and per channel."""
    from torch.ao.nn.quantized.modules.utils import _quantize_weight

    weight = torch.stack(observed)
    ordinary = weight[-20:] * torch.linspace(0.1, 3.0, 20)[:, None]
    bounds = [dict(quant_min=low, quant_max=high) for low, high in ((-127, 127), (-8, 7))]
    for arguments in (dict(), bounds[0], dict(reduce_range=True), bounds[1]):
        for w in (weight, ordinary):
            for scheme in ("symmetric", "affine"):
                per_tensor, per_channel = (getattr(torch, f"per_{what}_{scheme}") for what in ("tensor", "channel"))
                tensor = MinMaxObserver(dtype=I8, qscheme=per_tensor, **arguments)
                channel = PerChannelMinMaxObserver(dtype=I8, qscheme=per_channel, **arguments)
                tensor(w)
                channel(w)
                cases.add(
                    "weights",
                    {**describe(dict(dtype=I8, **arguments)), "symmetric": scheme == "symmetric"},
                    weight=w,
                    codes=_quantize_weight(w, tensor).int_repr(),
                    channel_codes=_quantize_weight(w, channel).int_repr(),
                )


def record_biases(cases: Cases, generator: torch.Generator) -> None:
    """Biases to int32 as the QNNPACK engine does it: quantize_per_tensor or _per_channel to qint32, zero point 0."""
    for magnitude in (1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e12):
        bias = torch.randn(64, generator=generator) * magnitude
        bias[:5] = torch.tensor([0.0, float("inf"), float("-inf"), float("nan"), 3e38])
        input_scale = torch.rand(1, generator=generator, dtype=torch.float64).item() * 1e-2
        scales = torch.rand(64, generator=generator, dtype=torch.float64) * 1e-2 + 1e-9
        # Beside ties: a whole number and a half of the scale, and its neighbours.
        halves = torch.randint(-300, 300, (30,), generator=generator) + 0.5
        ties = (halves * scales[34:] * input_scale).float()
        beside = torch.stack([ties, ties.nextafter(torch.zeros(30)), ties.nextafter(ties * 2)])
        bias[34:] = beside[torch.arange(30) % 3, torch.arange(30)]
        zeros = torch.zeros(64, dtype=torch.int64)
        cases.add(
            "bias",
            {"input_scale": input_scale},
            bias=bias,
            weight_scale=scales,
            codes=torch.quantize_per_tensor(bias, scales[-1].item() * input_scale, 0, torch.qint32).int_repr(),
            channel_codes=torch.quantize_per_channel(bias, scales * input_scale, zeros, 0, torch.qint32).int_repr(),
        )


def record_folds(cases: Cases, generator: torch.Generator) -> None:
    for index in range(24):
        channels, inputs = 5 + index, 2 + index % 4
        weight = torch.randn(channels, inputs, 3, 1 + index % 2, generator=generator)
        bias = torch.randn(channels, generator=generator) if index % 3 else None
        mean, beta = torch.randn(2, channels, generator=generator)
        gamma = torch.randn(channels, generator=generator) * 10.0 ** (index % 7 - 3)
        var = torch.rand(channels, generator=generator) * 10.0 ** (index % 9 - 6)
        var[0] = 0.0
        eps = (1e-5, 1e-3, 0.1)[index % 3]
        for kind, fuse, w in (
            ("fold_convolution", fuse_conv_bn_weights, weight),
            ("fold_linear", fuse_linear_bn_weights, weight.flatten(1)),
        ):
            folded_weight, folded_bias = fuse(w, bias, mean, var, eps, gamma, beta)
            given = {} if bias is None else {"bias": bias}
            cases.add(
                kind,
                {"eps": eps},
                weight=w,
                **given,
                gamma=gamma,
                beta=beta,
                mean=mean,
                var=var,
                folded_weight=folded_weight,
                folded_bias=folded_bias,
            )


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    cases = Cases()
    observed = data(generator)
    cases.tensors["observed"] = torch.stack(observed)
    record_min_max(cases, observed)
    record_moving_average(cases, generator)
    record_dynamic(cases, observed, generator)
    record_weights(cases, observed)
    record_biases(cases, generator)
    record_folds(cases, generator)
    recording = {"runtime": f"torch {torch.__version__}", "cases": cases.cases}
    save_file(cases.tensors, _FILE, {"recording": json.dumps(recording)})
    kinds = [case["kind"] for case in cases.cases]
    for kind in dict.fromkeys(kinds):
        print(f"{kind}: {kinds.count(kind)} cases")
    print(f"{_FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
