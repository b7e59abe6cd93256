"""Where what a layer gives is added to another value, so that it can make up for what that value lacks.

In a residual network each block adds to a stream that the blocks before it have left inexact. A layer that closes a
block and is fitted to its own former result leaves the stream as wrong as it was; fitted to the former sum less what
the stream is now, it mends as much of that as its inputs can tell. Source: He et al., "Channel pruning for accelerating
very deep neural networks", 2017, section 3.3 (residual architecture).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, is_call, spec
from lvc.passes.analysis.affine import batch_norm_affine

_LEAST_SCALE = 1e-3
"""A channel that batch normalisation scales by less, relative to its largest scale, is not solved for the sum."""

_UNDONE = (aten.reshape.default, aten.permute.default, aten.roll.default)


@dataclass(frozen=True)
class Junction:
    """A layer's only way on: ``total = moved(norm(layer)) + other``; ``norm`` is None where there is none, and
    ``moves`` are the calls that move its result, in order."""

    total: Node
    other: Node
    norm: Node | None
    moves: tuple[Node, ...] = ()

    def wanted(self, module: GraphModule, total: torch.Tensor, other: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Return what the layer shall give for the sum to be ``total`` beside ``other``, both moved back by `undo`.

        ``own`` is what it gave before: that stays for channels of which normalisation leaves next to nothing, and for
        all of them where the normalisation is computed in the graph.
        """
        lacking = total - other
        if self.norm is None:
            return lacking
        affine = batch_norm_affine(module, self.norm)
        if isinstance(affine, str):
            return own
        scale, shift = (part.to(own.dtype).view(-1, *[1] * (own.ndim - 2)) for part in (affine.scale, affine.shift))
        speaks = scale.abs() > _LEAST_SCALE * scale.abs().max()
        return torch.where(speaks, (lacking - shift) / scale.where(speaks, torch.ones(())), own)


def find_junction(layer: Node, fitted: Collection[Node]) -> Junction | None:
    """Return the sum that a layer's result goes into and nothing else does, if the rest of it is computed before.

    None if one of the layers to be ``fitted`` lies between the layer and the sum: that one is the last to mend it.
    """
    norm = _only_user(layer)
    if norm is not None and not is_call(norm, aten.batch_norm.default):
        norm = None
    given, moves = norm or layer, list[Node]()
    while (user := _only_user(given)) and is_call(user, *_UNDONE):
        moves.append(user)
        given = user
    total = _only_user(given)
    if total is None or not is_call(total, aten.add.Tensor) or arguments(total)["alpha"] != 1:
        return None
    other = next((operand for operand in total.args[:2] if operand is not given), None)
    if not isinstance(other, Node) or other.op != "call_function" or spec(other).shape != spec(given).shape:
        return None
    between = _between(layer, total)
    if other in between or not between.isdisjoint(fitted):
        return None
    return Junction(total, other, norm, tuple(moves))


def undo(moves: Sequence[Node], value: torch.Tensor) -> torch.Tensor:
    """Return what calls have moved to a value."""
    for move in reversed(moves):
        args = arguments(move)
        if is_call(move, aten.reshape.default):
            value = value.reshape(spec(move.all_input_nodes[0]).shape)
        elif is_call(move, aten.permute.default):
            value = value.permute(sorted(range(value.ndim), key=[dim % value.ndim for dim in args["dims"]].__getitem__))
        else:
            value = torch.roll(value, [-shift for shift in args["shifts"]], args["dims"])
    return value


def _only_user(node: Node) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _between(first: Node, last: Node) -> set[Node]:
    found: set[Node] = set()
    node = first.next
    while node is not last:
        found.add(node)
        node = node.next
    return found
