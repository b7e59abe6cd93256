"""Products of many pairs of matrices, both computed: attention."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm import te, tirx

from lvc.backends.tvm.kernels import panel_product
from lvc.backends.tvm.kernels.fused import Fused, take_apart, write_nest
from lvc.backends.tvm.kernels.nest import Buffer, Expr, Stmt, allocate, block, grid, load, loop, scratch, store, tasks
from lvc.backends.tvm.kernels.panel_product import Knobs, PanelProduct
from lvc.backends.tvm.vector import Vector


@dataclass(frozen=True)
class BatchMatmul:
    """``a [B, M, K]`` times ``b [B, K, N]``, or ``b [B, N, K]`` where ``transpose_b``, all plain. Each ``b`` is copied
    into panels of ``block`` columns first."""

    batch: int
    m: int
    n: int
    k: int
    transpose_b: bool = False
    block: int = 8

    @cached_property
    def panels(self) -> int:
        """Panels of one ``b``."""
        return -(-self.n // self.block)


def compute(problem: BatchMatmul, a: Any, b: Any) -> Any:
    """The products as TE."""
    p = problem
    k = te.reduce_axis((0, p.k), "k")

    def anchor(i: Any, row: Any, column: Any) -> Any:
        return te.sum(a[i, row, k] * (b[i, column, k] if p.transpose_b else b[i, k, column]), axis=k)

    shape = (p.batch, p.m, p.n)
    return te.compute(shape, te.compute(shape, anchor, name="anchor"), name="result")


def choose_knobs(problem: BatchMatmul, vector: Vector) -> Knobs:
    """The register tile with the fewest cycles by count. Panels are split among tasks, since each packs its own."""
    p = problem
    return panel_product.choose_knobs((p.m, p.n, p.k), p.batch, p.block, vector)


def schedule(sch: Any, problem: BatchMatmul, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the fused function in the schedule."""
    p, knobs = problem, knobs or choose_knobs(problem, vector)
    fused = take_apart(sch)

    def task(batch: Expr, row_part: Expr, panel_part: Expr) -> Stmt:
        panels = scratch([p.panels, p.k, p.block], "panels")
        product = _product(p, vector, knobs, fused, (batch, panels))
        return allocate([panels], _pack(p, fused.operands[1], batch, panels), product.part(row_part, panel_part))

    write_nest(sch, tasks((p.batch, knobs.row_parts, knobs.panel_parts), task))


def _product(p: BatchMatmul, vector: Vector, knobs: Knobs, fused: Fused, place: tuple[Expr, Buffer]) -> PanelProduct:
    a, (batch, panels) = fused.operands[0], place

    def finish(row: Expr, column: Expr, sums: Buffer, lanes: int) -> Stmt:
        return fused.finish([batch, row, column], sums, lanes=lanes)

    return PanelProduct(
        (p.m, p.n, p.k),
        p.block,
        vector,
        knobs,
        lambda row, k: load(a, [batch, row, k]),
        lambda panel, k: load(panels, [panel, k, 0], p.block),
        finish,
    )


def _pack(p: BatchMatmul, b: Buffer, batch: Expr, panels: Buffer) -> Stmt:
    """Copy one ``b`` into panels, zeros past the last column."""
    full, rest = divmod(p.n, p.block)

    def read(column: Expr, k: Expr) -> Expr:
        return load(b, [batch, column, k] if p.transpose_b else [batch, k, column])

    def whole(panel: Expr, k: Expr) -> Stmt:
        if not p.transpose_b:
            return store(panels, load(b, [batch, k, panel * p.block], p.block), [panel, k, 0], p.block)
        return loop(p.block, lambda lane: store(panels, read(panel * p.block + lane, k), [panel, k, lane]))

    def ragged(k: Expr) -> Stmt:
        lanes = [loop(rest, lambda lane: store(panels, read(full * p.block + lane, k), [full, k, lane]))]
        lanes.append(
            loop(p.block - rest, lambda lane: store(panels, tirx.const(0, b.dtype), [full, k, lane]), start=rest)
        )
        return block(*lanes)

    parts = [grid((full, p.k), whole)] if full else []
    return block(*parts, *([grid((p.k,), ragged)] if rest else []))
