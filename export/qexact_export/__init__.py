"""Export quantized PyTorch models for qexact.

    from qexact_export import export

    export(model, example_inputs, "net.safetensors")

The file holds the network and a recording of every value PyTorch computed, so that another
implementation can be compared with PyTorch bit by bit. Its format is described in
``model/FORMAT.md`` of the qexact repository.
"""

from .errors import ExportError
from .exporter import export
from .version import __version__

__all__ = ["ExportError", "__version__", "export"]
