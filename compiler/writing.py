"""Models in files, in the form that the name of the file asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from lvc.compiler import container
from lvc.compiler.backend import Backend, Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.workspace import Workspace


def check_model_suffix(path: Path) -> None:
    """Raise `UsageError` unless `write_model` can write a file of that name."""
    if path.suffix not in _OWN and _keeper(path) is None:
        suffixes = [*filter(None, (backend.model_suffix for backend in _backends())), *_OWN]
        raise UsageError(f"cannot write a model as '{path.name}'", help=f"end the name in {', '.join(suffixes)}")


def keeps_simulation(path: Path) -> bool:
    """Whether who reads a model of that name makes integers of simulated layers; see `Backend`."""
    backend = _keeper(path)
    return backend is not None and backend.keeps_simulation


def write_model(model: Model, path: str | Path, beside: Mapping[str, bytes] | None = None) -> None:
    """Write a model in the form that the file name asks for: ``.onnx``, ``.pt2``, ``.lvc``, ``.safetensors`` (the
    weights alone) or ``.txt`` (the graph).

    An ``.lvc`` file can have more files in it, ``beside`` those of the graph.
    """
    from lvc.compiler.files import write_atomically

    path = Path(path)
    check_model_suffix(path)
    backend = _keeper(path)
    if not backend:
        write_atomically(path, _OWN[path.suffix](model))
        return
    artefact = backend.build(model, Target.parse(next(iter(backend.targets()))), Workspace())
    metadata, files = {**artefact.metadata, **model.usage}, {**artefact.files, **(beside or {})}
    container.write(dataclasses.replace(artefact, metadata=metadata, files=files), path)


def _keeper(path: Path) -> Backend | None:
    """The backend that keeps models in files of such a name; None if that is left to this file, or to nobody."""
    if not path.suffix or path.suffix in _OWN:
        return None
    return next((backend for backend in _backends() if backend.model_suffix == path.suffix), None)


def _backends() -> Iterator[Backend]:
    return map(catalogue.BACKENDS.get, catalogue.BACKENDS.names())


def _printed(model: Model) -> bytes:
    return model.to_text().encode()


def _exported(model: Model) -> bytes:
    import io

    examples = tuple(torch.from_numpy(array) for array in seeded_inputs(model.inputs, 0))
    buffer = io.BytesIO()
    with torch.no_grad():  # stored statistics are parameters like all, and batch_norm has no derivative by them
        torch.export.save(torch.export.export(model.module, examples), buffer)
    return buffer.getvalue()


def _tensors(model: Model) -> bytes:
    """The stored tensors by their names, which are those of the source where these still exist."""
    from safetensors.torch import save

    state = {name: value.detach().contiguous() for name, value in model.module.state_dict().items()}
    return save(state)


_OWN = {".txt": _printed, ".pt2": _exported, ".safetensors": _tensors}
