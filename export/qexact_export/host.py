"""What the recording was made on. Informative: it selects nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import torch

from .version import __version__

_FLAGS = {
    # x86
    "ssse3", "sse4_1", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq",
    "avx512vl", "avx512_vnni", "amx_tile", "amx_int8",
    # Arm
    "asimd", "asimddp", "i8mm", "sve", "sve2",
}  # fmt: skip


def producer(engine: str | None = None) -> dict[str, object]:
    """What ``engine`` computed: the selected one of PyTorch's, its operators for PyTorch 2 export, or Brevitas."""
    brevitas = engine == "brevitas"
    return {
        "framework": "brevitas" if brevitas else "pytorch",
        "version": version("brevitas") if brevitas else torch.__version__,
        "engine": engine or torch.backends.quantized.engine,
        "cpu_capability": _cpu_capability(),
        "cpu_flags": _cpu_flags(),
        "threads": 1,
        "exporter": f"qexact-export {__version__}",
    }


def _cpu_capability() -> str:
    """The instruction set PyTorch uses, and what fbgemm was told to use, if anything."""
    capability = torch.backends.cpu.get_cpu_capability()
    told = os.environ.get("FBGEMM_ENABLE_INSTRUCTIONS")
    return f"{capability} FBGEMM_ENABLE_INSTRUCTIONS={told}" if told else capability


def _cpu_flags() -> list[str]:
    """The instruction set extensions that matter here; the machine's name if it lists none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            words = set(file.read().lower().split())
    except OSError:
        words = set()
    return sorted(words & _FLAGS) or [platform.machine()]
