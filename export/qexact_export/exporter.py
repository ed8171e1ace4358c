"""The ``export`` function: check, run, check again, write."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .batch import check_batch
from .document import document_of, recording_of, tensors_of, to_json
from .engine import ENGINES
from .errors import Reasons
from .fixed_point import build_fixed_point_graph, is_brevitas
from .graph import Graph, build_graph, call_site
from .host import producer
from .pt2e import build_pt2e_graph, is_pt2e
from .runs import Recorded, RecordedOnce, check_runs, run
from .writer import write


def export(
    model: torch.nn.Module,
    example_inputs: torch.Tensor | tuple[torch.Tensor, ...],
    path: str | os.PathLike,
    *,
    labels: Any = None,
    full: int = 4,
    accuracy_output: str | None = None,
    annotations: Any = None,
) -> dict[str, Any]:
    """Write a converted model, and a recording of what it computes, to a safetensors file.

    model: a statically quantized model (eager mode or FX graph mode), in eval mode,
        converted for the engine that is selected, or a dynamically quantized one.
    example_inputs: its argument or arguments, the batch in front; all samples are recorded.
    labels: optional class of every sample; with one output, or with ``accuracy_output``, the number
        of samples whose highest score is at the label is recorded too.
    full: of how many samples every value is stored; of the others a digest of every value is.
    accuracy_output: the name of the output to compare with the labels, if there are several.
    annotations: any JSON value that shall travel with the network.

    Returns the document that was written. Raises ExportError, which lists every reason found, and
    then leaves the path as it was.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    labels = None if labels is None else np.asarray(labels).astype(np.int64)
    reasons = Reasons()
    _check_arguments(model, inputs, labels, full, accuracy_output, annotations, reasons)
    reasons.raise_if_any()
    _check_model(model, reasons)

    samples = len(inputs[0])
    if is_brevitas(model):
        graph, recorded, host = build_fixed_point_graph(model, inputs, reasons), RecordedOnce(), producer("brevitas")
    elif is_pt2e(model):
        graph, recorded, host = build_pt2e_graph(model, inputs, reasons), RecordedOnce(), producer("pt2e")
    else:
        graph, recorded, host = *_traced(model, inputs, reasons), producer()
    reasons.raise_if_any()

    full = min(full, samples)
    tensors = tensors_of(graph, recorded, samples, full, labels)
    recording = recording_of(graph, recorded, samples, full, labels, accuracy_output)
    document = document_of(graph, tensors, host, recording, annotations)
    write(Path(path), to_json(document), tensors)
    return document


def _traced(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], reasons: Reasons) -> tuple[Graph, Recorded]:
    """The graph of a model that PyTorch converted, and what its values were."""
    runs = run(model, inputs)
    single = runs.first
    if single.failure:
        site = call_site(single.failure.module, single.failure.operator)
        reasons.add(f"{site}: the model fails on the example inputs: {single.failure.message}")
    graph = build_graph(single, model, reasons)
    check_batch(single, runs.double, runs.samples, graph.refused, reasons)
    check_runs(runs, reasons)
    return graph, Recorded(runs, len(inputs[0]))


def _check_arguments(model, inputs, labels, full, accuracy_output, annotations, reasons: Reasons) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        reasons.add("the model is TorchScript; export the eager model that it was made from")
    elif not isinstance(model, torch.nn.Module):
        reasons.add(f"the model is a {type(model).__name__}, not a torch.nn.Module")
    if not inputs or not all(isinstance(tensor, torch.Tensor) and tensor.dim() > 0 for tensor in inputs):
        reasons.add("example_inputs has to be a tensor or a tuple of tensors, the batch in front")
        return
    samples = len(inputs[0])
    if samples == 0 or any(len(tensor) != samples for tensor in inputs):
        sizes = [len(tensor) for tensor in inputs]
        reasons.add(f"example_inputs have to hold the same number of samples, at least 1, not {sizes}")
    if full < 0:
        reasons.add(f"full has to be at least 0, not {full}")
    if labels is not None and labels.shape != (samples,):
        reasons.add(f"labels has to hold one class for each of {samples} samples, not the shape {list(labels.shape)}")
    if accuracy_output is not None and labels is None:
        reasons.add("accuracy_output needs labels")
    try:
        json.dumps(annotations, allow_nan=False)
    except (TypeError, ValueError) as error:
        reasons.add(f"annotations cannot be written as JSON: {error}")


def _check_model(model: torch.nn.Module, reasons: Reasons) -> None:
    engine = torch.backends.quantized.engine
    if engine not in ENGINES and not is_brevitas(model):
        reasons.add(
            f"the engine is {engine!r}; set torch.backends.quantized.engine to one of {', '.join(ENGINES)} before "
            "the model is prepared and converted"
        )
    # A graph of PyTorch 2 export has the mode that it was captured in.
    if model.training and not is_pt2e(model):
        reasons.add("the model is in training mode; call model.eval() before it is prepared and converted")
