"""Write the file: all of it or nothing, and the same bytes for the same content."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save


def write(path: Path, document: str, tensors: dict[str, np.ndarray]) -> None:
    """Write the whole file beside its place, then move it there: nobody sees half a file."""
    metadata = {"qexact": document, "qexact_digest": hashlib.sha256(document.encode()).hexdigest()}
    content = save({name: np.ascontiguousarray(data) for name, data in tensors.items()}, metadata)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_with_sorted_header(content))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _with_sorted_header(content: bytes) -> bytes:
    """safetensors writes the metadata in a random order; sort it.

    A file begins with the length of its header, 8 bytes, and the header, JSON padded with spaces.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]
