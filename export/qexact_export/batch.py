"""Prove that the first axis of every value is the batch, by running the model on a batch twice as large."""

from __future__ import annotations

import numpy as np

from .errors import Reasons
from .graph import call_site
from .snapshot import Snapshot
from .trace import Call, Trace


def check_batch(single: Trace, double: Trace, samples: int, refused: set[Call], reasons: Reasons) -> None:
    """Compare a run on the samples with a run on the same samples twice over.

    Every operator has to turn operands that are doubled into results that are doubled. Calls that
    are refused anyway are left out, and so are those whose operands were spoilt before.
    """
    for one, two in zip(single.calls, double.calls):
        site = call_site(one.module, one.operator)
        if (one.operator, one.module) != (two.operator, two.module):
            other = call_site(two.module, two.operator)
            reasons.add(f"{site}: runs for {samples} samples, but for {2 * samples} it is {other}")
            return
        if one in refused or not _operands_are_doubled(one, two, samples):
            continue
        for before, after in zip(one.results, two.results):
            problem = _problem(before, after, samples)
            if problem:
                reasons.add(f"{site}: {problem}")
    if double.failure and not single.failure:
        failure = double.failure
        site = call_site(failure.module, failure.operator)
        reasons.add(f"{site}: fails for {2 * samples} samples after working for {samples}: {failure.message}")
    elif len(single.calls) != len(double.calls):
        longer = max(single.calls, double.calls, key=len)
        first = longer[min(len(single.calls), len(double.calls))]
        site = call_site(first.module, first.operator)
        reasons.add(f"{site}: whether it runs depends on the batch size")


def _operands_are_doubled(one: Call, two: Call, samples: int) -> bool:
    pairs = zip(one.operands(), two.operands())
    return all(_problem(before, after, samples) is None for before, after in pairs)


def _problem(before: Snapshot, after: Snapshot, samples: int) -> str | None:
    """Why ``after`` is not ``before`` twice over, or None if it is."""
    if not before.shape or before.shape[0] != samples:
        return f"the first axis of its result {list(before.shape)} is not the batch of {samples}"
    expected = (2 * samples, *before.shape[1:])
    if after.shape != expected:
        return (
            f"the batch size is baked in: for {2 * samples} samples its result has the shape "
            f"{list(after.shape)} instead of {list(expected)}"
        )
    if (before.scale, before.zero_point) != (after.scale, after.zero_point):
        return "its quantization depends on the batch"
    if before.memory != after.memory:
        return "the memory layout of its result depends on the batch size"
    if before.data is not None and after.data is not None:
        if np.concatenate([before.data, before.data]).tobytes() != after.data.tobytes():
            return "its result for a sample depends on the other samples of the batch"
    return None
