"""How far single precision itself is from the exact result: what a network's own conditioning makes of rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.fx

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.model import Model

_ULP = 2.0**-23
_SATURATING = (aten.sigmoid.default, aten.tanh.default, aten.erf.default, aten.softplus.default)
_GATED = (aten.silu.default, aten.gelu.default, aten.mish.default)


def exact_outputs(model: Model, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...] | None:
    """Run a model in double precision; None if it has parts that are tied to single precision."""
    twin = model.copy().module.double()
    tensors = [torch.from_numpy(array) for array in inputs]
    try:
        with torch.inference_mode():
            outputs = twin(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors))
    except RuntimeError:  # a cast to single precision inside the graph meets double weights
        return None
    return tuple(output.numpy() for output in outputs)


def jittered_outputs(model: Model, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Run a model with every saturating function off by up to a unit in the last place of one, seeded.

    So far engines are from them, which approximate sigmoid, tanh, erf and softplus to an absolute error: near 0, where
    a sigmoid that says "no" everywhere ends, that is many times the rounding of its value.
    """
    with torch.inference_mode():
        found = _Jitter(model.module).run(*map(torch.from_numpy, inputs))
    return tuple(part.numpy() for part in found)


class _Jitter(torch.fx.Interpreter):
    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self._random = torch.Generator().manual_seed(0)

    def run_node(self, node: torch.fx.Node) -> Any:
        result = super().run_node(node)
        if node.target in _SATURATING:
            return result + self._noise(result)
        if node.target in _GATED:
            return result + self._noise(result) * self.env[node.all_input_nodes[0]]
        return result

    def _noise(self, like: torch.Tensor) -> torch.Tensor:
        return (2 * torch.rand(like.shape, generator=self._random) - 1).to(like.dtype) * _ULP
