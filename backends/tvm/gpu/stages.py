"""The stages of a fused function: what each computes at which index, and how it sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import ir, tirx

from lvc.backends.tvm.gpu.expressions import number
from lvc.backends.tvm.gpu.guards import guarded
from lvc.backends.tvm.gpu.lanes import substituted
from lvc.backends.tvm.nest import Buffer, Expr, Stmt
from lvc.compiler.errors import CompileError


@dataclass(frozen=True)
class Stage:
    """The element of ``buffer`` at ``axes`` is ``value``; where there are ``reduced`` axes it begins as ``first`` and
    becomes ``value``, which reads it, at each of them."""

    buffer: Buffer
    axes: tuple[Any, ...]
    extents: tuple[int, ...]
    reduced: tuple[Any, ...]
    reduced_extents: tuple[int, ...]
    first: Any
    value: Expr

    @property
    def elements(self) -> int:
        return math.prod(self.extents)

    @property
    def depth(self) -> int:
        """Terms of a sum."""
        return math.prod(self.reduced_extents)

    @property
    def reads(self) -> list[Any]:
        """What it loads beside what it sums up."""
        found: list[Any] = []
        tvm_ffi.structural_walk(self.value, [(ir.TensorLoad, found.append)])
        return [load for load in found if not load.source.same_as(self.buffer)]

    def at(self, places: Sequence[Expr], terms: Sequence[Expr] = (), total: Expr = None) -> Expr:
        """The value at an index, at one term of a sum that is ``total`` so far."""
        values = dict(zip((*self.axes, *self.reduced), (*places, *terms), strict=True))
        return _with_total(substituted(self.value, values), self.buffer, total)

    @property
    def term(self) -> Expr:
        """What one step adds, where sums of parts can be added up by the same operation; else None."""
        value = self.value
        if isinstance(value, tirx.Select):
            value = value.true_value
        is_known = isinstance(value, tirx.Add | tirx.Mul | tirx.Max | tirx.Min)
        return value.b if is_known and self._is_total(value.a) and not self._has_total(value.b) else None

    def combined(self, x: Expr, y: Expr) -> Expr:
        """The sum of two parts; ``term`` is not None."""
        own = self.term

        def part(node: Any, mutator: Any) -> Any:
            return y if node.same_as(own) else mutator.default_mutate(node)

        kinds = [(type(own), part)]
        return _with_total(tvm_ffi.structural_mutate(self.value, kinds), self.buffer, x)

    def _is_total(self, node: Any) -> bool:
        return isinstance(node, ir.TensorLoad) and node.source.same_as(self.buffer)

    def _has_total(self, node: Any) -> bool:
        found: list[Any] = []
        tvm_ffi.structural_walk(node, [(ir.TensorLoad, found.append)])
        return any(map(self._is_total, found))


@dataclass(frozen=True)
class Nest:
    """What ``blocks`` of ``threads`` write of ``buffer``, each by ``body``; ``block`` and ``thread`` are their
    indices."""

    buffer: Buffer
    block: Any
    blocks: int
    thread: Any
    threads: int
    body: Stmt

    @property
    def reads(self) -> list[Any]:
        """What it loads."""
        found: list[Any] = []
        tvm_ffi.structural_walk(self.body, [(ir.TensorLoad, found.append)])
        return found

    def at(self, block: Expr, thread: Expr) -> Stmt:
        """What one thread does."""
        return substituted(self.body, {self.block: block, self.thread: thread})


def _with_total(value: Expr, buffer: Buffer, total: Expr) -> Expr:
    if total is None:
        return value

    def load(node: Any, mutator: Any) -> Any:
        return total if node.source.same_as(buffer) else mutator.default_mutate(node)

    return tvm_ffi.structural_mutate(value, [(ir.TensorLoad, load)])


def stages_of(sch: Any) -> list[Stage | Nest]:
    """The stages of a schedule's function in order, without those that only one other reads, which computes them
    itself."""
    found = [_stage(sch.get(block)) for block in sch.get_child_blocks(sch.get_sblock("root"))]
    while (place := _inlined(found)) is not None:
        stage = found.pop(place)
        assert isinstance(stage, Stage)
        found = [other if isinstance(other, Nest) else _with_stage(other, stage) for other in found]
    return found


def _stage(block: Any) -> Stage | Nest:
    outer = block.body
    if _is_parallel(outer) and _is_parallel(inner := outer.body):
        extents = int(outer.extent), int(inner.extent)
        return Nest(_written(inner.body), outer.loop_var, extents[0], inner.loop_var, extents[1], inner.body)
    if not isinstance(block.body, tirx.BufferStore):
        raise CompileError(
            "elements wait for one another in it", why="its loops are written for one thread of a processor"
        )
    axes = [(axis.var, int(axis.dom.extent), int(axis.iter_type) == 0) for axis in block.iter_vars]
    space = [(var, extent) for var, extent, is_space in axes if is_space]
    reduced = [(var, extent) for var, extent, is_space in axes if not is_space]
    values = {var: tirx.const(0, "int32") for var, extent in (*space, *reduced) if extent == 1}
    known = {var: (0, extent - 1) for var, extent in (*space, *reduced)}
    return Stage(
        block.body.buffer,
        tuple(var for var, _ in space),
        tuple(extent for _, extent in space),
        tuple(var for var, _ in reduced),
        tuple(extent for _, extent in reduced),
        None if block.init is None else block.init.value,
        substituted(guarded(block.body.value, known), values),
    )


def _written(body: Stmt) -> Buffer:
    """The buffer in memory that a statement writes."""
    stores: list[Any] = []
    tvm_ffi.structural_walk(body, [(tirx.BufferStore, stores.append)])
    return next(store.buffer for store in stores if store.buffer.scope() != "local")


def _is_parallel(loop: Any) -> bool:
    return isinstance(loop, tirx.For) and loop.kind == tirx.ForKind.PARALLEL


def _inlined(stages: Sequence[Stage | Nest]) -> int | None:
    """A stage without a sum that one other reads, at one place."""
    nests = [stage for stage in stages if isinstance(stage, Nest)]
    kept = [load.source for nest in nests for load in nest.reads]
    for place, stage in enumerate(stages[:-1]):
        if isinstance(stage, Nest) or any(source.same_as(stage.buffer) for source in kept):
            continue
        reads = [load for other in stages for load in other.reads if load.source.same_as(stage.buffer)]
        if not stage.reduced and len(reads) == 1:
            return place
    return None


def _with_stage(stage: Stage, inner: Stage) -> Stage:
    def load(node: Any, mutator: Any) -> Any:
        if not node.source.same_as(inner.buffer):
            return mutator.default_mutate(node)
        return inner.at([mutator.mutate(index) for index in node.indices])

    return _replaced(stage, tvm_ffi.structural_mutate(stage.value, [(ir.TensorLoad, load)]))


def _replaced(stage: Stage, value: Expr) -> Stage:
    return Stage(stage.buffer, stage.axes, stage.extents, stage.reduced, stage.reduced_extents, stage.first, value)


def with_buffers(stage: Stage, kept: Mapping[Any, tuple[Buffer, int]]) -> Stage:
    """A stage that reads others from buffers without so many of their first dimensions."""

    def load(node: Any, mutator: Any) -> Any:
        node = mutator.default_mutate(node)
        if node.source not in kept:
            return node
        buffer, dropped = kept[node.source]
        return tirx.BufferLoad(buffer, list(node.indices)[dropped:] or [tirx.const(0, "int32")])

    return _replaced(stage, tvm_ffi.structural_mutate(stage.value, [(ir.TensorLoad, load)]))


def shared_dimensions(stages: Sequence[Stage]) -> int:
    """How many of the first dimensions all stages have in common and read each other at."""
    count = 0
    for column in zip(*(stage.extents for stage in stages), strict=False):
        if len(set(column)) != 1 or not all(_reads_own(stage, stages, count) for stage in stages):
            break
        count += 1
    return count


def _reads_own(stage: Stage, stages: Sequence[Stage], dim: int) -> bool:
    """Whether a stage reads all others at its own index of a dimension."""
    made = [other.buffer for other in stages]
    loads = [load for load in stage.reads if any(load.source.same_as(buffer) for buffer in made)]
    return all(
        stage.extents[dim] == 1 or (len(load.indices) > dim and load.indices[dim].same_as(stage.axes[dim]))
        for load in loads
    ) and all(number(load.indices[dim]) == 0 or stage.extents[dim] != 1 for load in loads if len(load.indices) > dim)
