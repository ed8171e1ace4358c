"""The runs of a model that make its recording."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
import torch

from .elementwise import GRANULE, has_tail
from .engine import DYNAMIC
from .errors import Reasons
from .graph import call_site
from .snapshot import Snapshot
from .trace import Trace, trace

Inputs = tuple[torch.Tensor, ...]


@dataclass
class Runs:
    """What the model computed.

    Dynamic quantization makes what a sample gives depend on the batch it is in: then every sample is a batch of
    its own. Batches are repeated until no elementwise kernel has elements left over that it computes by another
    formula than whole vectors.
    """

    batches: list[Trace]
    samples: int
    """Of the first batch, repeated as it was."""
    double: Trace
    """The first batch twice over."""
    each: bool
    """Whether every sample was a batch of its own."""

    @property
    def first(self) -> Trace:
        return self.batches[0]


class Recorded:
    """What the values of the first run were in all of them, without repetitions."""

    def __init__(self, runs: Runs, samples: int):
        self.each = runs.each
        self._runs = runs
        self._batch = 1 if runs.each else samples

    def __getitem__(self, snapshot: Snapshot) -> np.ndarray:
        position = _snapshots(self._runs.first).index(snapshot)
        return np.concatenate([_snapshots(run)[position].data[: self._batch] for run in self._runs.batches])


class RecordedOnce:
    """What the values of a graph were that is not made from traces."""

    each = False

    def __getitem__(self, snapshot: Snapshot) -> np.ndarray:
        return snapshot.data


def run(model: torch.nn.Module, inputs: Inputs) -> Runs:
    samples = len(inputs[0])
    trial = trace(model, inputs)
    each = any(call.operator in DYNAMIC for call in trial.calls)
    batches = list(zip(*(tensor.split(1) for tensor in inputs))) if each else [inputs]
    size = 1 if each else samples
    tails = any(has_tail(call) for call in trial.calls)
    times = GRANULE // gcd(size, GRANULE) if tails else 1
    traces = [trial] if batches == [inputs] and times == 1 else [trace(model, _repeat(b, times)) for b in batches]
    return Runs(traces, size * times, trace(model, _repeat(batches[0], 2 * times)), each)


def check_runs(runs: Runs, reasons: Reasons) -> None:
    """All batches went through the same operators."""
    for other in runs.batches[1:]:
        for one, two in zip(runs.first.calls, other.calls):
            if (one.operator, one.module) != (two.operator, two.module):
                reasons.add(f"{call_site(two.module, two.operator)}: whether it runs depends on the sample")
                return
        if len(runs.first.calls) != len(other.calls):
            reasons.add("the model: how many operators run depends on the sample")
            return


def _repeat(inputs: Inputs, times: int) -> Inputs:
    return tuple(torch.cat([tensor] * times) for tensor in inputs)


def _snapshots(run: Trace) -> list[Snapshot]:
    return run.inputs + [result for call in run.calls for result in call.results]
