"""The importer for ``.pt2`` files, which `torch.export.save` writes. Nothing in such a file is trusted or run.

`torch.export.load` is not used, because a hostile file makes it run code: it unpickles example inputs, tensor
subclasses and custom objects (falling back to ``weights_only=False``), executes the file's ``guards_code``, gives
symbolic expressions to `sympy.sympify`, which evaluates them, looks up any function below ``torch.`` by name, and loads
shared libraries that the archive brings. The parts that a model needs are plain, so they are read here instead: the
graph is JSON, and tensors are raw bytes with their sizes beside them. Only operators that lvc knows are looked up;
open sizes are numbers once the inputs have shapes; custom objects and tensors stored as pickles are refused; all else
in the archive is not opened.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.load.exported_graph import GraphReader
from lvc.compiler.load.exported_tensors import TensorReader
from lvc.compiler.load.normalise.trace import Trace
from lvc.compiler.load.references import trace_reference
from lvc.compiler.load.torch_importer import from_trace
from lvc.compiler.load.widening import widen

SCHEMA = 8
"""The major version of the file format that PyTorch 2.6 and later write."""


def from_exported_file(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
    """Load a program that `torch.export.save` wrote; ``shapes`` fixes the sizes that were left open in its inputs."""
    try:
        traced, notes = _read(path, shapes or {})
        note = widen(traced)
        reference = trace_reference(traced, "the exported program")
        model = from_trace(traced, name=path.stem, source=str(path), reference=reference)
        model.notes += filter(None, [*notes, note])
        return model
    except LvcError as error:
        where = f"{path}, {error.where}" if error.where and str(path) not in error.where else str(path)
        raise type(error)(error.what, where=where, why=error.why, help=error.help) from error
    except Exception as error:  # a graph that makes no sense can fail in any of its calls
        why = "it is not laid out as torch.export.save does it"
        raise CompileError("the file is damaged", where=str(path), why=why) from error


def _read(path: Path, shapes: Mapping[str, Sequence[int]]) -> tuple[Trace, list[str]]:
    if not zipfile.is_zipfile(path):
        help = "write it with torch.export.save(torch.export.export(model, examples), file)"
        raise CompileError("the file is not an exported program", why="it is no zip archive", help=help)
    with TensorReader(path) as tensors:
        program = json.loads(tensors.graph_text())
        version = program["schema_version"]["major"]
        if version != SCHEMA:
            why = f"its format is {version}, and this version of lvc reads {SCHEMA} (PyTorch 2.6 and later)"
            raise CompileError("the file is of another version of PyTorch", why=why)
        reader = GraphReader(program, tensors, _by_name(program, shapes))
        return reader.read(), reader.sizes.notes


def _by_name(program: dict[str, Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Shapes by the names of the program's inputs; ``input``, or no name, stands for the only one."""
    specs = program["graph_module"]["signature"]["input_specs"]
    users = [spec["user_input"]["arg"] for spec in specs if "user_input" in spec]
    known = [arg["as_tensor"]["name"] for arg in users if "as_tensor" in arg]
    named = {known[0] if len(known) == 1 and key in ("", "input") else key: shape for key, shape in shapes.items()}
    for key in named:
        if key not in known:
            raise UsageError(f"--shape: the model has no input '{key}'", help=f"its inputs are: {', '.join(known)}")
    return named
