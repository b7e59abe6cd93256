"""Neighbouring elements of a result by one thread: what they read side by side is loaded at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm_ffi
from tvm import ir, tirx

from lvc.backends.tvm.gpu.expressions import divisor, number
from lvc.backends.tvm.gpu.launch import VECTOR_BYTES, copy, local
from lvc.backends.tvm.gpu.operations import CONDITIONAL
from lvc.backends.tvm.nest import UNROLLED, Buffer, Expr, Stmt, block, load, store
from lvc.backends.tvm.program import ITEM_BYTES

Place = Callable[[Expr], Sequence[Expr]]
"""The index of an element of the result, by its lane."""


def write_lanes(lanes: int, target: Buffer, place: Place, element: Callable[[Expr], Expr]) -> Stmt:
    """Write ``lanes`` elements, each of which is ``element(lane)``."""
    if lanes == 1:
        zero = tirx.const(0, "int32")
        return store(target, element(zero), place(zero))
    lane = tirx.Var("lane", "int32")
    reads = _Reads(lane, lanes)
    value = reads.replaced(element(lane))
    if not is_vector(target, place(lane), lane, lanes):
        return block(*reads.statements, _each(lanes, lane, store(target, value, place(lane))))
    made = local([lanes], "made", str(target.dtype))
    computed = _each(lanes, lane, store(made, value, [lane]))
    written = copy(target, _first(place(lane), lane), made, [0], lanes)
    return block(*reads.statements, tirx.AllocBuffer(made), computed, written)


@dataclass
class _Reads:
    """Vectors that are loaded before an expression of a lane is computed."""

    lane: Any
    lanes: int
    known: list[tuple[Any, Buffer]] = field(default_factory=list)
    statements: list[Stmt] = field(default_factory=list)

    def replaced(self, value: Expr) -> Expr:
        """The expression with elements of vectors in place of those that it reads."""
        return tvm_ffi.structural_mutate(value, [(ir.TensorLoad, self._load), (ir.Call, self._call)])

    def _load(self, found: Any, mutator: Any) -> Any:
        if not is_vector(found.source, found.indices, self.lane, self.lanes):
            return mutator.default_mutate(found)
        return self._fetched(found, found)

    def _call(self, call: Any, mutator: Any) -> Any:
        """What stands behind a condition may not be read without it."""
        if getattr(call.op, "name", "") != CONDITIONAL:
            return mutator.default_mutate(call)
        condition, found, other = call.args
        is_whole = isinstance(found, ir.TensorLoad) and is_vector(found.source, found.indices, self.lane, self.lanes)
        if not is_whole or _has(condition, self.lane) or not isinstance(other, tirx.IntImm | tirx.FloatImm):
            return call
        return self._fetched(call, found, condition, other)

    def _fetched(self, whole: Any, found: Any, condition: Any = None, other: Any = None) -> Any:
        for known, buffer in self.known:
            if tvm_ffi.structural_equal(known, whole):
                return load(buffer, [self.lane])
        buffer = local([self.lanes], f"read{len(self.known)}", str(found.source.dtype))
        self.known.append((whole, buffer))
        read = copy(buffer, [0], found.source, _first(found.indices, self.lane), self.lanes)
        if condition is not None:
            fill = [store(buffer, other, [lane]) for lane in range(self.lanes)]
            read = tirx.IfThenElse(condition, read, block(*fill))
        self.statements += [tirx.AllocBuffer(buffer), read]
        return load(buffer, [self.lane])


def vector_lanes(dtype: str, extent: int) -> int:
    """How many neighbours along a dimension one thread takes: as many as a vector holds, where all come in such."""
    most = min(4, VECTOR_BYTES // ITEM_BYTES[dtype])
    return most if extent % most == 0 else 1


def is_vector(buffer: Buffer, indices: Sequence[Expr], lane: Any, lanes: int) -> bool:
    """Whether the lanes of an index are neighbours, the first at a multiple of the bytes of all."""
    *outer, last = indices
    extents = [int(size) for size in buffer.shape]
    if buffer.scope() == "local" or lanes * ITEM_BYTES[str(buffer.dtype)] > VECTOR_BYTES:
        return False
    if any(_has(index, lane) for index in outer) or (outer and extents[-1] % lanes):
        return False
    first = _rest(last, lane)
    return first is not None and divisor(first) % lanes == 0


def _rest(index: Expr, lane: Any) -> Expr | None:
    """What a lane is added to in an index; None where it is something else."""
    if isinstance(index, tirx.Var) and index.same_as(lane):
        return tirx.const(0, "int32")
    if not isinstance(index, tirx.Add):
        return None
    for one, other in ((index.a, index.b), (index.b, index.a)):
        if not _has(one, lane) and (rest := _rest(other, lane)) is not None:
            return one if number(rest) == 0 else one + rest
    return None


def _has(index: Expr, lane: Any) -> bool:
    found: list[Any] = []
    if not isinstance(index, int):
        tvm_ffi.structural_walk(index, [(tirx.Var, found.append)])
    return any(variable.same_as(lane) for variable in found)


def _first(indices: Sequence[Expr], lane: Any) -> list[Expr]:
    return [
        index if isinstance(index, int) else substituted(index, {lane: tirx.const(0, "int32")}) for index in indices
    ]


def _each(lanes: int, lane: Any, statement: Stmt) -> Stmt:
    return tirx.For(lane, tirx.const(0, "int32"), tirx.const(lanes, "int32"), UNROLLED, statement)


def substituted(expression: Any, values: dict[Any, Any]) -> Any:
    """An expression with other values of variables; variables that it binds itself are made anew."""
    values = dict(values)

    def variable(node: Any, _: Any) -> Any:
        return values.get(node, node)

    def let(node: Any, mutator: Any) -> Any:
        bound = mutator.mutate(node.value)
        values[node.var] = tirx.Var(node.var.name, str(node.var.ty.dtype))
        return tirx.Let(values[node.var], bound, mutator.mutate(node.body))

    return tvm_ffi.structural_mutate(expression, [(tirx.Let, let), (tirx.Var, variable)])
