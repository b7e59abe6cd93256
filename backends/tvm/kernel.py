"""One kernel: a unit of the graph written as a TIR function, with its parameters and its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule, Node
from tvm import te, tirx

from lvc.backends.tvm.device import Anchor, CodeGenerator, Group
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.operands import stored, zero_edges
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.table import Call, lowering_of
from lvc.backends.tvm.program import ScheduleFunction
from lvc.backends.tvm.scope import Array, Codes, Expr, Parameter, Scope, dtype_text
from lvc.backends.tvm.short_floats import is_short, widen, widened_values
from lvc.backends.tvm.units import Unit
from lvc.compiler.ir.graph import arguments, spec, tensor
from lvc.compiler.ir.operators.coded_weights import DECODE, is_coded, unpack


@dataclass(frozen=True)
class Kernel:
    """A TIR function whose arguments are the parameters and the result, and what schedules it."""

    function: Any
    schedule: ScheduleFunction
    parameters: tuple[Parameter, ...]
    result: Any


def unit_kernel(
    module: GraphModule,
    unit: Unit,
    layouts: Mapping[Node, Layout],
    layout: Layout,
    generator: CodeGenerator,
    *,
    choice: str = "",
) -> Kernel:
    """Write a unit down, in a way that was chosen or else by its rule. ``layouts`` are those of its inputs, ``layout``
    is that of its output."""
    return _Writer(module, unit, layouts, layout, generator).write(choice)


def conversion_kernel(
    node: Node, before: Layout, after: Layout, generator: CodeGenerator, module: GraphModule | None = None
) -> Kernel:
    """Copy a value from one layout to another; a stored tensor if a module is given."""
    scope = Scope()
    array = stored_array(module, node, scope) if module else scope.value(node, spec(node), before)
    return finish(scope, array, after, generator)


def stored_array(module: GraphModule, node: Node, scope: Scope) -> Array:
    """The array of a ``get_attr`` node; of bfloat16, its bits."""
    values = tensor(module, node)
    assert values is not None
    values = values.detach()
    bits = values.view(torch.uint16) if values.dtype is torch.bfloat16 else values
    return scope.constant(str(node.target), bits.numpy())


def coded_array(module: GraphModule, node: Node, scope: Scope) -> Array:
    """The array of a weight in few bits: floating-point numbers, and how they are stored."""
    given = arguments(node)
    codes, values, scale = (tensor(module, given[name]) for name in ("codes", "values", "scale"))
    assert codes is not None
    assert values is not None
    assert scale is not None
    shape = spec(node).shape
    weight = DECODE(codes, values, scale, given["bits"], list(shape))
    array = scope.constant(f"{given['codes'].target} decoded", weight.detach().numpy())
    each = spec(node).elements // scale.numel()
    code = unpack(codes, given["bits"], spec(node).elements).reshape(shape)
    wide = scale.flatten().repeat_interleave(each).reshape(shape)
    return replace(array, codes=Codes(code.numpy(), wide.detach().numpy(), values.detach().numpy(), given["bits"]))


def widened(array: Array) -> Array:
    """An array of a short type as float32."""
    values = None if array.constant is None else widened_values(array.constant)
    return Array(array.shape, "float32", lambda index: widen(array.read(index)), values)


def finish(
    scope: Scope,
    array: Array,
    layout: Layout,
    generator: CodeGenerator,
    anchor: Anchor | None = None,
) -> Kernel:
    """Write an array out as the kernel's result, in the kernel's own shape in memory if it has one.

    Lanes past the last channel are zeros: whoever reads them multiplies them by weights of zero, which makes NaN of
    infinity.
    """
    if anchor and anchor.shape:
        array, shape = reshape_array(scope, array, anchor.shape), anchor.shape
    else:
        shape = layout.physical(array.shape) or (1,)
    masked = layout.is_ragged(array.shape) and ("float" in array.dtype or is_short(array.dtype))

    def body(axes: Any) -> Expr:
        index = layout.to_logical(axes) if array.shape else ()
        value = array.read(index)
        if not masked:
            return value
        return tirx.Select(index[1] < array.shape[1], value, tirx.const(0, array.dtype))

    result = scope.tensor(shape, body, "last")
    function = te.create_prim_func([*(p.tensor for p in scope.parameters), result])
    schedule = anchor.schedule if anchor else generator.general_schedule(apart=scope.has_lookups)
    return Kernel(function, schedule, tuple(scope.parameters), result)


class _Writer:
    """Writes one unit: its nodes in order, each an array that the next ones read."""

    def __init__(
        self,
        module: GraphModule,
        unit: Unit,
        layouts: Mapping[Node, Layout],
        layout: Layout,
        generator: CodeGenerator,
    ) -> None:
        self.module = module
        self.unit = unit
        self.layouts = layouts
        self.layout = layout
        self.generator = generator
        self.scope = Scope(generator.block)
        self.arrays: dict[Node, Array] = {}

    def write(self, choice: str) -> Kernel:
        if self.unit.group:
            return self.group(self.unit.group, choice)
        anchor: Anchor | None = None
        for node in self.unit.nodes:
            call = self.call(node)
            found = self.generator.anchor(call, choice) if node is self.unit.nodes[0] else None
            anchor = anchor or found
            self.arrays[node] = found.array if found else lowering_of(node)(call)
        return finish(self.scope, self.arrays[self.unit.output], self.layout, self.generator, anchor)

    def group(self, group: Group, choice: str) -> Kernel:
        """Write a group of the target's own, whose kernel is scheduled by it."""
        for node in group.nodes:
            self.arrays[node] = self.staged(node, lowering_of(node)(self.call(node)))
        schedule = self.generator.chosen(group.schedule, choice) if choice else group.schedule
        array = self.arrays[group.written]
        return finish(self.scope, array, PLAIN, self.generator, Anchor(array, schedule))

    def staged(self, node: Node, array: Array) -> Array:
        """The array of a node, as a stage of its own if the schedule knows it by name."""
        name = self.unit.group.stages.get(node) if self.unit.group else None
        return self.scope.stage(array.shape, array.read, name) if name else array

    def call(self, node: Node) -> Call:
        operands = {name: self.operand(value) for name, value in arguments(node).items()}
        return Call(node, operands, self.scope, self.layout, self.layouts)

    def operand(self, value: Any) -> Any:
        """An argument of a call, with arrays in place of nodes."""
        if isinstance(value, list | tuple):
            return [self.operand(part) for part in value]
        if not isinstance(value, Node):
            return value
        if value not in self.arrays:
            if zero_edges(value):
                self.arrays[value] = lowering_of(value)(self.call(value))
            elif is_coded(value):
                self.arrays[value] = coded_array(self.module, value, self.scope)
            elif stored(value) is not value:
                self.arrays[value] = widened(self.operand(stored(value)))
            elif value.op == "get_attr":
                self.arrays[value] = stored_array(self.module, value, self.scope)
            else:
                self.arrays[value] = self.staged(value, self.lazy_value(value))
        return self.arrays[value]

    def lazy_value(self, node: Node) -> Array:
        """A value made by another kernel; it becomes a parameter at its first use."""
        known, layout = spec(node), self.layouts[node]
        leaf: list[Array] = []

        def read(index: Any) -> Expr:
            if not leaf:
                leaf.append(self.scope.value(node, known, layout))
            return leaf[0].read(index)

        return Array(known.shape, dtype_text(known.dtype), read)
