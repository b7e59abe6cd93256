"""The layout of every value: blocked from convolutions on, for as long as the operators after them work on channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch.fx import Graph, Node

from lvc.backends.tvm.device import CodeGenerator
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.operands import stored
from lvc.backends.tvm.units import Unit
from lvc.backends.tvm.widening import SHORT
from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import arguments, family, is_call, spec
from lvc.compiler.ir.layers import CONVOLUTIONS
from lvc.compiler.ir.operators import integer, regions

aten = torch.ops.aten

# what gives its result the layout of its operand; elementwise operators do too
_TRANSPARENT = (
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten.batch_norm.default,
    aten.instance_norm.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_bicubic2d.vec,
    aten.grid_sampler_2d.default,
    aten.cat.default,
    aten.slice.Tensor,
    aten.constant_pad_nd.default,
    aten.pad.default,
    integer.sum_pool2d,
)
_WHOLE = (torch.uint8, torch.int8, torch.int32)
_REDUCTIONS = (aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default)


def plan_layouts(graph: Graph, parts: Sequence[Unit], generator: CodeGenerator) -> dict[Node, Layout]:
    """Choose the layout of every input and of every unit's output."""
    readers = _readers(parts)
    layouts = {node: PLAIN for node in graph.nodes if node.op == "placeholder"}
    for unit in parts:
        layouts[unit.output] = _choose(unit, layouts, readers, generator)
    return layouts


def _readers(parts: Sequence[Unit]) -> dict[Node, list[Unit]]:
    readers: dict[Node, list[Unit]] = {}
    for unit in parts:
        for node in unit.inputs:
            readers.setdefault(node, []).append(unit)
    return readers


def _choose(
    unit: Unit, layouts: dict[Node, Layout], readers: dict[Node, list[Unit]], generator: CodeGenerator
) -> Layout:
    blocked = Layout(generator.block)
    dtype = spec(unit.output).dtype
    if len(spec(unit.output).shape) != 4 or not (dtype.is_floating_point or dtype in _WHOLE):
        return PLAIN
    anchor = unit.anchor
    if is_call(anchor, *CONVOLUTIONS):
        return blocked
    if is_call(anchor, regions.roi_align):
        return blocked if any(_wants_blocks(reader, readers, 2) for reader in readers.get(unit.output, [])) else PLAIN
    carries = _any_blocked(_images(unit), layouts)
    if len(unit.nodes) == 1 and is_call(anchor, *_TRANSPARENT):
        return blocked if carries else PLAIN
    if unit.is_movement:
        wanted = any(_wants_blocks(reader, readers, 2) for reader in readers.get(unit.output, []))
        return blocked if wanted and spec(unit.output).shape[1] >= blocked.block else PLAIN
    if family(anchor) is Family.ELEMENTWISE or is_call(anchor, *_TRANSPARENT):
        return blocked if carries else _wanted(unit, readers, generator)
    if is_call(anchor, *_REDUCTIONS) and carries:
        return blocked if _spatial(anchor) else PLAIN
    return PLAIN


def _images(unit: Unit) -> Sequence[Node]:
    """What a unit reads, without the places at which it samples an image."""
    if not is_call(unit.anchor, aten.grid_sampler_2d.default):
        return unit.inputs
    places = stored(arguments(unit.anchor)["grid"])
    return [node for node in unit.inputs if node is not places]


def _wanted(unit: Unit, readers: dict[Node, list[Unit]], generator: CodeGenerator) -> Layout:
    """The layout that the first reader needs of a value that is converted to a shorter type: both are made at once."""
    found = readers.get(unit.output, [])
    if not found or spec(unit.output).dtype not in (*SHORT, torch.uint8, torch.int8):
        return PLAIN
    return generator.wanted_layout(found[0].nodes[0], unit.output, PLAIN)


def _any_blocked(nodes: Iterable[Node], layouts: dict[Node, Layout]) -> bool:
    return any(layouts[node].block and spec(node).shape[1] > 1 for node in nodes)


def _spatial(node: Node) -> bool:
    """Whether a reduction goes over height and width only."""
    dims = arguments(node)["dim"]
    dims = [dims] if isinstance(dims, int) else dims
    return bool(dims) and all(d % 4 in (2, 3) for d in dims)


def _wants_blocks(unit: Unit, readers: dict[Node, list[Unit]], depth: int) -> bool:
    """Whether a unit, or one soon after it, works best on blocked operands."""
    if is_call(unit.anchor, *CONVOLUTIONS):
        return True
    if depth == 0 or not (family(unit.anchor) is Family.ELEMENTWISE or is_call(unit.anchor, *_TRANSPARENT)):
        return False
    return any(_wants_blocks(reader, readers, depth - 1) for reader in readers.get(unit.output, []))
