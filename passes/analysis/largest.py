"""How large the values of a model get, and what of it half precision would not hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Interpreter, Node

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.ir.bounds import FLOAT16, FLOAT16_TERMS
from lvc.compiler.ir.graph import tensor
from lvc.compiler.ir.layers import contraction, factors
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.workspace import Workspace

HEADROOM = 4.0
"""How many times as large as those that were seen values may be."""

_IMAGES, _DATA = 8, "calib"


@dataclass(frozen=True)
class Largest:
    """The largest magnitude of each value over a few inputs, infinite where one is no number; empty of nothing seen."""

    of_value: Mapping[Node, float] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, workspace: Workspace) -> Largest:
        """What is found on seeded inputs and on images of the data set ``calib``."""
        found: dict[Node, float] = {}
        watch = _Watch(model.module, found)
        with torch.inference_mode():
            for inputs in _inputs(model, workspace):
                watch.run(*map(torch.from_numpy, inputs))
        return cls(found)

    @property
    def too_large(self) -> frozenset[Node]:
        """Values that half precision may not hold."""
        return frozenset(node for node, most in self.of_value.items() if not most * HEADROOM <= FLOAT16)

    def refusal(self, module: GraphModule, node: Node) -> str | None:
        """Why a contraction cannot be computed in half precision; None if it can, or if nothing is known."""
        if not self.of_value:
            return None
        left, right = factors(node)
        for factor in (left, right):
            if tensor(module, factor) is not None and not self._most(module, factor) <= FLOAT16:
                return f"its weight reaches {self._most(module, factor):.3g}, and float16 no more than {FLOAT16:.0f}"
            if factor in self.too_large:
                return f"'{factor.name}' reaches {self._most(module, factor):.3g}, too near to float16's {FLOAT16:.0f}"
        weight = tensor(module, right)
        gain = _gain(weight, node) if weight is not None else self._most(module, right) * FLOAT16_TERMS
        if not (most := HEADROOM * gain * self._most(module, left)) <= FLOAT16:
            return f"sums of {FLOAT16_TERMS} products could reach {most:.3g}, and float16 no more than {FLOAT16:.0f}"
        return None

    def _most(self, module: GraphModule, factor: Node) -> float:
        stored = tensor(module, factor)
        return self.of_value.get(factor, float("inf")) if stored is None else _magnitude(stored)


class _Watch(Interpreter):
    """Notes how large every value gets."""

    def __init__(self, module: GraphModule, found: dict[Node, float]) -> None:
        super().__init__(module)
        self._found = found

    def run_node(self, node: Node) -> Any:
        result = super().run_node(node)
        if isinstance(result, torch.Tensor) and result.is_floating_point() and node.op != "get_attr":
            self._found[node] = max(self._found.get(node, 0.0), _magnitude(result))
        return result


def _magnitude(values: torch.Tensor) -> float:
    most = float(values.detach().abs().max()) if values.numel() else 0.0
    return float("inf") if math.isnan(most) else most


def _gain(weight: torch.Tensor, node: Node) -> float:
    """How many times as large as its data a part of the sums of a contraction can get: the largest weights at once."""
    known = weight.detach().abs().float()
    rows = known.movedim(contraction(node).made, 0).flatten(1) if known.dim() > 1 else known[None]
    return float(rows.topk(min(FLOAT16_TERMS, rows.shape[1])).values.sum(1).max())


def _inputs(model: Model, workspace: Workspace) -> Iterator[tuple[np.ndarray, ...]]:
    yield seeded_inputs(model.inputs, workspace.seed)
    if _DATA in workspace.data and len(model.inputs) == 1:
        batch = model.inputs[0].spec.shape[0]
        images = [image for image, _ in islice(iter(workspace.data_set(_DATA)), max(_IMAGES, batch))]
        for first in range(0, len(images) - batch + 1, batch):
            yield (np.concatenate(images[first : first + batch]),)
