"""A fused function, taken apart: what the anchor reads, and the tail that turns its sums into the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import TensorLoad
from tvm.s_tir.stmt import SBlock

from lvc.backends.tvm.nest import VECTORISED, Buffer, Expr, Stmt, int32, load, loop
from lvc.compiler.errors import CompileError

SATURATION_MASK = "guards"
"""The name of the parameter that tells which steps could saturate; it stands in the messages of compiled kernels."""


@dataclass(frozen=True)
class Stage:
    """A stage of a function: the element of its ``buffer`` at ``axes`` is ``value``."""

    buffer: Buffer
    axes: tuple[Any, ...]
    value: Expr

    def at(self, place: Sequence[Expr], read: Buffer | None = None, total: Expr = None) -> Expr:
        """Its element at a place, with ``total`` for what it reads of the buffer ``read``."""
        values = dict(zip(self.axes, map(int32, place), strict=True))

        def variable(node: Any, _: Any) -> Expr:
            return values.get(node, node)

        def element(node: Any, mutator: Any) -> Expr:
            return total if read is not None and node.source.same_as(read) else mutator.default_mutate(node)

        def let(node: Any, mutator: Any) -> Expr:
            bound = mutator.mutate(node.value)
            values[node.var] = tirx.Var(node.var.name, str(node.var.ty.dtype))
            return tirx.Let(values[node.var], bound, mutator.mutate(node.body))

        return tvm_ffi.structural_mutate(self.value, [(tirx.Let, let), (TensorLoad, element), (tirx.Var, variable)])

    def loads(self) -> list[Any]:
        """All that it reads."""
        found: list[Any] = []
        tvm_ffi.structural_walk(self.value, [(TensorLoad, found.append)])
        return found


def stages_of(sch: Any) -> dict[str, Stage]:
    """The stages of a function by their names, in order."""
    blocks = [sch.get(block) for block in sch.get_child_blocks(sch.get_sblock("root"))]
    return {
        block.name_hint: Stage(block.body.buffer, tuple(axis.var for axis in block.iter_vars), block.body.value)
        for block in blocks
    }


@dataclass(frozen=True)
class Fused:
    """``operands`` are the buffers that the anchor reads, in the order of its definition.

    ``value`` is the element of ``output`` at ``axes``, as a function of the element of ``sums`` at the same place.
    """

    operands: tuple[Buffer, ...]
    sums: Buffer
    output: Buffer
    axes: tuple[Any, ...]
    value: Expr

    def finish(self, index: Sequence[Expr], sums: Buffer, at: Sequence[Expr] = (), lanes: int | None = None) -> Stmt:
        """Write the elements of the output from ``index`` on: as many as there are ``lanes``.

        Their sums are the last dimension of a buffer, at ``at`` in the others.
        """

        def element(lane: Expr) -> Stmt:
            return self.put([*index[:-1], index[-1] + lane], load(sums, [*at, lane]))

        return loop(lanes or int(sums.shape[-1]), element, VECTORISED, "lane")

    def put(self, index: Sequence[Expr], total: Expr) -> Stmt:
        """Write the element of the output at a place, whose sum is ``total``."""
        place = [int32(i) for i in index]
        return tirx.BufferStore(self.output, self.element(place, total), place)

    def element(self, place: Sequence[Expr], total: Expr) -> Expr:
        """The element of the output at a place, whose sum is ``total``."""
        return Stage(self.sums, self.axes, self.value).at(place, self.sums, total)


def take_apart(sch: Any, inputs: Sequence[str] = ("pad",)) -> Fused:
    """Inline the stages between the anchor and the last block, and name the parts. ``inputs`` may stand before it."""
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    names = [sch.get(block).name_hint for block in blocks]
    first = names.index("anchor")
    if unknown := [name for name in names[:first] if name not in inputs]:
        raise CompileError(f"a kernel cannot compute '{unknown[0]}' before its anchor")
    operands = _operands(sch, blocks[: first + 1])
    for block in blocks[first + 1 : -1]:
        sch.compute_inline(block)
    last = sch.get(blocks[-1])
    anchor = sch.get(blocks[first])
    fused = Fused(
        operands=operands,
        sums=anchor.body.buffer,
        output=last.body.buffer,
        axes=tuple(axis.var for axis in last.iter_vars),
        value=last.body.value,
    )
    _check_elementwise(fused, last)
    return fused


def parameter(sch: Any, name: str) -> Buffer | None:
    """The buffer of a function's parameter of that name."""
    return next((buffer for buffer in sch.mod["main"].params if buffer.name == name), None)


def _check_elementwise(fused: Fused, last: Any) -> None:
    """Refuse a tail that reads the anchor's result anywhere but at the element that it computes."""
    analyzer = sym.Analyzer()
    for axis in last.iter_vars:
        analyzer.bind(axis.var, axis.dom)

    loads: list[Any] = []
    tvm_ffi.structural_walk(fused.value, [(TensorLoad, loads.append)])
    places = [load.indices for load in loads if load.source.same_as(fused.sums)]
    for place in (*places, last.body.indices):
        same = len(place) == len(fused.axes)
        if not same or not all(map(analyzer.can_prove_equal, place, fused.axes)):
            raise CompileError("a kernel's result is read by a stage that moves its elements")


def _operands(sch: Any, blocks: Sequence[Any]) -> tuple[Buffer, ...]:
    made = {sch.get(block).body.buffer: _reads(sch.get(block)) for block in blocks}
    anchor = sch.get(blocks[-1]).body.buffer
    return tuple(made[buffer][0] if buffer in made else buffer for buffer in made[anchor])


def _reads(block: Any) -> tuple[Buffer, ...]:
    found: list[Buffer] = []

    def visit(node: Any) -> None:
        if not node.source.same_as(block.body.buffer) and not any(node.source.same_as(f) for f in found):
            found.append(node.source)

    tvm_ffi.structural_walk(block.body.value, [(TensorLoad, visit)])
    return tuple(found)


def write_nest(sch: Any, nest: Stmt) -> None:
    """Put a nest in the place of all of a function's blocks."""
    root = sch.get_sblock("root")
    sch.state.replace(sch.get_sref(root), SBlock([], [], [], "root", nest), {})
