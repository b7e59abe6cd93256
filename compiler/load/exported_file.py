"""The door for ``.pt2`` files, which `torch.export.save` writes. Nothing in such a file is trusted or run.

`torch.export.load` is not used, because a hostile file makes it run code: it unpickles example inputs, tensor
subclasses and custom objects (falling back to ``weights_only=False``), executes the file's ``guards_code``, gives
symbolic expressions to `sympy.sympify`, which evaluates them, looks up any function below ``torch.`` by name, and loads
shared libraries that the archive brings. The parts that a model needs are plain, so they are read here instead: the
graph is JSON, and tensors are raw bytes with their sizes beside them. Only operators that lvc knows are looked up;
symbolic sizes, custom objects and tensors stored as pickles are refused; all else in the archive is not opened.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.load.exported_graph import GraphReader
from lvc.compiler.load.exported_tensors import TensorReader
from lvc.compiler.load.normalise.trace import Trace
from lvc.compiler.load.references import trace_reference
from lvc.compiler.load.torch_door import from_trace
from lvc.compiler.model import Model

SCHEMA = 8
"""The major version of the file format that PyTorch 2.6 and later write."""


def from_exported_file(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
    """Load a program that `torch.export.save` wrote; its input shapes are those that it was exported with."""
    try:
        traced = _read(path)
        _check_shapes(traced, shapes or {})
        reference = trace_reference(traced, "the exported program")
        return from_trace(traced, name=path.stem, source=str(path), reference=reference)
    except LvcError as error:
        where = f"{path}, {error.where}" if error.where and str(path) not in error.where else str(path)
        raise type(error)(error.what, where=where, why=error.why, help=error.help) from error
    except Exception as error:  # a graph that makes no sense can fail in any of its calls
        why = "it is not laid out as torch.export.save does it"
        raise CompileError("the file is damaged", where=str(path), why=why) from error


def _read(path: Path) -> Trace:
    if not zipfile.is_zipfile(path):
        help = "write it with torch.export.save(torch.export.export(model, examples), file)"
        raise CompileError("the file is not an exported program", why="it is no zip archive", help=help)
    with TensorReader(path) as tensors:
        program = json.loads(tensors.graph_text())
        version = program["schema_version"]["major"]
        if version != SCHEMA:
            why = f"its format is {version}, and this version of lvc reads {SCHEMA} (PyTorch 2.6 and later)"
            raise CompileError("the file is of another version of PyTorch", why=why)
        return GraphReader(program["graph_module"], tensors).read()


def _check_shapes(traced: Trace, shapes: Mapping[str, Sequence[int]]) -> None:
    known = dict(traced.inputs.values())
    for key, shape in shapes.items():
        name = next(iter(known)) if key in ("", "input") and key not in known and len(known) == 1 else key
        if name not in known:
            raise UsageError(f"--shape: the model has no input '{key}'", help=f"its inputs are: {', '.join(known)}")
        if known[name].shape != tuple(shape):
            raise UsageError(
                f"--shape: the shape of input '{name}' was fixed when the file was exported",
                why=f"it is {known[name]}",
                help="export the model again, on examples of the wanted shape",
            )
