"""Models in files, in the form that the name of the file asks for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from lvc.compiler import container
from lvc.compiler.backend import Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.workspace import Workspace

MODEL_SUFFIXES = (".onnx", ".pt2", ".lvc", ".txt")


def check_model_suffix(path: Path) -> None:
    """Raise `UsageError` unless `write_model` can write a file of that name."""
    if path.suffix not in MODEL_SUFFIXES:
        raise UsageError(f"cannot write a model as '{path.name}'", help=f"end the name in {', '.join(MODEL_SUFFIXES)}")


def write_model(model: Model, path: Path) -> None:
    """Write a model in the form that the file name asks for: ``.onnx``, ``.pt2``, ``.lvc`` or ``.txt`` (the graph)."""
    from lvc.compiler.files import write_atomically

    check_model_suffix(path)
    if path.suffix == ".txt":
        write_atomically(path, model.to_text().encode())
    elif path.suffix == ".pt2":
        write_atomically(path, _exported(model))
    else:
        target = Target.parse("onnx" if path.suffix == ".onnx" else "reference")
        artefact = catalogue.find_backend(target.backend).build(model, target, Workspace())
        container.write(dataclasses.replace(artefact, metadata={**artefact.metadata, **model.usage}), path)


def _exported(model: Model) -> bytes:
    import io

    examples = tuple(torch.from_numpy(array) for array in seeded_inputs(model.inputs, 0))
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(model.module, examples), buffer)
    return buffer.getvalue()
