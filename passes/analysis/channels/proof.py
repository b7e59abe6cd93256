"""The proof that a removal left every index map as it was.

Each element of the operands of a movement gets a number. The call as it was moves all of them; the call as it is now
moves those which are left. Of the first result, what is left must be the second: each remaining element stands where it
stood among those that remain. Sizes written in calls (reshape, slice, padding) cannot be wrong unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import op_name, origin, spec, tensor
from lvc.compiler.ir.model import Model

Kept = Mapping[str, tuple[torch.Tensor | None, ...]]
"""Which indices of each dimension stay, by node name: ``bool[n]``, or None where all do."""

_INDEX_PLACE = {aten.index_select.default: 2, aten.gather.default: 2, aten.embedding.default: 1}


def cut(value: torch.Tensor, masks: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Keep the marked indices of each dimension."""
    for dim, mask in enumerate(masks):
        if mask is not None:
            value = value.index_select(dim, mask.nonzero()[:, 0])
    return value


class Movement:
    """A movement as it was before a removal."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.args, self.kwargs = node.args, node.kwargs
        self.shapes = {operand: spec(operand).shape for operand in node.all_input_nodes}

    def prove(self, model: Model, kept: Kept) -> None:
        """Raise `CompileError` unless the call moves what is left as it did."""
        if all(mask is None for name in (self.node, *self.shapes) for mask in kept[name.name]):
            return
        place = _INDEX_PLACE.get(self.node.target)  # type: ignore[call-overload]
        index = None if place is None else self.args[place]
        numbers = self._numbers(model, index)
        if numbers is None:
            return
        left = {operand: cut(value, kept[operand.name]) for operand, value in numbers.items()}
        before = cut(self._run(self.args, self.kwargs, numbers), kept[self.node.name])
        if not torch.equal(before, self._run(self.node.args, self.node.kwargs, left)):
            raise CompileError(
                f"channels cannot be removed through {op_name(self.node)}",
                where=origin(self.node),
                why="those that stay would not stand where they stood",
            )

    def _numbers(self, model: Model, index: Any) -> dict[Node, torch.Tensor] | None:
        """Number the elements of all operands; an index is taken as it is, and None comes back if it is computed."""
        numbers, start = {}, 0
        for operand, shape in self.shapes.items():
            if operand is index:
                known = tensor(model.module, operand)
                if known is None:
                    return None
                numbers[operand] = known
                continue
            count = torch.Size(shape).numel()
            numbers[operand] = torch.arange(start, start + count, dtype=torch.float64).view(shape)
            start += count
        return numbers

    def _run(self, args: Any, kwargs: Any, values: Mapping[Node, torch.Tensor]) -> torch.Tensor:
        if self.node.target is aten.constant_pad_nd.default:
            args = (*args[:2], -1.0)
        moved = self.node.target(*map_arg(args, values.__getitem__), **map_arg(kwargs, values.__getitem__))  # type: ignore[operator]
        assert isinstance(moved, torch.Tensor)
        return moved
