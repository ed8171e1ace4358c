"""Read an export back without the code that wrote it."""

import hashlib
import json

import numpy as np
from safetensors import safe_open

NUMPY_DTYPES = {"u8": np.uint8, "i8": np.int8, "f32": np.float32}

_PARAMETERS = {
    "weight": np.int8,
    "weight_scale": np.float64,
    "weight_zero_point": np.int32,
    "bias": np.float32,
}
_BATCH_NORM_PARAMETERS = dict.fromkeys(["weight", "bias", "running_mean", "running_var"], np.float32)


def read(path):
    """The document and the tensors of a file, after checking the digest of every byte."""
    with safe_open(path, "np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    assert sorted(metadata) == ["qexact", "qexact_digest"]
    assert hashlib.sha256(metadata["qexact"].encode()).hexdigest() == metadata["qexact_digest"]
    document = json.loads(metadata["qexact"])
    digests = {name: hashlib.sha256(data.tobytes()).hexdigest() for name, data in tensors.items()}
    assert document["digests"] == digests
    return document, tensors


def by_name(entries):
    names = [entry["name"] for entry in entries]
    assert len(set(names)) == len(names)
    return dict(zip(names, entries))


def check_structure(document, tensors):
    """Everything that can be checked without knowing the model: names resolve, shapes agree, nothing is left over."""
    values = by_name(document["values"])
    by_name(document["nodes"])
    inputs = [entry["name"] for entry in document["inputs"]]
    known, expected = set(inputs), set()
    for node in document["nodes"]:
        assert set(node["inputs"]) <= known
        assert len(node["inputs"]) >= len(node["outputs"]) == 1
        known.update(node["outputs"])
        for parameter, dtype in parameters_of(node, tensors).items():
            assert tensors[f"{node['name']}.{parameter}"].dtype == dtype
            expected.add(f"{node['name']}.{parameter}")
    assert known == set(values)
    assert {entry["name"] for entry in document["outputs"]} <= known
    recording = document["recording"]
    samples, full = recording["samples"], recording["full"]
    for name, value in values.items():
        assert ("scale" in value) == ("zero_point" in value) == (value["dtype"] != "f32")
        stored = samples if name in inputs else full
        if stored:
            data = tensors[f"record.{name}"]
            assert data.dtype == NUMPY_DTYPES[value["dtype"]]
            assert list(data.shape) == [stored, *value["shape"]]
            expected.add(f"record.{name}")
        if name not in inputs and samples > full:
            assert tensors[f"digest.{name}"].shape == (samples - full, 32)
            assert tensors[f"digest.{name}"].dtype == np.uint8
            expected.add(f"digest.{name}")
    if "labels" in recording:
        assert tensors[recording["labels"]].dtype == np.int64
        expected.add(recording["labels"])
    assert set(tensors) == expected


def parameters_of(node, tensors):
    """The parameters of the node's operator and their types; the bias unless there is none."""
    if node["op"] == "table":
        return {"table": tensors[f"{node['name']}.table"].dtype}
    if node["op"] == "batch_norm2d":
        return _BATCH_NORM_PARAMETERS
    if node["op"].startswith(("linear", "conv")):
        without = set() if f"{node['name']}.bias" in tensors else {"bias"}
        parameters = {name: dtype for name, dtype in _PARAMETERS.items() if name not in without}
        if node["rule"]["kind"] == "pow2" and "bias" in parameters:
            parameters["bias"] = np.int32
        return parameters
    return {}
