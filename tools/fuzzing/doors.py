"""The three doors: a description as a graph of the dialect, as a PyTorch module, as an ONNX file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fuzzing.program import Program, draw

if TYPE_CHECKING:
    from lvc.compiler.model import Model

DOORS = ("ir", "torch", "onnx")


def load(program: Program, door: str, opset: int = 17) -> Model:
    """The model that a door makes of a program."""
    if door == "ir":
        return graph(program)
    if door == "torch":
        from lvc.compiler.model import Model

        return Model.from_module(module(program), *examples(program))
    from fuzzing.onnx_file import write
    from lvc.compiler.load.onnx_door import from_onnx

    with tempfile.TemporaryDirectory(prefix="lvc-fuzz-") as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(write(program, opset).SerializeToString())
        return from_onnx(file)


def graph(program: Program) -> Model:
    from lvc.compiler.graph_text import parse_model

    return fill(parse_model(str(program)))


def fill(model: Model) -> Model:
    """Give each stored tensor of a parsed model the values that its name says."""
    for name, tensor in model.module.state_dict().items():
        tensor.copy_(torch.from_numpy(draw(name, list(tensor.shape))))
    return model


def module(program: Program) -> torch.nn.Module:
    from fuzzing.torch_source import source

    names: dict[str, object] = {"torch": torch, "F": torch.nn.functional, "draw": draw}
    exec(source(program), names)
    made = names["Net"]
    assert isinstance(made, type)
    net = made()
    assert isinstance(net, torch.nn.Module)
    return net.eval()


def examples(program: Program) -> list[torch.Tensor]:
    return [torch.zeros(spec.shape, dtype=spec.dtype) for spec in program.inputs.values()]
