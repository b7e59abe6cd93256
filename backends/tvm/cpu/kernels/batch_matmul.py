"""Products of many pairs of matrices, both computed: attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from tvm import te, tirx

from lvc.backends.tvm.cpu.integer_layers import computes, dot_operand, pairs_for
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule, anchored_plain
from lvc.backends.tvm.cpu.kernels import panel_product
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32, DotOperand
from lvc.backends.tvm.cpu.kernels.padding import copy_converted
from lvc.backends.tvm.cpu.kernels.panel_product import Knobs, PanelProduct
from lvc.backends.tvm.cpu.kernels.space import Space
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import Fused, take_apart, write_nest
from lvc.backends.tvm.nest import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    grid,
    load,
    loop,
    scratch,
    store,
    tasks,
)
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import integer

aten = torch.ops.aten


@dataclass(frozen=True)
class BatchMatmul:
    """``a [B, M, K]`` times ``b [B, K, N]``, or ``b [B, N, K]`` where ``transpose_b``, all plain. Each ``b`` is copied
    into panels of ``block`` columns first, as operands of its own kind if there is a ``panel_operand``."""

    batch: int
    m: int
    n: int
    k: int
    transpose_b: bool = False
    block: int = 8
    operand: DotOperand = FLOAT32
    panel_operand: DotOperand | None = None

    @property
    def other(self) -> DotOperand:
        """How ``b`` is multiplied."""
        return self.panel_operand or self.operand

    @cached_property
    def panels(self) -> int:
        """Panels of one ``b``."""
        return -(-self.n // self.block)

    @cached_property
    def steps(self) -> int:
        """Steps of the reduction."""
        return self.operand.count(self.k)


def compute(problem: BatchMatmul, a: Any, b: Any) -> Any:
    """The products as TE."""
    p = problem
    k = te.reduce_axis((0, p.k), "k")

    def anchor(i: Any, row: Any, column: Any) -> Any:
        factor = b[i, column, k] if p.transpose_b else b[i, k, column]
        return te.sum(p.operand.factor(a[i, row, k]) * p.other.factor(factor), axis=k)

    shape = (p.batch, p.m, p.n)
    return te.compute(shape, te.compute(shape, anchor, name="anchor"), name="result")


def anchor(call: Call, vector: Vector) -> Anchor | None:
    """For stacks of as many matrices, none of them stored."""
    if not computes(call, aten.matmul.default, integer.matmul):
        return None
    a, b = call["self"], call["other"]
    if a.constant is not None or b.constant is not None or min(len(a.shape), len(b.shape)) < 2:
        return None
    is_integer = is_call(call.node, integer.matmul)
    if a.shape[:-2] != b.shape[:-2] or not (is_integer or a.dtype == b.dtype):
        return None
    batch, (m, k), n = math.prod(a.shape[:-2]), a.shape[-2:], b.shape[-1]
    problem = BatchMatmul(batch, m, n, k, block=vector.lanes, operand=dot_operand(call, vector))
    if is_integer:
        pairs = (pairs_for(call, vector, call[zero]) for zero in ("zero_self", "zero_other"))
        problem = replace(problem, operand=next(pairs), panel_operand=next(pairs))
    result = compute(problem, call.tensor("self", (batch, m, k)), call.tensor("other", (batch, k, n)))
    return anchored_plain(call, result, (batch, m, n), KernelSchedule(schedule, problem))


def choose_knobs(problem: BatchMatmul, vector: Vector) -> Knobs:
    """The register tile with the fewest cycles by count. Panels are split among tasks, since each packs its own."""
    p = problem
    return panel_product.choose_knobs((p.m, p.n, p.steps), p.batch, p.block, vector, p.operand)


def space(problem: BatchMatmul, vector: Vector) -> Space:
    """What the knobs may be."""
    p = problem
    return panel_product.space((p.m, p.n, p.steps), p.batch, p.block, vector, p.operand)


def schedule(sch: Any, problem: BatchMatmul, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the fused function in the schedule."""
    p, knobs = problem, knobs or choose_knobs(problem, vector)
    fused = take_apart(sch)

    def task(batch: Expr, row_part: Expr, panel_part: Expr) -> Stmt:
        panels = scratch([p.panels, p.steps, p.block], "panels", p.other.packed)
        pack = _pack(p, fused.operands[1], batch, panels)
        product = _product(p, vector, knobs, fused, (batch, panels))
        if not p.operand.is_converted:
            return allocate([panels], pack, product.part(row_part, panel_part))
        rows = scratch([p.m, p.k], "rows", p.operand.element)
        copy = copy_converted(rows, product.data, p.operand.convert, product.place)
        part = replace(product, data=rows, place=()).part(row_part, panel_part)
        return allocate([panels, rows], pack, copy, part)

    write_nest(sch, p.operand.around(tasks((p.batch, knobs.row_parts, knobs.panel_parts), task), vector))


def _product(p: BatchMatmul, vector: Vector, knobs: Knobs, fused: Fused, place: tuple[Expr, Buffer]) -> PanelProduct:
    a, (batch, panels) = fused.operands[0], place

    def finish(row: Expr, column: Expr, sums: Buffer, lanes: int) -> Stmt:
        return fused.finish([batch, row, column], sums, lanes=lanes)

    return PanelProduct(
        (p.m, p.n, p.k),
        p.operand,
        p.block,
        vector,
        knobs,
        a,
        (batch,),
        lambda panel, k: load(panels, [panel, k, 0], p.block),
        finish,
    )


def _pack(p: BatchMatmul, b: Buffer, batch: Expr, panels: Buffer) -> Stmt:
    """Copy one ``b`` into panels of words, zeros past the last row and the last column."""
    whole, rest = divmod(p.k, p.operand.elements)
    parts = _pack_steps(p, b, panels, (batch, 0, whole), p.operand.elements)
    return block(*parts, *_pack_steps(p, b, panels, (batch, whole, 1), rest))


def _pack_steps(
    p: BatchMatmul, b: Buffer, panels: Buffer, place: tuple[Expr, int, int], elements: int
) -> Iterator[Stmt]:
    """Copy what some steps of the reduction need: so many elements of each column for each."""
    (batch, first, count), (full, rest) = place, divmod(p.n, p.block)

    def packed(column: Expr, step: Expr, lanes: int = 1) -> Expr:
        rows = [step * p.operand.elements + i for i in range(elements)]
        places = [[batch, column, row] if p.transpose_b else [batch, row, column] for row in rows]
        return p.other.join([p.other.convert(load(b, place, lanes)) for place in places])

    def whole(panel: Expr, step: Expr) -> Stmt:
        step = step + first
        if not p.transpose_b:
            return store(panels, packed(panel * p.block, step, p.block), [panel, step, 0], p.block)
        return loop(p.block, lambda lane: store(panels, packed(panel * p.block + lane, step), [panel, step, lane]))

    def ragged(step: Expr) -> Stmt:
        step, zero = step + first, tirx.const(0, p.other.packed)
        lanes = loop(rest, lambda lane: store(panels, packed(full * p.block + lane, step), [full, step, lane]))
        return block(lanes, loop(p.block - rest, lambda lane: store(panels, zero, [full, step, lane]), start=rest))

    if full and count and elements:
        yield grid((full, count), whole)
    if rest and count and elements:
        yield grid((count,), ragged)
