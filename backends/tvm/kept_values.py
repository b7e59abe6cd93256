"""Values that are used again, kept in registers of their own before TVM's passes see them.

TVM 0.27 binds the variable of a ``Let`` to its value with the values of all earlier ones put in, and does so in most of
its passes. Where a value is used three times, a chain of n of them costs it 3 to the n. So `keep_values` makes each a
store to a small buffer, of one element or of one for each lane: what is behind a load TVM leaves alone, and LLVM makes
registers of such buffers.

It runs before indices are simplified: TVM drops the limits of an index under a condition that implies them, and then
the value could not be read before it is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.ir import TensorLoad

from lvc.backends.tvm.nest import PARALLEL, VECTORISED, Buffer, Expr, Stmt, allocate, block, load, scratch, store
from lvc.backends.tvm.scope import dtype_of

_STATEMENTS = (tirx.BufferStore, tirx.Evaluate)
_CONDITIONAL = "prim.if_then_else"


def keep_values(function: Any, module: Any, context: Any) -> Any:
    """Write the Lets of each statement as stores in front of it."""
    return function.with_body(_Keeping().task(function.body)) if _has_let(function.body) else function


def _has_let(node: Any) -> bool:
    found: list[Any] = []
    tvm_ffi.structural_walk(node, [(tirx.Let, found.append)])
    return bool(found)


@dataclass(frozen=True)
class _Slot:
    """A place for a value; ``lane`` is the variable of the lanes, each of which has its own, or None. A value that is a
    vector by itself has ``width`` elements."""

    buffer: Buffer
    lane: Any
    width: int = 1

    @property
    def differs(self) -> bool:
        return self.lane is not None

    @property
    def dtype(self) -> str:
        return f"{self.buffer.dtype}x{self.width}" if self.width > 1 else str(self.buffer.dtype)

    @property
    def place(self) -> Any:
        if self.width > 1:
            return tirx.Ramp(0, 1, self.width)
        return self.lane if self.differs else 0

    def load(self) -> Expr:
        return load(self.buffer, [self.place])

    def store(self, value: Expr) -> Stmt:
        return store(self.buffer, value, [self.place])


class _Keeping:
    """Where in a function the rewriting is: ``slots`` are the buffers of the task at hand, ``lane`` is the variable of
    the vectorised loop around a statement and ``lanes`` how many values it has."""

    def __init__(self) -> None:
        self.analyzer = sym.Analyzer()
        self.slots: list[Buffer] = []
        self.lane: Any = None
        self.lanes = 1

    def task(self, body: Stmt) -> Stmt:
        """The statements of a function or of a task, with the buffers that they need."""
        outside, self.slots = self.slots, []
        body = tvm_ffi.structural_mutate(body, [(tirx.For, self.loop), (_STATEMENTS, self.statement)])
        body, self.slots = allocate(self.slots, body), outside
        return body

    def loop(self, node: Any, mutator: Any) -> Stmt:
        self.analyzer.bind(node.loop_var, ir.Range.from_min_extent(node.min, node.extent))
        if node.kind == PARALLEL:
            return _with_body(node, self.task(node.body))
        if node.kind != VECTORISED:
            return mutator.default_mutate(node)
        self.lane, self.lanes = node.loop_var, int(node.extent)
        body = mutator.mutate(node.body)
        self.lane, self.lanes = None, 1
        return _with_body(node, body)

    def statement(self, node: Any, mutator: Any) -> Stmt:
        return _Statement(self).rewrite(node) if _has_let(node) else node

    def differs(self, *values: Expr) -> bool:
        """Whether one of the values is not the same in every lane."""
        found: list[Any] = []
        for value in values:
            tvm_ffi.structural_walk(value, [(tirx.Var, found.append)])
        return self.lane is not None and any(variable.same_as(self.lane) for variable in found)

    def slot(self, dtype: str, *, differs: bool) -> _Slot:
        """A new place for a value, in each lane if it differs there."""
        element, _, lanes = dtype.partition("x")
        width = int(lanes or 1)
        self.slots.append(scratch([self.lanes if differs else width], "kept", element))
        return _Slot(self.slots[-1], self.lane if differs else None, width)

    def is_inside(self, load: Any) -> bool:
        """Whether it is proven that a load reads within its buffer."""
        prove = self.analyzer.can_prove
        return all(prove(i >= 0) and prove(i < n) for i, n in zip(load.indices, load.source.shape, strict=True))


class _Statement:
    """One statement while it is rewritten: ``before`` is what must run first, ``values`` are those of variables."""

    def __init__(self, keeping: _Keeping) -> None:
        self.keeping = keeping
        self.before: list[Stmt] = []
        self.values: dict[Any, Expr] = {}

    def rewrite(self, node: Any) -> Stmt:
        node = self.mutate(node)
        return block(*self.before, node)

    def mutate(self, node: Any) -> Any:
        kinds = [(tirx.Let, self.let), (tirx.Select, self.select), (ir.Call, self.call), (tirx.Var, self.variable)]
        return tvm_ffi.structural_mutate(node, kinds)

    def variable(self, node: Any, mutator: Any) -> Expr:
        return self.values.get(node, node)

    def let(self, node: Any, mutator: Any) -> Expr:
        value = mutator.mutate(node.value)
        slot = self.keeping.slot(dtype_of(value), differs=self.keeping.differs(value))
        self.before.append(slot.store(value))
        self.values[node.var] = self.read(slot)
        return mutator.mutate(node.body)

    def differs(self, *values: Expr) -> bool:
        """Whether one of the values, as they were before rewriting, is not the same in every lane."""
        found: list[Any] = []
        for value in values:
            tvm_ffi.structural_walk(value, [(tirx.Var, found.append)])
        return self.keeping.differs(*(self.values.get(variable, variable) for variable in found))

    def select(self, node: Any, mutator: Any) -> Expr:
        """Both branches are computed beforehand if they can be; where lanes choose, TVM computes both anyway."""
        branches = (node.true_value, node.false_value)
        is_plain = not any(map(_has_let, branches)) or self.differs(node.condition)
        if is_plain or all(map(self.can_run, branches)):
            return mutator.default_mutate(node)
        return self.either(node.condition, *branches)

    def call(self, node: Any, mutator: Any) -> Expr:
        if node.op.name != _CONDITIONAL or not any(map(_has_let, node.args[1:])):
            return mutator.default_mutate(node)
        return self.either(*node.args)

    def can_run(self, branch: Expr) -> bool:
        """Whether a value may be computed where it is not asked for."""
        loads: list[Any] = []
        tvm_ffi.structural_walk(branch, [(TensorLoad, loads.append)])
        return all(map(self.keeping.is_inside, loads))

    def either(self, condition: Expr, true_value: Expr, false_value: Expr) -> Expr:
        """One of two values, of which only that one is computed."""
        slot = self.keeping.slot(dtype_of(true_value), differs=self.differs(condition, true_value, false_value))
        condition = self.mutate(condition)
        branches = [self.branch(value, slot) for value in (true_value, false_value)]
        self.before.append(tirx.IfThenElse(condition, *branches))
        return self.read(slot)

    def branch(self, value: Expr, slot: _Slot) -> Stmt:
        outside, self.before = self.before, []
        value = self.mutate(value)
        branch, self.before = block(*self.before, slot.store(value)), outside
        return branch

    def read(self, slot: _Slot) -> Expr:
        """What a slot holds now. It has a name where it is the same in every lane: a load in a Select is one that TVM
        keeps from being made early. Where there are lanes TVM does not look at loads, and would lose the name."""
        if slot.differs:
            return slot.load()
        variable = tirx.Var("v", slot.dtype)
        self.before.append(tirx.Bind(variable, slot.load()))
        return variable


def _with_body(node: Any, body: Stmt) -> Stmt:
    return tirx.For(
        node.loop_var, node.min, node.extent, node.kind, body, node.thread_binding, node.annotations, node.step
    )
