"""The three importers: a description as a graph of the dialect, as a PyTorch module, as an ONNX file."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torchvision

from fuzzing.program import Program, draw
from lvc.compiler.ir.graph import store
from lvc.compiler.load import from_module

if TYPE_CHECKING:
    from lvc.compiler.ir.model import Model
    from lvc.compiler.load.request import LoadRequest

IMPORTERS = ("ir", "torch", "onnx")


@contextmanager
def opened(program: Program, importer: str, opset: int = 17) -> Iterator[tuple[LoadRequest | Model, Model]]:
    """What an importer is given, for as long as it lies there, and the model that it makes of it."""
    with tempfile.TemporaryDirectory(prefix="lvc-fuzz-") as folder:
        if importer == "ir":
            model = graph(program)
            yield model, model
            return
        if importer == "torch" and not all(spec.dtype.is_floating_point for spec in program.inputs.values()):
            model = _traced(program)
            yield model, model
            return
        request = _request(program, importer, opset, Path(folder))
        yield request, request.load()


def _request(program: Program, importer: str, opset: int, folder: Path) -> LoadRequest:
    """An ONNX file, or a Python file with a factory."""
    from lvc.compiler.load.request import LoadRequest

    if importer == "onnx":
        from fuzzing.onnx_file import write

        file = folder / "model.onnx"
        file.write_bytes(write(program, opset).SerializeToString())
        return LoadRequest(str(file))
    from fuzzing.torch_source import source

    file = folder / "nets.py"
    file.write_text(f"{_HEAD}\n\n{inspect.getsource(draw)}\n\n{source(program)}\n\ndef make():\n    return Net()\n")
    return LoadRequest(f"{file}:make", shapes={name: spec.shape for name, spec in program.inputs.items()})


def _traced(program: Program) -> Model:
    """A module traced here, since a factory is called with floating-point inputs."""

    examples = [torch.zeros(spec.shape, dtype=spec.dtype) for spec in program.inputs.values()]
    return from_module(module(program), *examples)


_HEAD = """import zlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
"""


def graph(program: Program) -> Model:
    from lvc.compiler.ir.graph_text import parse_model

    return fill(parse_model(str(program)))


def fill(model: Model) -> Model:
    """Give each stored tensor of a parsed model the values that its name says."""
    for name, tensor in model.module.state_dict().items():
        value = torch.from_numpy(draw(name, list(tensor.shape)))
        store(model.module, name, value, trainable=value.is_floating_point() and not name.startswith(("mean", "var")))
    return model


def module(program: Program) -> torch.nn.Module:
    from fuzzing.torch_source import source

    names: dict[str, object] = {"torch": torch, "F": torch.nn.functional, "torchvision": torchvision, "draw": draw}
    exec(source(program), names)
    made = names["Net"]
    assert isinstance(made, type)
    net = made()
    assert isinstance(net, torch.nn.Module)
    return net.eval()
