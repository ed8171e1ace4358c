"""The document and the tensors of an export, from the graph of a run."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Sequence

import numpy as np

from .errors import ExportError
from .graph import Graph, Node, Value
from .runs import Recorded, RecordedOnce
from .snapshot import DTYPES

FORMAT = 1
_LABELS = "record.labels"


def tensors_of(
    graph: Graph, recorded: Recorded | RecordedOnce, samples: int, full: int, labels: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Every tensor of the file: parameters, the first samples in full, digests of the others."""
    tensors = {}
    for node in graph.nodes:
        for parameter, data in node.operator.parameters.items():
            tensors[f"{node.name}.{parameter}"] = data
    for value in graph.inputs:
        tensors[f"record.{value.name}"] = recorded[value.snapshot]
    for value in graph.computed:
        if full > 0:
            tensors[f"record.{value.name}"] = recorded[value.snapshot][:full]
        if samples > full:
            tensors[f"digest.{value.name}"] = _digest_samples(recorded[value.snapshot][full:])
    if labels is not None:
        tensors[_LABELS] = labels
    return tensors


def document_of(
    graph: Graph,
    tensors: dict[str, np.ndarray],
    host: dict[str, Any],
    recording: dict[str, Any],
    annotations: Any,
) -> dict[str, Any]:
    document = {
        "format": FORMAT,
        "producer": host,
        "numerics": host["engine"],
        "inputs": [{"name": value.name} for value in graph.inputs],
        "outputs": [{"name": value.name} for value in graph.outputs],
        "values": [_value(value) for value in graph.inputs + graph.computed],
        "nodes": [_node(node) for node in graph.nodes],
        "digests": {name: hashlib.sha256(data.tobytes()).hexdigest() for name, data in tensors.items()},
        "recording": recording,
    }
    if annotations is not None:
        document["annotations"] = annotations
    return document


def recording_of(
    graph: Graph,
    recorded: Recorded | RecordedOnce,
    samples: int,
    full: int,
    labels: np.ndarray | None,
    accuracy_output: str | None,
) -> dict[str, Any]:
    recording: dict[str, Any] = {"samples": samples, "full": full}
    if recorded.each:
        recording["batch"] = 1
    if labels is None:
        return recording
    recording["labels"] = _LABELS
    output = _accuracy_output(graph, accuracy_output)
    if output is not None:
        recording["accuracy"] = {
            "output": output.name,
            "correct": _count_correct(output, recorded[output.snapshot], labels),
        }
    return recording


def to_json(document: dict[str, Any]) -> str:
    """Compact JSON. Python prints floats so that they read back unchanged."""
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


def _value(value: Value) -> dict[str, Any]:
    snapshot = value.snapshot
    entry = {
        "name": value.name,
        "dtype": DTYPES[snapshot.dtype],
        "shape": list(snapshot.shape[1:]),
    }
    if snapshot.scale is not None:
        entry["scale"] = snapshot.scale
        entry["zero_point"] = snapshot.zero_point
        if snapshot.bits != 8:
            entry["bits"] = snapshot.bits
    entry["memory"] = snapshot.memory
    return entry


def _node(node: Node) -> dict[str, Any]:
    entry = {
        "name": node.name,
        "op": node.operator.op,
        "inputs": [value.name for value in node.inputs],
        "outputs": [node.output.name],
        "attributes": node.operator.attributes,
    }
    if node.operator.rule is not None:
        entry["rule"] = node.operator.rule
    return entry


def _digest_samples(data: np.ndarray) -> np.ndarray:
    digests = [hashlib.sha256(np.ascontiguousarray(sample).tobytes()).digest() for sample in data]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(data), 32)


def _accuracy_output(graph: Graph, name: str | None) -> Value | None:
    """The output to compare with the labels: the one that is named, or else the only one."""
    if name is None:
        return graph.outputs[0] if len(graph.outputs) == 1 else None
    for output in graph.outputs:
        if output.name == name:
            return output
    names = ", ".join(output.name for output in graph.outputs)
    raise ExportError([f"accuracy_output is {name!r}, but the outputs are {names}"])


def _count_correct(output: Value, scores: np.ndarray, labels: Sequence[int]) -> int:
    if scores.ndim < 2 or scores.size != len(scores) * scores.shape[-1]:
        shape = list(scores.shape[1:])
        raise ExportError([f"output {output.name!r} has the shape {shape} a sample: not one row of class scores"])
    best = scores.reshape(len(scores), -1).argmax(axis=1)  # the lowest index wins
    return int((best == np.asarray(labels)).sum())
