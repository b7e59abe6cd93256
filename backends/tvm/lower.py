"""From a model to a program: a kernel for each unit, a place for each value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Protocol

from torch.fx import Node

from lvc.backends.tvm import joins
from lvc.backends.tvm.device import CodeGenerator
from lvc.backends.tvm.emitter import Emitter, MadeValue
from lvc.backends.tvm.kernel import Kernel, conversion_kernel, unit_kernel
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.planner import plan_layouts
from lvc.backends.tvm.program import ITEM_BYTES, Argument, Bytes, Contents, Kind, Place, Program, Step, Storage, joined
from lvc.backends.tvm.scope import dtype_text
from lvc.backends.tvm.units import Unit, units
from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.model import Model


class Choosing(Protocol):
    """Knows kernels that shall be made in another way than by their rule."""

    def choose(self, name: str, kernel: Kernel, remake: Callable[[str], Kernel]) -> Kernel:
        """The kernel to take for the one of a step that is called ``name``; ``remake`` makes it as a text chooses."""
        ...


def lower(
    model: Model, generator: CodeGenerator, choosing: Choosing | None = None, variants: Sequence[Model] = ()
) -> Program:
    """Lower a model whose operators and types have been checked; ``variants`` are the same one for other shapes."""
    first = Lowering(model, generator, choosing)
    program = first.run()
    program.others = [Lowering(other, generator, choosing, first.emitter).run() for other in variants]
    return program


class Lowering:
    """The state of lowering one model; its constants go ``beside`` those of another one's program."""

    def __init__(
        self,
        model: Model,
        generator: CodeGenerator,
        choosing: Choosing | None = None,
        beside: Emitter | None = None,
    ) -> None:
        self.model = model
        self.generator = generator
        self.choosing = choosing
        self.units = units(model.module.graph, generator.groups(model.module.graph))
        self.layouts = plan_layouts(model.module.graph, self.units, generator)
        self.joins = joins.plan_joins(self.units, self.layouts, set(model.output_nodes), generator.alignment)
        self.makers = {unit.output: unit for unit in self.units}
        self.places: dict[tuple[Node, Layout], Place] = {}
        self.emitter = Emitter(beside)
        self.program = self.emitter.program
        self.own: list[tuple[Step, Unit]] = []  # the kernels of units, without copies and what setup runs

    def run(self) -> Program:
        for position, node in enumerate(n for n in self.model.module.graph.nodes if n.op == "placeholder"):
            storage = Storage(Kind.INPUT, max(1, spec(node).bytes), position)
            self.places[node, PLAIN] = Place(storage)
            self.program.inputs.append(self.argument(node, PLAIN))
        self.claim_outputs()
        for unit in self.units:
            self.unit(unit)
        for position, node in enumerate(self.model.output_nodes):
            self.output(position, node)
        return self.program

    def claim_outputs(self) -> None:
        """Let kernels write straight into the outputs where their result is one, and lies as the plain layout does."""
        for position, node in enumerate(self.model.output_nodes):
            while node in self.makers and self.is_alias(self.makers[node]):
                (node,) = self.makers[node].inputs
            if node not in self.makers or not self.layouts[node].is_flat(spec(node).shape) or node in self.joins.places:
                continue
            storage = Storage(Kind.OUTPUT, max(1, spec(node).bytes), position)
            self.places.setdefault((node, self.layouts[node]), Place(storage))

    def unit(self, unit: Unit) -> None:
        layout = self.layouts[unit.output]
        if self.is_alias(unit):
            (source,) = unit.inputs
            self.places[unit.output, layout] = self.place(source, self.layouts[source])
            self.consists(unit.output, layout, self.contents(source, self.layouts[source]))
            return
        if self.joins.is_in_place(unit):
            self.join(unit, layout)
            return
        wanted = self.wanted(unit)
        for node, needed in wanted.items():
            self.convert(node, needed)
        kernel = self.kernel(unit)
        if self.choosing:
            kernel = self.choosing.choose(unit.name, kernel, partial(self.kernel, unit))
        self.emit(kernel, unit.name, [n.name for n in unit.nodes], wanted, self.value(unit.output, layout))
        self.own.append((self.program.steps[-1], unit))

    def wanted(self, unit: Unit) -> dict[Node, Layout]:
        """The layouts in which a unit reads its inputs."""
        first, layouts = unit.nodes[0], self.layouts
        if unit.group:
            return dict.fromkeys(unit.inputs, PLAIN)
        return {node: self.generator.wanted_layout(first, node, layouts[node]) for node in unit.inputs}

    def kernel(self, unit: Unit, choice: str = "") -> Kernel:
        """The kernel of a unit, made as was chosen or else by its rule; `NoSuchWay` for a choice that it has not."""
        layout = self.layouts[unit.output]
        return unit_kernel(self.model.module, unit, self.wanted(unit), layout, self.generator, choice=choice)

    def is_alias(self, unit: Unit) -> bool:
        """Whether a unit needs no code: its output is its input's bytes."""
        if not unit.is_alias or len(unit.inputs) != 1 or unit.nodes[0].all_input_nodes[0].op == "get_attr":
            return False
        (source,) = unit.inputs
        before, after = self.layouts[source], self.layouts[unit.output]
        if spec(source).dtype != spec(unit.output).dtype:
            return False
        if before == after and spec(source).shape == spec(unit.output).shape:
            return True
        return before.is_flat(spec(source).shape) and after.is_flat(spec(unit.output).shape)

    def join(self, unit: Unit, layout: Layout) -> None:
        """Parts of a concatenation that could not be made in their place are copied there."""
        for part, offset in self.joins.copies(unit, layout):
            self.convert(part, layout)
            kernel = conversion_kernel(part, layout, layout, self.generator)
            root = self.place(unit.output, layout)
            place = Place(root.storage, root.offset + offset * ITEM_BYTES[dtype_text(spec(part).dtype)])
            self.emit(kernel, unit.name, [unit.name], {part: layout}, MadeValue(place, _label(part, layout)))
        parts = [self.contents(part, layout) for part, _ in joins.parts_of(unit.output, layout)]
        self.consists(unit.output, layout, chain.from_iterable(parts))

    def convert(self, node: Node, layout: Layout) -> None:
        """Make a value available in a layout."""
        own = self.layouts[node]
        if (node, layout) in self.places or layout == own:
            return
        if own.is_flat(spec(node).shape) and layout.is_flat(spec(node).shape):
            self.places[node, layout] = self.place(node, own)
            return
        kernel = conversion_kernel(node, own, layout, self.generator)
        self.emit(kernel, f"{node.name} to {layout}", [node.name], {node: own}, self.value(node, layout))

    def value(self, node: Node, layout: Layout) -> MadeValue:
        return MadeValue(self.place(node, layout), _label(node, layout))

    def contents(self, node: Node, layout: Layout) -> Contents:
        """The bytes of a value, those of other values where it is a view or consists of parts."""
        label = _label(node, layout)
        size = layout.elements(spec(node).shape) * ITEM_BYTES[dtype_text(spec(node).dtype)]
        return self.program.contents.get(label) or (Bytes(label, 0, size),)

    def consists(self, node: Node, layout: Layout, parts: Iterable[Bytes]) -> None:
        """Note of which bytes a value consists that no kernel makes."""
        self.program.contents[_label(node, layout)] = joined(parts)

    def place(self, node: Node, layout: Layout) -> Place:
        """Where a value lies; new memory if nothing has been said yet."""
        key = (node, layout)
        if key not in self.places:
            root, offset = self.joins.places.get(node, (node, 0))
            if root is not node and layout == self.layouts[node]:
                place = self.place(root, layout)
                size = ITEM_BYTES[dtype_text(spec(node).dtype)]
                self.places[key] = Place(place.storage, place.offset + offset * size)
            else:
                size = layout.elements(spec(node).shape) * ITEM_BYTES[dtype_text(spec(node).dtype)]
                self.places[key] = Place(Storage(Kind.WORKSPACE, max(1, size)))
        return self.places[key]

    def output(self, position: int, node: Node) -> None:
        """Copy a value to its output unless it was made there."""
        shape, dtype = spec(node).shape, dtype_text(spec(node).dtype)
        target = Place(Storage(Kind.OUTPUT, max(1, spec(node).bytes), position))
        own = self.layouts.get(node, PLAIN)
        made = self.places.get((node, own)) if own.is_flat(shape) else None
        if made and made.offset == 0 and made.storage.kind is Kind.OUTPUT and made.storage.position == position:
            target = made
        elif node.op == "get_attr":
            kernel = conversion_kernel(node, PLAIN, PLAIN, self.generator, self.model.module)
            self.emit(kernel, f"output {position}", [node.name], {}, MadeValue(target, _label(node, PLAIN)))
        else:
            kernel = conversion_kernel(node, own, PLAIN, self.generator)
            self.emit(kernel, f"output {position}", [node.name], {node: own}, MadeValue(target, _label(node, PLAIN)))
        self.program.outputs.append(Argument(target, tuple(shape), dtype, _label(node, PLAIN)))

    def emit(
        self, kernel: Kernel, name: str, nodes: list[str], layouts: Mapping[Node, Layout], made: MadeValue
    ) -> None:
        self.emitter.emit(kernel, name, nodes, lambda source, *_: self.value(source, layouts[source]), made)

    def argument(self, node: Node, layout: Layout) -> Argument:
        value = self.value(node, layout)
        return Argument(value.place, layout.physical(spec(node).shape), dtype_text(spec(node).dtype), value.name)


def _label(node: Node, layout: Layout) -> str:
    """The name of a value in a layout; layouts with the same bytes share it."""
    return node.name if layout.is_flat(spec(node).shape) else f"{node.name} as {layout}"
