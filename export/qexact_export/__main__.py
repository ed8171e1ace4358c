"""Command line: python -m qexact_export MODULE:FUNCTION net.safetensors"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from typing import Any

from .errors import ExportError
from .exporter import export

_DESCRIPTION = """\
Export a quantized PyTorch model and a recording of what it computes.

FUNCTION is called without arguments. It returns (model, example_inputs), or
(model, example_inputs, options) where options is a dict of export()'s keyword arguments.
MODULE is imported; modules in the current directory are found.
"""


class _UserError(Exception):
    """Something the user can put right; the message says what."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="qexact_export",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION")
    parser.add_argument("path", metavar="net.safetensors")
    options = parser.parse_args(arguments)
    sys.path.insert(0, os.getcwd())
    try:
        model, inputs, keywords = _call(options.function)
        document = export(model, inputs, options.path, **keywords)
    except (ExportError, _UserError, OSError) as error:
        print(f"qexact_export: {error}", file=sys.stderr)
        return 2
    print(_summary(options.path, document))
    return 0


def _call(target: str) -> tuple[Any, Any, dict[str, Any]]:
    """Import the module and call the function that makes the model."""
    module_name, _, function_name = target.partition(":")
    if not module_name or not function_name:
        raise _UserError(f"{target!r} is not of the form MODULE:FUNCTION")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise _UserError(f"cannot import {module_name!r}: {_describe(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise _UserError(f"module {module_name!r} has no function {function_name!r}")
    try:
        result = function()
    except Exception as error:
        raise _UserError(f"{target} failed: {_describe(error)}") from error
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        raise _UserError(f"{target} has to return (model, example_inputs) or (model, example_inputs, options)")
    keywords = result[2] if len(result) == 3 else {}
    unknown = set(keywords) - {"labels", "full", "accuracy_output", "annotations"}
    if unknown:
        raise _UserError(f"{target} returned unknown options: {', '.join(sorted(unknown))}")
    return result[0], result[1], keywords


def _describe(error: Exception) -> str:
    """The error and the innermost line it came from, without a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _summary(path: str, document: dict[str, Any]) -> str:
    recording = document["recording"]
    summary = f"{path}: {len(document['nodes'])} nodes, {recording['samples']} samples, {recording['full']} in full"
    if "accuracy" in recording:
        summary += f", {recording['accuracy']['correct']} classified correctly"
    return summary


if __name__ == "__main__":
    sys.exit(main())
