"""Traces a function or module, verifies the model, and demands eager PyTorch's outputs of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lvc.compiler.ir.graph import calls, op_name
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.observers import relative_difference


class Function(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: torch.Tensor) -> Any:
        return self.function(*x)


def draw(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def traced(module: torch.nn.Module | Callable[..., Any], *inputs: torch.Tensor, bound: float = 1e-6) -> Model:
    """Return the verified model of a module or function, after comparing it with eager on the inputs."""
    module = module if isinstance(module, torch.nn.Module) else Function(module)
    model = from_module(module.eval(), *inputs)
    verify(model)
    with torch.no_grad():
        eager = module(*[x.clone() for x in inputs])
    wanted = torch.utils._pytree.tree_leaves(eager)
    found = model(*inputs)
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert relative_difference(ours, theirs.numpy()) <= bound
        assert str(ours.dtype) == str(theirs.numpy().dtype)
    return model


def op_names(model: Model) -> list[str]:
    return [op_name(node) for node in calls(model.module.graph)]
