"""Where what a layer makes is read, and where a layer reads what a product gives: through movements and scales alone.

Both are told channel by channel and head by head, with the calls that would bring narrower heads to the same place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, is_call, op_name, spec
from lvc.compiler.ir.layers import MATRIX_LAYERS, channel_dim, factors, group_count
from lvc.passes.analysis.arrangement import Arrangement, Axis, dimensions

BatchAxes = tuple[tuple[tuple[int, bool], ...], ...]
"""Of each batch dimension of an operand the sizes of its axes, and whether they number heads."""

_MOVEMENTS = (aten.reshape.default, aten.permute.default, aten.slice.Tensor)
_IRREGULAR = "their elements do not follow each other in regular steps"


@dataclass(frozen=True, eq=False)
class Reading:
    """A value in which what a layer makes is read, ``scale`` times.

    ``rows`` are the channels that are in it, ``i64[heads, width]``. ``arrangement`` makes it of the result of a layer
    with these channels alone, heads first; ``narrow`` is the axis of the width in that.
    """

    layer: Node
    value: Node
    scale: float
    rows: torch.Tensor
    arrangement: Arrangement
    narrow: int
    batch: BatchAxes = ()


@dataclass(frozen=True, eq=False)
class Handing:
    """A layer that reads what a product gives, ``scale`` times.

    ``columns`` are the channels as which it reads those of the product, ``i64[heads, width]``. ``arrangement`` makes
    what a layer reads with these channels alone, heads first; ``narrow`` is the axis of the width in that.
    """

    layer: Node
    value: Node
    scale: float
    columns: torch.Tensor
    arrangement: Arrangement
    narrow: int


def step_back(node: Node) -> tuple[Node, float] | None:
    """What a call moves or scales by a number, and by which; None for any other call."""
    if is_call(node, *_MOVEMENTS, aten.dropout.default):
        return node.all_input_nodes[0], 1.0
    if is_call(node, aten.mul.Tensor, aten.div.Tensor):
        factor = arguments(node)["other"]
        if isinstance(factor, int | float) and factor:
            return node.all_input_nodes[0], float(factor) if is_call(node, aten.mul.Tensor) else 1 / factor
    return None


def ends(source: Node) -> Iterator[tuple[Node, Node]]:
    """Yield the values in which a result is read by other calls than those that move or scale it, with the readers."""
    for user in source.users:
        if step_back(user):
            yield from ends(user)
        else:
            yield source, user


def _trace(value: Node, source: Node | None = None) -> tuple[Node, float, torch.Tensor]:
    """What a value is moved from, back to ``source`` if that is given, its scale, and where each element is there."""
    moves, scale, node = list[Node](), 1.0, value
    while node is not source and (step := step_back(node)):
        moves.append(node)
        node, factor = step
        scale *= factor
    index = torch.arange(spec(node).elements).view(spec(node).shape)
    for move in reversed(moves):
        if is_call(move, *_MOVEMENTS):
            index = move.target(index, *move.args[1:], **move.kwargs)  # type: ignore[operator]
    return node, scale, index


def read(value: Node, dim: int | None = None) -> Reading | str:
    """How a value is read from a layer, or why it is not; ``dim``, counted from the end, holds the channels of a head,
    the other one of the last two does not, and those before them number heads. Without it channels keep their order."""
    layer, scale, index = _trace(value)
    if reason := _no_layer(layer):
        return reason
    found = dimensions(index)
    if found is None:
        return _IRREGULAR
    axis, shape = channel_dim(layer), spec(layer).shape
    steps = _steps(shape)
    whole = shape[axis] * steps[axis]
    dims = [[part for one in dim for part in one.split((steps[axis], whole))] for dim in found]
    axes = [one for dim in dims for one in dim]
    channels = [one for one in axes if steps[axis] <= one.step < whole]
    before, behind = ([one for one in axes if one.step >= whole], [one for one in axes if one.step < steps[axis]])
    if not (_fill(before, whole, math.prod(shape) or 1) and _fill(behind, 1, steps[axis])):
        return "only some of their places are read"
    heads = channels = sorted(channels, key=lambda one: -one.step) if dim is None else channels
    if dim is not None:
        inside = [one for one in dims[dim] if one in channels]
        if len(inside) != 1 or len(dims[dim]) != 1 or any(one in channels for one in dims[-3 - dim]):
            return "a head's channels do not lie along one dimension of the product"
        heads = [one for one in channels if one not in inside]
        channels = [*heads, *inside]
    rows = torch.tensor(int(index.reshape(-1)[0]) // steps[axis] % shape[axis])
    for one in channels:
        rows = rows[..., None] + torch.arange(one.size) * (one.step // steps[axis])
    if len(set(rows.flatten().tolist())) < rows.numel():
        return "heads share them"
    order = [*_in_order(shape[:axis], steps[:axis], before), *channels]
    arrangement = _arrange([*order, *_in_order(shape[axis + 1 :], steps[axis + 1 :], behind)], dims)
    batch = tuple(tuple((one.size, one in heads) for one in dim) for dim in dims[:-2])
    width = channels[-1].size if channels else 1
    return Reading(layer, value, scale, rows.reshape(-1, width), arrangement, len(order) - 1, batch)


def hand_over(product: Node, reading: Reading, dim: int) -> Handing | str:
    """How the result of a product is read by a layer, or why it is not; ``reading`` is its operand with the channels of
    a head, which the result has in ``dim``, counted from the end."""
    found = list(ends(product))
    if len(found) != 1:
        return f"what they give is read in {len(found)} places"
    ((value, layer),) = found
    if reason := _no_layer(layer, "what they give goes"):
        return reason
    if factors(layer)[0] is not value or value in factors(layer)[1:]:
        return "what they give is a weight"
    _, scale, index = _trace(value, product)
    found_dims = dimensions(index)
    shape = spec(product).shape
    steps = _steps(shape)
    heads, boundaries = _head_axes(reading.batch, steps)
    if found_dims is None or shape[dim] == 1:
        return _IRREGULAR
    dims = [[part for one in dim_ for part in one.split((*boundaries, *steps))] for dim_ in found_dims]
    axes = [one for dim_ in dims for one in dim_]
    width = Axis(shape[dim], steps[dim])
    along = dims[channel_dim(layer, value)]
    if not _fill(axes, 1, math.prod(shape)):
        return "only some of what they give is read"
    if set(along) != {*heads, width}:
        return "what they give is not put side by side head by head"
    order = _in_order(shape, steps, axes)
    columns = torch.zeros((), dtype=torch.int64)
    for one in (*heads, width):
        columns = columns[..., None] + torch.arange(one.size) * math.prod(a.size for a in along[along.index(one) + 1 :])
    dims[channel_dim(layer, value)] = [*heads, width]
    arrangement = _arrange(order, dims)
    return Handing(layer, value, scale, columns.reshape(-1, width.size), arrangement, order.index(width))


def _no_layer(node: Node, told: str = "they go") -> str | None:
    if node.op == "placeholder":
        return "they are an input of the model"
    if node.op == "get_attr":
        return "they are stored, and no layer makes them"
    if node.op == "output":
        return "what they give is an output of the model"
    if not is_call(node, *MATRIX_LAYERS):
        return f"{told} through {op_name(node)}"
    return None if group_count(node) == 1 else f"{told} through {op_name(node)} in {group_count(node)} groups"


def _steps(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[place + 1 :]) for place in range(len(shape))]


def _fill(axes: Sequence[Axis], first: int, end: int) -> bool:
    """Whether axes count every place from one step to the end, each once."""
    for axis in sorted(axes, key=lambda one: one.step):
        if axis.step != first:
            return False
        first *= axis.size
    return first == end


def _in_order(shape: Sequence[int], steps: Sequence[int], axes: Sequence[Axis]) -> list[Axis | None]:
    """Axes of some dimensions of a source in its order, None for each of its dimensions of one element."""
    found: list[Axis | None] = []
    for size, step in zip(shape, steps, strict=True):
        inside = sorted((one for one in axes if step <= one.step < step * size), key=lambda one: -one.step)
        found += inside if size > 1 else [None]
    return found


def _arrange(order: Sequence[Axis | None], dims: Sequence[Sequence[Axis]]) -> Arrangement:
    """Dimensions of one element go to each other in turn, and those that the value lacks to its first."""
    places = {axis: place for place, axis in enumerate(order) if axis is not None}
    single = [place for place, axis in enumerate(order) if axis is None]
    found = [tuple(places[one] for one in dim) or tuple(single.pop(0) for _ in single[:1]) for dim in dims]
    first, *others = found
    return Arrangement(tuple(1 if one is None else one.size for one in order), ((*single, *first), *others))


def _head_axes(batch: BatchAxes, steps: Sequence[int]) -> tuple[list[Axis], list[int]]:
    """The axes of a result that number heads, in order, and the steps at which its batch dimensions are taken apart."""
    heads, boundaries = list[Axis](), list[int]()
    for axes, step in zip(batch, steps[:-2], strict=True):
        for place, (size, is_head) in enumerate(axes):
            inner = step * math.prod(other for other, _ in axes[place + 1 :])
            boundaries.append(inner)
            heads += [Axis(size, inner)] if is_head else []
    return heads, boundaries
